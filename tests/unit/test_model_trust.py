"""Models that would run code on being loaded, and archives that would write elsewhere."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pipeline.compress import load_model
from trainer_module.errors import UserError
from trainer_module.export import ARCHITECTURE_FILE, save_serving_model
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIXELS = np.zeros((1, 16, 16, 3), np.float32)


def with_lambda(witness: Path) -> keras.Model:
    """Returns a classifier whose Lambda layer leaves a file behind wherever it runs."""
    image = keras.Input([16, 16, 3])
    name = str(witness)
    hidden = keras.layers.Lambda(lambda x, name=name: (open(name, "w").close(), x)[1])(image)  # noqa: PTH123
    answer = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(hidden))
    return keras.Model(image, answer)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved"])
def test_a_model_with_a_lambda_is_loaded_only_if_that_is_allowed(name: str, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    model = with_lambda(witness)
    model.save(tmp_path / name, save_format="tf" if name == "saved" else None)
    witness.unlink()
    with pytest.raises(UserError, match=r"code that would run on loading it: a Lambda layer.*--allow-code"):
        load_model(tmp_path / name)
    assert not witness.exists()
    loaded, _ = load_model(tmp_path / name, allow_code=True)
    np.testing.assert_allclose(loaded(PIXELS), model(PIXELS), atol=1e-6)


def pushed(directory: Path, change: Callable[[dict], None]) -> Path:
    """Writes a SavedModel as trimline run does, and tampers with the description of its layers."""
    save_serving_model(build_model(ModelSettings(width=0.25), 16, 3), str(directory), ["a", "b", "c"], 16)
    description = json.loads((directory / ARCHITECTURE_FILE).read_text())
    change(description)
    (directory / ARCHITECTURE_FILE).write_text(json.dumps(description))
    return directory


def test_a_pushed_model_with_a_lambda_is_refused(tmp_path: Path) -> None:
    def add(description: dict) -> None:
        layers = description["model"]["layers"]
        layers[1]["class_name"] = "Lambda"
        layers[1]["config"] |= {"function": ["bytes", None, None], "function_type": "lambda"}

    with pytest.raises(UserError, match="a Lambda layer"):
        load_model(pushed(tmp_path / "1", add))


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"module": "subprocess", "class_name": "Popen", "config": {"args": "id"}}, "subprocess.Popen"),
        (
            {"module": "trainer_module.view_averaging", "class_name": "tf", "config": {}},
            "trainer_module.view_averaging.tf",
        ),
        ({"module": "builtins", "class_name": "function", "config": "exec"}, "builtins.exec"),
        ({"class_name": "ResidualWrapper", "config": {"residual_function_type": "lambda"}}, "a function of its own"),
        ({"class_name": "__lambda__", "config": {"value": "bytes"}}, "a Lambda"),
        ({"module": "keras.utils", "class_name": "get_file", "config": {}}, "keras.utils.get_file"),
        (
            {"module": "tf_keras.src.layers.x", "class_name": "os.system", "config": {}},
            "tf_keras.src.layers.x.os.system",
        ),
        ({"class_name": "TensorFlowOpLayer", "config": {"node_def": "WriteFile"}}, "an operation of TensorFlow's"),
    ],
)
def test_a_keras_file_that_names_other_code_is_refused(entry: dict, named: str, tmp_path: Path) -> None:
    build_model(ModelSettings(width=0.25), 16, 3).save(tmp_path / "honest.keras")
    forge(tmp_path / "honest.keras", tmp_path / "m.keras", entry)
    with pytest.raises(UserError, match=named):
        load_model(tmp_path / "m.keras")


def forge(honest: Path, forged: Path, entry: dict) -> None:
    """Copies a .keras file with one layer more in its description."""
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(forged, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                description = json.loads(content)
                description["config"]["layers"].append(entry)
                content = json.dumps(description).encode()
            target.writestr(name, content)


def test_a_function_of_tensorflow_that_writes_a_file_is_refused_and_one_that_computes_is_not(tmp_path: Path) -> None:
    image = keras.Input([16, 16, 3])
    x = tf.image.resize(tf.nn.relu(tf.cast(image, tf.float32) / 127.5 - 1.0), [8, 8])
    answer = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(tf.concat([x, tf.reverse(x, [2])], -1)))
    keras.Model(image, answer).save(tmp_path / "honest.keras")
    load_model(tmp_path / "honest.keras")
    witness = tmp_path / "witness"
    writing = {
        "module": "tf_keras.src.layers.core.tf_op_layer",
        "class_name": "TFOpLambda",
        "config": {"name": "write", "function": "io.write_file"},
        "registered_name": "TFOpLambda",
        "name": "write",
        "inbound_nodes": [["_CONSTANT_VALUE", -1, str(witness), {"contents": "x"}]],
    }
    forge(tmp_path / "honest.keras", tmp_path / "m.keras", writing)
    with pytest.raises(
        UserError, match=r"an operation of TensorFlow's that may do anything \(TFOpLambda io.write_file\)"
    ):
        load_model(tmp_path / "m.keras")
    assert not witness.exists()


class OwnLoss(keras.losses.Loss):
    def call(self, wanted: tf.Tensor, answered: tf.Tensor) -> tf.Tensor:
        return answered - wanted


def test_a_loss_of_its_own_is_no_code_because_nothing_is_trained_with_it(tmp_path: Path) -> None:
    model = build_model(ModelSettings(width=0.25), 16, 3)
    model.compile("sgd", OwnLoss())
    model.save(tmp_path / "model.keras")
    load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("allow_code", [False, True])
@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model"])
def test_what_keras_3_wrote_runs_no_code_whatever_is_allowed(name: str, allow_code: bool, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    image = keras3.Input([16, 16, 3])
    writing = keras3.layers.Lambda(lambda x, name=str(witness): (open(name, "w").close(), x)[1])  # noqa: PTH123
    answer = keras3.layers.Dense(3, activation="softmax")(keras3.layers.Flatten()(writing(image)))
    keras3.Model(image, answer).save(tmp_path / name, **({} if "." in name else {"zipped": False}))
    witness.unlink()
    with pytest.raises(UserError, match=r"a Lambda layer.* models of Keras 3 are rebuilt of Keras' own layers"):
        load_model(tmp_path / name, allow_code=allow_code)
    assert not witness.exists()


def test_an_archive_writes_nowhere_but_in_its_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "deeper" / "model.keras"
    path.parent.mkdir(parents=True)
    model = build_model(ModelSettings(width=0.25), 16, 3)
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/../../../../escaped", b"x")
        archive.writestr(str(tmp_path / "absolute"), b"x")
    before = set(tmp_path.rglob("*"))
    loaded, _ = load_model(path)
    assert loaded.count_params() == model.count_params()
    assert set(tmp_path.rglob("*")) == before
