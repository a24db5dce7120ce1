"""Prediction with real .tflite bytes, against the Keras model that they were converted from."""

import hashlib
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_bundles import BRIGHTEST_CALIBRATED, IMAGE_SIZE, LABELS, change_manifest
from edge_images import encode, photo, tinted_photos
from numpy.typing import NDArray

from serving.bundle import load_bundle
from serving.errors import ServingError
from serving.predictor import Predictor, Scored
from serving.preprocessing import decode_image, to_pixels


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return tinted_photos(np.random.default_rng(3), 32, IMAGE_SIZE, BRIGHTEST_CALIBRATED)


@pytest.fixture(scope="module")
def predictor(uint8_bundle: Path) -> Predictor:
    return Predictor(load_bundle(uint8_bundle))


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-5), ("float16", 5e-3), ("uint8", 0.05), ("int8", 0.05)])
def test_probabilities_are_those_of_the_keras_model(
    make_bundle: Callable[[str], Path], keras_model: Any, pixels: NDArray[np.uint8], kind: str, tolerance: float
) -> None:
    probabilities = Predictor(load_bundle(make_bundle(kind))).predict(pixels)
    expected = keras_model(pixels.astype(np.float32)).numpy()
    assert probabilities.dtype == np.float32
    assert np.ptp(expected, axis=0).max() > 0.3, "the images must be told apart for this test to mean something"
    np.testing.assert_allclose(probabilities, expected, atol=tolerance)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_values_beyond_the_calibrated_range_are_clipped(make_bundle: Callable[[str], Path], kind: str) -> None:
    bundle = load_bundle(make_bundle(kind))
    scale = bundle.manifest.input.scale
    assert scale is not None
    assert scale == pytest.approx(BRIGHTEST_CALIBRATED / 255)
    calibrated = np.full((1, IMAGE_SIZE, IMAGE_SIZE, 3), BRIGHTEST_CALIBRATED, np.uint8)
    brighter = np.full_like(calibrated, 255)
    predictor = Predictor(bundle)
    np.testing.assert_array_equal(predictor.predict(brighter), predictor.predict(calibrated))


def test_files_are_decoded_and_resized(predictor: Predictor) -> None:
    rng = np.random.default_rng(5)
    files = [encode(photo(rng, 50, 80), "JPEG"), encode(photo(rng, 90, 30), "PNG")]
    pixels = np.stack([to_pixels(decode_image(data), IMAGE_SIZE) for data in files])
    np.testing.assert_array_equal(predictor.predict_images(files), predictor.predict(pixels))


def test_a_bad_file_is_named_by_its_index(predictor: Predictor) -> None:
    good = encode(photo(np.random.default_rng(5), 50, 80), "PNG")
    with pytest.raises(ServingError, match="image 1: not an image"):
        predictor.predict_images([good, b"junk", good])


def test_no_images_give_no_rows(predictor: Predictor) -> None:
    assert predictor.predict_images([]).shape == (0, len(LABELS))


def test_top_sorts_classes(predictor: Predictor) -> None:
    probabilities = np.array([[0.25, 0.5, 0.25], [0.125, 0.25, 0.625]], np.float32)
    assert predictor.top(probabilities, 2) == [
        [Scored("dog", 0.5), Scored("cat", 0.25)],
        [Scored("llama", 0.625), Scored("dog", 0.25)],
    ]
    assert [len(best) for best in predictor.top(probabilities, 9)] == [3, 3]


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32),
        np.zeros((1, IMAGE_SIZE, IMAGE_SIZE + 1, 3), np.uint8),
        np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8),
    ],
    ids=["dtype", "size", "no batch"],
)
def test_other_pixels_are_refused(predictor: Predictor, pixels: NDArray[Any]) -> None:
    with pytest.raises(ServingError, match=r"the model takes uint8 \[N, 24, 24, 3\]"):
        predictor.predict(pixels)


@pytest.mark.parametrize("interpreters", [1, 3])
def test_threads_get_the_answers_of_their_own_images(
    uint8_bundle: Path, pixels: NDArray[np.uint8], interpreters: int
) -> None:
    predictor = Predictor(load_bundle(uint8_bundle), interpreters=interpreters)
    expected = predictor.predict(pixels)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda index: predictor.predict(pixels[[index]])[0], list(range(32)) * 20))
    np.testing.assert_array_equal(answers, np.tile(expected, (20, 1)))


def test_a_copy_for_another_process_predicts_the_same(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    copy = pickle.loads(pickle.dumps(predictor))  # noqa: S301
    np.testing.assert_array_equal(copy.predict(pixels), predictor.predict(pixels))


@pytest.mark.parametrize(
    ("role", "change"),
    [
        ("input", {"scale": 0.5}),
        ("input", {"zero_point": 3}),
        ("output", {"dtype": "int8"}),
        ("output", {"name": "logits"}),
        ("input", {"shape": [1, 32, 32, 3], "image_size": 32}),
    ],
)
def test_a_model_that_the_manifest_does_not_describe_is_refused(
    make_bundle: Callable[[str], Path], role: str, change: dict[str, Any]
) -> None:
    directory = make_bundle("uint8")
    change_manifest(directory, lambda manifest: manifest[role].update(change))
    with pytest.raises(ServingError, match=rf"model\.tflite: its {role} tensor is not the one"):
        Predictor(load_bundle(directory))


@pytest.mark.parametrize("keep", [0, 8, 500, -1])
def test_a_truncated_model_with_a_matching_digest_is_refused(make_bundle: Callable[[str], Path], keep: int) -> None:
    path = make_bundle("uint8") / "model.tflite"
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    change_manifest(path.parent, lambda manifest: manifest["sha256"].update({path.name: digest}))
    with pytest.raises(ServingError, match=r"model\.tflite: LiteRT cannot load it") as caught:
        Predictor(load_bundle(path.parent))
    assert "\n" not in str(caught.value)
