"""The server's preprocessing against the in-graph preprocessing that models are trained behind."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from edge_images import encode, photo
from numpy.typing import NDArray
from PIL import Image

from serving.preprocessing import decode_image, to_pixels
from tests.image_files import with_orientation

IMAGES = 216
SIGNATURE_SIZE = 64
ENCODINGS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {"subsampling": "4:2:0", "quality": 75}),
    ("JPEG", {"subsampling": "4:4:4", "quality": 90}),
]


@pytest.fixture(scope="module")
def files() -> list[tuple[bytes, int]]:
    """Images of all aspects, smaller and larger than the model's input, with that input's size."""
    rng = np.random.default_rng(11)

    def generate() -> Iterator[tuple[bytes, int]]:
        for index in range(IMAGES):
            height, width = rng.integers(24, 400, 2)
            image_format, options = ENCODINGS[index % len(ENCODINGS)]
            image_size = int(rng.choice([32, 64, 96, 128, 224]))
            yield encode(photo(rng, int(height), int(width)), image_format, **options), image_size

    return list(generate())


def _in_graph(data: bytes, image_size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns TensorFlow's decoded image and the pixels that models are trained with."""
    import tensorflow as tf

    from trainer_module import preprocessing

    # decode_jpeg decodes PNG too. Its default, INTEGER_FAST, is up to 11 levels away from INTEGER_ACCURATE, which is
    # what Pillow uses.
    decoded = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    return decoded.numpy(), preprocessing.decode_image(data, image_size).numpy()


def test_both_preprocessings_agree(files: list[tuple[bytes, int]]) -> None:
    shares = []
    for data, image_size in files:
        image = decode_image(data)
        decoded, expected = _in_graph(data, image_size)
        np.testing.assert_array_equal(np.asarray(image), decoded)
        difference = np.abs(to_pixels(image, image_size).astype(int) - expected)
        # Pillow rounds to 8 bits between the two passes of its separable filter, TensorFlow only at the end.
        assert difference.max() <= 1
        shares.append((difference > 0).mean())
    # Measured: 0.125.
    assert np.mean(shares) < 0.15


@pytest.fixture(scope="module")
def through_the_signature(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], NDArray[np.int64]]:
    """Exports a network that answers with the pixels it is given, and returns what its SavedModel makes of a file."""
    import tensorflow as tf
    import tf_keras as keras

    from trainer_module.export import save_serving_model

    directory = str(tmp_path_factory.mktemp("saved_model"))
    shape = (SIGNATURE_SIZE, SIGNATURE_SIZE, 3)
    names = [str(index) for index in range(np.prod(shape))]
    save_serving_model(keras.Sequential([keras.layers.Flatten(input_shape=shape)]), directory, names, SIGNATURE_SIZE)
    loaded = tf.saved_model.load(directory)

    def pixels(data: bytes) -> NDArray[np.int64]:
        answer = loaded.signatures["serving_default"](image_bytes=tf.constant([data]))
        return answer["probabilities"].numpy().reshape(shape).astype(int)

    return pixels


def _of_kind(kind: str, rng: np.random.Generator) -> tuple[Image.Image, str, dict[str, Any]]:
    image = photo(rng, *(int(side) for side in rng.integers(40, 300, 2)))
    transparent = image.copy()
    transparent.putalpha(photo(rng, image.height, image.width).convert("L"))
    palette = image.convert("P")
    return {
        "JPEG": (image, "JPEG", {"quality": 85}),
        "gray JPEG": (image.convert("L"), "JPEG", {}),
        "CMYK JPEG": (image.convert("CMYK"), "JPEG", {}),
        "PNG": (image, "PNG", {}),
        "gray PNG": (image.convert("L"), "PNG", {}),
        "palette PNG": (palette, "PNG", {}),
        "transparent PNG": (transparent, "PNG", {}),
        "gray transparent PNG": (transparent.convert("LA"), "PNG", {}),
        "palette PNG with a transparent colour": (palette, "PNG", {"transparency": palette.getpixel((0, 0))}),
        "WebP": (image, "WEBP", {}),
        "transparent WebP": (transparent, "WEBP", {}),
        "GIF": (image, "GIF", {}),
        "BMP": (image, "BMP", {}),
    }[kind]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "kind",
    [
        "JPEG",
        "gray JPEG",
        "CMYK JPEG",
        "PNG",
        "gray PNG",
        "palette PNG",
        "transparent PNG",
        "gray transparent PNG",
        "palette PNG with a transparent colour",
        "WebP",
        "transparent WebP",
    ],
)
def test_the_saved_model_takes_files_as_the_server_does(
    through_the_signature: Callable[[bytes], NDArray[np.int64]], kind: str, orientation: int
) -> None:
    image, image_format, options = _of_kind(kind, np.random.default_rng(orientation))
    data = encode(image, image_format, exif=with_orientation(orientation), **options)
    _assert_within_a_level(data, through_the_signature)


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
def test_the_saved_model_takes_files_that_know_no_orientation(
    through_the_signature: Callable[[bytes], NDArray[np.int64]], kind: str
) -> None:
    image, image_format, options = _of_kind(kind, np.random.default_rng(0))
    _assert_within_a_level(encode(image, image_format, **options), through_the_signature)


def _assert_within_a_level(data: bytes, through_the_signature: Callable[[bytes], NDArray[np.int64]]) -> None:
    difference = np.abs(to_pixels(decode_image(data), SIGNATURE_SIZE).astype(int) - through_the_signature(data))
    assert difference.max() <= 1
    # Measured: at most 0.25, of the smallest photos.
    assert (difference > 0).mean() < 0.3
