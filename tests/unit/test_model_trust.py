"""Models that would run code on being loaded, and archives that would write elsewhere."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
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
    ],
)
def test_a_keras_file_that_names_other_code_is_refused(entry: dict, named: str, tmp_path: Path) -> None:
    build_model(ModelSettings(width=0.25), 16, 3).save(tmp_path / "honest.keras")
    with zipfile.ZipFile(tmp_path / "honest.keras") as honest, zipfile.ZipFile(tmp_path / "m.keras", "w") as forged:
        for name in honest.namelist():
            content = honest.read(name)
            if name == "config.json":
                description = json.loads(content)
                description["config"]["layers"].append(entry)
                content = json.dumps(description).encode()
            forged.writestr(name, content)
    with pytest.raises(UserError, match=named):
        load_model(tmp_path / "m.keras")


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
