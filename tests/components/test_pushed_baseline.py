"""The release before, found in pushed versions, as platforms without resolvers do."""

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.pushed_baseline import properties, spec
from components.pushed_baseline.engine import latest_other
from components.pushed_baseline.executor import BaselineModelsExecutor, PushedBaselineExecutor

pytestmark = pytest.mark.component

FILES = {"saved_model": "saved_model.pb", "tflite_model": "model.json"}


def _artifact(kind, path):
    made = kind()
    made.uri = str(path)
    return made


def _push(root, name, version, content):
    directory = root / "pushed" / name / str(version)
    directory.mkdir(parents=True)
    (directory / FILES[name]).write_text(content)


def _look_up(root, content):
    """Returns the versions that a candidate with this content is to be compared with."""
    candidates = {}
    for name, file in FILES.items():
        serving = root / f"candidate-{content}" / name / "Format-Serving"
        serving.mkdir(parents=True, exist_ok=True)
        (serving / file).write_text(content)
        candidates[name] = [_artifact(standard_artifacts.Model, serving.parent)]
    outputs = {
        key: [_artifact(standard_artifacts.String, root / key)]
        for key in (spec.SAVED_MODEL_VERSION, spec.TFLITE_VERSION)
    }
    directories = {
        spec.SAVED_MODEL_DIRECTORY: str(root / "pushed" / "saved_model"),
        spec.TFLITE_DIRECTORY: str(root / "pushed" / "tflite_model"),
    }
    PushedBaselineExecutor().Do(candidates, outputs, directories)
    return [(root / key).read_text() for key in outputs]


def test_the_first_release_finds_none(tmp_path):
    assert _look_up(tmp_path, "a") == ["", ""]


def test_it_is_the_newest_version_other_than_the_candidate(tmp_path):
    for version, content in ((9, "a"), (10, "b"), (11, "a")):
        for name in FILES:
            _push(tmp_path, name, version, content)
    # As numbers, not as text.
    assert _look_up(tmp_path, "c") == [f"{tmp_path}/pushed/{name}/11" for name in FILES]
    assert _look_up(tmp_path, "a") == [f"{tmp_path}/pushed/{name}/10" for name in FILES]


def test_a_candidate_that_alone_was_pushed_has_none(tmp_path):
    for name in FILES:
        _push(tmp_path, name, 5, "a")
    assert _look_up(tmp_path, "a") == ["", ""]
    # Half of a push: each artifact is compared with what was pushed of it.
    _push(tmp_path, "tflite_model", 6, "b")
    assert _look_up(tmp_path, "a") == ["", f"{tmp_path}/pushed/tflite_model/6"]


def test_a_push_that_was_killed_on_an_object_store_is_no_baseline(tmp_path):
    base = f"ram://{tmp_path.name}"
    for name in ("5/model.json", "5/model.tflite", "6/model.tflite"):
        tf.io.gfile.makedirs(f"{base}/{name[0]}")
        with tf.io.gfile.GFile(f"{base}/{name}", "w") as stream:
            stream.write("pushed")
    (tmp_path / "candidate").mkdir()
    (tmp_path / "candidate" / "model.tflite").write_text("new")
    assert latest_other(base, str(tmp_path / "candidate")) == f"{base}/5"


def test_versions_become_models_and_none_an_artifact_that_says_so(tmp_path):
    _push(tmp_path, "saved_model", 7, "a")
    models = {key: [_artifact(standard_artifacts.Model, tmp_path / key)] for key in (spec.MODEL, spec.TFLITE_MODEL)}
    version = tmp_path / "pushed" / "saved_model" / "7"
    parameters = {spec.SAVED_MODEL_VERSION: str(version), spec.TFLITE_VERSION: ""}
    BaselineModelsExecutor().Do({}, models, parameters)
    assert (tmp_path / "model" / "Format-Serving" / "saved_model.pb").read_text() == "a"
    assert models["model"][0].get_int_custom_property(properties.ABSENT) == 0
    assert models["tflite_model"][0].get_int_custom_property(properties.ABSENT) == 1
    # An object store keeps no empty folder.
    assert [file for file in (tmp_path / "tflite_model").rglob("*") if file.is_file()]
