"""What decides on a release: gate, baseline, push."""

from pathlib import Path

import pytest
from tfx.components.evaluator import constants
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.atomic_pusher.executor import Executor as PusherExecutor
from components.baseline_resolver.strategy import LatestReleasedStrategy
from components.release_gate.executor import Executor as GateExecutor

pytestmark = pytest.mark.component


def _artifact(kind, path: Path, number: int = 1):
    artifact = kind()
    artifact.uri = str(path)
    artifact.id = number
    path.mkdir(parents=True, exist_ok=True)
    return artifact


def _blessing(path: Path, blessed: bool, number: int = 1, model: int = 0, released: int | None = None):
    artifact = _artifact(standard_artifacts.ModelBlessing, path, number)
    artifact.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    artifact.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model)
    if released is not None:
        artifact.set_int_custom_property("released", released)
    return artifact


def _gate(tmp_path, *, fidelity: bool, release: bool):
    result = _artifact(standard_artifacts.ModelBlessing, tmp_path / "result")
    GateExecutor().Do(
        {
            "fidelity_blessing": [_blessing(tmp_path / "fidelity", fidelity)],
            "release_blessing": [_blessing(tmp_path / "release", release)],
            "saved_model": [_artifact(standard_artifacts.Model, tmp_path / "saved", 7)],
            "tflite_model": [_artifact(standard_artifacts.Model, tmp_path / "tflite", 8)],
        },
        {"blessing": [result]},
        {},
    )
    return result


@pytest.mark.parametrize(
    ("fidelity", "release", "refused_by"),
    [(True, True, ""), (False, True, "fidelity"), (True, False, "release"), (False, False, "fidelity,release")],
)
def test_a_release_needs_every_gate(tmp_path, fidelity, release, refused_by):
    result = _gate(tmp_path, fidelity=fidelity, release=release)
    blessed = not refused_by
    assert result.get_int_custom_property("blessed") == int(blessed)
    assert result.get_string_custom_property("refused_by") == refused_by
    assert result.get_int_custom_property("current_model_id") == 7
    assert [path.name for path in (tmp_path / "result").iterdir()] == ["BLESSED" if blessed else "NOT_BLESSED"]


def _models(tmp_path, *numbers: int):
    return [_artifact(standard_artifacts.Model, tmp_path / f"model{number}", number) for number in numbers]


def _resolve(candidate, models, blessings):
    inputs = {"candidate": candidate, "model": models, "blessing": blessings}
    return [model.id for model in LatestReleasedStrategy().resolve_artifacts(None, inputs)["model"]]


def test_the_baseline_is_the_latest_release_but_never_the_candidate(tmp_path):
    models = _models(tmp_path, 1, 2, 3)
    releases = [_blessing(tmp_path / f"b{m}", True, 10 + m, model=m, released=1) for m in (1, 2, 3)]
    assert _resolve([models[2]], models, releases) == [2]
    assert _resolve([models[0]], models, releases) == [3]


def test_a_model_that_one_gate_blessed_is_no_baseline(tmp_path):
    models = _models(tmp_path, 1, 2)
    blessings = [_blessing(tmp_path / "one", True, 11, model=1), _blessing(tmp_path / "two", False, 12, 2, released=0)]
    assert _resolve([], models, blessings) == []


def test_the_first_run_has_no_baseline(tmp_path):
    assert _resolve(_models(tmp_path, 1), _models(tmp_path, 1), []) == []


def _push(tmp_path, blessed: bool, base: Path):
    model = _artifact(standard_artifacts.Model, tmp_path / "model")
    (tmp_path / "model" / "Format-Serving").mkdir(exist_ok=True)
    (tmp_path / "model" / "Format-Serving" / "model.tflite").write_bytes(b"bytes")
    pushed = _artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=str(base))
    destination = pusher_pb2.PushDestination(filesystem=filesystem)
    PusherExecutor().Do(
        {"model": [model], "model_blessing": [_blessing(tmp_path / "blessing", blessed)]},
        {"pushed_model": [pushed]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    return pushed


def test_a_push_leaves_one_whole_version_and_nothing_else(tmp_path):
    base = tmp_path / "base"
    pushed = _push(tmp_path, True, base)
    (version,) = base.iterdir()
    assert version.name == pushed.get_string_custom_property("pushed_version")
    assert str(version) == pushed.get_string_custom_property("pushed_destination")
    assert (version / "model.tflite").read_bytes() == b"bytes"


def test_versions_rise_even_if_the_clock_does_not(tmp_path):
    base = tmp_path / "base"
    (base / "99999999999").mkdir(parents=True)
    _push(tmp_path, True, base)
    _push(tmp_path, True, base)
    assert {path.name for path in base.iterdir()} == {"99999999999", "100000000000", "100000000001"}


def test_an_unblessed_model_is_not_pushed(tmp_path):
    base = tmp_path / "base"
    pushed = _push(tmp_path, False, base)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not base.exists() or not list(base.iterdir())


def test_a_push_of_nothing_fails_and_leaves_nothing_behind(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    pushed = _artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=str(base))
    with pytest.raises(Exception, match="holds no files"):
        PusherExecutor().Do(
            {
                "model": [_artifact(standard_artifacts.Model, tmp_path / "empty")],
                "model_blessing": [_blessing(tmp_path / "blessing", True)],
            },
            {"pushed_model": [pushed]},
            {"push_destination": proto_utils.proto_to_json(pusher_pb2.PushDestination(filesystem=filesystem))},
        )
    assert list(base.iterdir()) == []
