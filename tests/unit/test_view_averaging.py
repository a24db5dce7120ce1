"""The average over views of a photo, inside the network."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tf_keras as keras

from components.compression import channel_pruning
from components.compression.conversion import VARIANTS, Converter
from components.compression.kernels import require_known_layers
from components.compression.precision import computing_in
from components.compression.quantization_aware import fake_quantized
from pipeline.compress import load_model
from trainer_module.export import save_serving_model
from trainer_module.folding import fold_batch_norm
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import tensorflow as tf

SIZE, CLASSES = 32, 3


def photos(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def pixels(count: int = 8) -> np.ndarray:
    return photos(count).astype(np.float32)


def network(**views: bool) -> keras.Model:
    return build_model(ModelSettings(architecture="residual", width=0.5, dropout=0.0, **views), SIZE, CLASSES)


@pytest.fixture(scope="module")
def averaging() -> keras.Model:
    keras.utils.set_random_seed(0)
    return network(flip_average=True, shift_average=True)


@pytest.fixture(scope="module")
def plain(averaging: keras.Model) -> keras.Model:
    model = network()
    model.set_weights(averaging.get_weights())
    return model


def shifted(images: np.ndarray, pixels_down_and_right: int) -> np.ndarray:
    rows = np.clip(np.arange(SIZE) - pixels_down_and_right, 0, SIZE - 1)
    return images[:, rows][:, :, rows]


def averaged(
    one_view: Callable[[np.ndarray], tf.Tensor], flips: tuple[int, ...], shifts: tuple[int, ...]
) -> np.ndarray:
    views = [one_view(shifted(pixels(), shift)[:, :, ::flip]).numpy() for flip in flips for shift in shifts]
    assert np.ptp(views, axis=0).max() > 0.01
    mean = np.exp(np.mean(np.log(views), axis=0))
    return mean / mean.sum(axis=1, keepdims=True)


def columns() -> np.ndarray:
    """Returns photos whose rows are all equal: their mirror images have the same six views as they have."""
    return photos(8)[:, :1].repeat(SIZE, axis=1)


@pytest.mark.parametrize(("flips", "shifts"), [((1, -1), (0,)), ((1,), (0, 1, -1)), ((1, -1), (0, 1, -1))])
def test_the_answer_is_the_normalised_geometric_mean_of_the_views(
    flips: tuple[int, ...], shifts: tuple[int, ...], plain: keras.Model
) -> None:
    model = network(flip_average=len(flips) > 1, shift_average=len(shifts) > 1)
    model.set_weights(plain.get_weights())
    np.testing.assert_allclose(model(pixels()), averaged(plain, flips, shifts), atol=1e-5)


@pytest.mark.parametrize("architecture", ["naive", "lean"])
def test_mirror_images_get_the_same_answer_whatever_the_head(architecture: str) -> None:
    model = build_model(ModelSettings(architecture=architecture, width=0.25, flip_average=True), SIZE, CLASSES)
    np.testing.assert_allclose(model(pixels()), model(pixels()[:, :, ::-1]), atol=1e-5)


def test_in_training_each_photo_is_seen_once(averaging: keras.Model, plain: keras.Model) -> None:
    np.testing.assert_allclose(averaging(pixels(), training=True), plain(pixels(), training=True), atol=1e-6)


def test_what_is_saved_loads_without_a_word_about_code(averaging: keras.Model, tmp_path: Path) -> None:
    averaging.save(tmp_path / "model.keras")
    save_serving_model(averaging, str(tmp_path / "1"), ["a", "b", "c"], SIZE, images=pixels())
    for saved in ("model.keras", "1"):
        loaded, _ = load_model(tmp_path / saved)
        np.testing.assert_allclose(loaded(pixels()), averaging(pixels()), atol=1e-4)


def test_pixels_are_not_rounded_where_the_rest_computes_in_bfloat16(averaging: keras.Model) -> None:
    reduced = computing_in(averaging, "bfloat16")
    assert {reduced.get_layer(name).compute_dtype for name in ("shifted", "mirrored")} == {"float32"}
    np.testing.assert_allclose(reduced(pixels()), averaging(pixels()), atol=0.05)


def test_every_variant_answers_for_all_views(averaging: keras.Model, plain: keras.Model, tmp_path: Path) -> None:
    folded = fold_batch_norm(averaging)
    require_known_layers(folded, ["qat"])
    learned = fake_quantized(folded, 8, photos(32))
    makers = {"qat": (learned, "int8"), **{name: (folded, name) for name in VARIANTS}}
    expected = averaging(pixels()).numpy()
    averages_are_worth = np.abs(plain(pixels()) - expected).mean()
    for name, (model, variant) in makers.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(Converter(model, photos(32), tmp_path / name).convert(variant))
        classifier = TFLiteClassifier(path)
        assert np.abs(classifier.predict(photos(8)) - expected).mean() < 0.3 * averages_are_worth, name
        mirrored = classifier.predict(columns()[:, :, ::-1])
        np.testing.assert_allclose(classifier.predict(columns()), mirrored, atol=1e-5, err_msg=name)


def test_channels_go_from_it_as_from_any_other(averaging: keras.Model) -> None:
    labels = np.arange(32) % CLASSES
    narrow, _ = channel_pruning.remove_channels(averaging, 0.2, photos(32), labels)
    assert narrow.count_params() < averaging.count_params()
    # Folded, it has no layers that behave otherwise in training but those that make and average views.
    one_view = functools.partial(fold_batch_norm(narrow), training=True)
    np.testing.assert_allclose(narrow(pixels()), averaged(one_view, (1, -1), (0, 1, -1)), atol=1e-4)
