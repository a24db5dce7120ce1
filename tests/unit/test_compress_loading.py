"""What `trimline compress` takes for a model, and how it says no to everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pipeline.compress import load_model
from trainer_module.errors import UserError
from trainer_module.export import save_serving_model
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.float32)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_model(ModelSettings(width=0.25), 16, 3)


@pytest.mark.parametrize("name", ["classifier.keras", "classifier.h5"])
def test_keras_files_are_loaded(name: str, tmp_path: Path) -> None:
    model = network()
    model.save(tmp_path / name)
    loaded, names = load_model(tmp_path / name)
    assert names is None
    np.testing.assert_array_equal(loaded(PIXELS).numpy(), model(PIXELS).numpy())


def test_our_own_saved_model_is_loaded_with_its_classes(tmp_path: Path) -> None:
    model = network()
    save_serving_model(model, str(tmp_path / "1"), ["a", "b", "ü"], 16)
    loaded, names = load_model(tmp_path / "1")
    assert names == ["a", "b", "ü"]
    np.testing.assert_allclose(loaded(PIXELS).numpy(), model(PIXELS).numpy(), atol=1e-5)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such model"):
        load_model(tmp_path / "none.keras")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "photo.keras").write_bytes(b"\xff\xd8 not a model")
    with pytest.raises(UserError, match="Keras cannot load it"):
        load_model(tmp_path / "photo.keras")


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no SavedModel that trimline run has written"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [([16, 20, 3], r"\(None, 16, 20, 3\)"), ([16, 16, 1], r"\(None, 16, 16, 1\)"), ([4, 4, 3], "4 pixels wide")],
)
def test_a_model_of_something_else(shape: list[int], message: str, tmp_path: Path) -> None:
    image = keras.Input(shape)
    answer = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(image))
    keras.Model(image, answer).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "other.keras")


def ending_with(last: keras.layers.Layer) -> keras.Model:
    image = keras.Input([16, 16, 3])
    return keras.Model(image, last(keras.layers.Flatten()(image)))


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (
            keras.layers.Dense(1, activation="sigmoid"),
            r"answers one number \(sigmoid\), .* Dense\(2, activation='softmax'\)",
        ),
        (keras.layers.Dense(3), "answers no probabilities: .*; give one that ends with softmax"),
        (keras.layers.Dense(3, activation="softmax", bias_initializer=lambda *_, **__: [np.nan] * 3), "are not finite"),
    ],
    ids=["sigmoid", "logits", "NaN"],
)
def test_a_model_without_probabilities_of_classes(last: keras.layers.Layer, message: str, tmp_path: Path) -> None:
    ending_with(last).save_weights(tmp_path / "weights.h5")
    model = ending_with(type(last)(last.units, activation=last.activation))
    model.load_weights(tmp_path / "weights.h5")
    model.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "model.keras")


def test_a_saved_model_without_layers(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "exported"))
    with pytest.raises(UserError, match=r"a SavedModel without layers, as Keras 3's model.export\(\) writes them"):
        load_model(tmp_path / "exported")


def test_weights_without_layers(tmp_path: Path) -> None:
    network().save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(UserError, match=r"holds weights without the layers; give what model.save\(\) writes"):
        load_model(tmp_path / "model.weights.h5")


@pytest.mark.parametrize("name", ["classifier.keras", "classifier.h5"])
def test_files_of_keras_3_are_loaded(name: str, tmp_path: Path) -> None:
    layers = [keras3.layers.Rescaling(0.01), keras3.layers.Flatten(), keras3.layers.Dense(3, activation="softmax")]
    model = keras3.Sequential([keras3.Input([16, 16, 3]), *layers])
    model.save(tmp_path / name)
    loaded, names = load_model(tmp_path / name)
    assert names is None
    np.testing.assert_allclose(loaded(PIXELS).numpy(), model(PIXELS), atol=1e-5)


def test_a_file_of_keras_3_with_two_inputs(tmp_path: Path) -> None:
    images = [keras3.Input([16, 16, 3]), keras3.Input([16, 16, 3])]
    answer = keras3.layers.Dense(3, activation="softmax")(keras3.layers.Flatten()(keras3.layers.Add()(images)))
    keras3.Model(images, answer).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"its input has shape \[\(None, 16, 16, 3\), \(None, 16, 16, 3\)\]"):
        load_model(tmp_path / "model.keras")
