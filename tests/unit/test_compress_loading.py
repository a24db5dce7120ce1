"""What `trimline compress` takes for a model, and how it says no to everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
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
