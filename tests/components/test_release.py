"""What becomes of a release: the baseline of the next one, and the push."""

import os
import time
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.components.evaluator import constants
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import json_utils, proto_utils

from components.atomic_pusher import destination
from components.atomic_pusher.executor import Executor as PusherExecutor
from components.baseline_resolver.strategy import LatestReleasedStrategy
from components.file_systems import file_system

pytestmark = pytest.mark.component


def _artifact(kind, path: Path, number: int = 1):
    artifact = kind()
    artifact.uri = str(path)
    artifact.id = number
    path.mkdir(parents=True, exist_ok=True)
    return artifact


def _blessing(path: Path, blessed: bool, number: int = 1, model: int = 0, released: int | None = None):
    """Makes a blessing of a SavedModel and of the .tflite whose id is higher by 100."""
    artifact = _artifact(standard_artifacts.ModelBlessing, path, number)
    artifact.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    artifact.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model)
    if released is not None:
        artifact.set_int_custom_property("released", released)
        artifact.set_int_custom_property("tflite_model_id", model + 100)
    return artifact


def _models(tmp_path, *numbers: int):
    return [_artifact(standard_artifacts.Model, tmp_path / f"model{number}", number) for number in numbers]


def _resolve(candidate, models, blessings):
    tflite = [_artifact(standard_artifacts.Model, Path(m.uri).with_name(f"tflite{m.id}"), m.id + 100) for m in models]
    inputs = {"candidate": candidate, "model": models, "tflite_model": tflite, "blessing": blessings}
    resolved = LatestReleasedStrategy().resolve_artifacts(None, inputs)
    assert [model.id for model in resolved["tflite_model"]] == [model.id + 100 for model in resolved["model"]]
    return [model.id for model in resolved["model"]]


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


def _push(tmp_path, blessed: bool, base: Path | str, keep: int | None = None, content: bytes = b"bytes"):
    model = _artifact(standard_artifacts.Model, tmp_path / "model")
    (tmp_path / "model" / "Format-Serving").mkdir(exist_ok=True)
    for name in ("model.tflite", "model.json"):
        (tmp_path / "model" / "Format-Serving" / name).write_bytes(content)
    pushed = _artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=str(base))
    push_destination = pusher_pb2.PushDestination(filesystem=filesystem)
    PusherExecutor().Do(
        {"model": [model], "model_blessing": [_blessing(tmp_path / "blessing", blessed)]},
        {"pushed_model": [pushed]},
        {
            "push_destination": proto_utils.proto_to_json(push_destination),
            "custom_config": json_utils.dumps({"keep_versions": keep}),
        },
    )
    return pushed


def test_a_push_leaves_one_whole_version_and_nothing_else(tmp_path):
    base = tmp_path / "base"
    pushed = _push(tmp_path, True, base)
    (version,) = base.iterdir()
    assert version.name == pushed.get_string_custom_property("pushed_version")
    assert str(version) == pushed.get_string_custom_property("pushed_destination")
    assert (version / "model.tflite").read_bytes() == b"bytes"
    assert pushed.get_string_custom_property("pushed_by") == destination.who()
    assert pushed.get_string_custom_property("pushed_sha256") == destination.tree_digest(str(version))


def test_what_is_live_already_is_not_published_again(tmp_path):
    """As after a kill between the publication and its record."""
    base = tmp_path / "base"
    first, second = (_push(tmp_path, True, base) for _ in range(2))
    (version,) = base.iterdir()
    for pushed in (first, second):
        assert pushed.get_string_custom_property("pushed_destination") == str(version)
        assert pushed.get_string_custom_property("pushed_version") == version.name


def test_versions_rise_even_if_the_clock_does_not(tmp_path):
    base = tmp_path / "base"
    (base / "99999999999").mkdir(parents=True)
    _push(tmp_path, True, base)
    _push(tmp_path, True, base, content=b"others")
    assert {path.name for path in base.iterdir()} == {"99999999999", "100000000000", "100000000001"}


def test_only_the_newest_versions_stay(tmp_path):
    base = tmp_path / "base"
    _write(str(base / "5" / "model.json"), "whole")
    (base / "not-a-version").mkdir()
    pushed = [_push(tmp_path, True, base, keep=2, content=content) for content in (b"1", b"2", b"3")]
    versions = [artifact.get_string_custom_property("pushed_version") for artifact in pushed]
    assert {path.name for path in base.iterdir()} == {*versions[1:], "not-a-version"}


def test_a_push_goes_to_any_file_system_that_tensorflow_knows(tmp_path):
    """TensorFlow's file system in memory has no directories and no parents, like an object store."""
    base = f"ram://{tmp_path.name}/models"
    for content in (b"others", b"bytes"):
        pushed = _push(tmp_path, True, base, keep=1, content=content)
    version = pushed.get_string_custom_property("pushed_version")
    assert destination.versions(base) == [int(version)]
    with tf.io.gfile.GFile(f"{base}/{version}/model.tflite", "rb") as stream:
        assert stream.read() == b"bytes"


@pytest.mark.parametrize("remote", [False, True])
def test_a_version_appears_whole_or_with_its_last_file_last(tmp_path, monkeypatch, remote):
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "a.txt"):
        (source / name).write_bytes(b"x")
    base = f"ram://{tmp_path.name}/watched" if remote else str(tmp_path / "watched")
    seen = []
    files = file_system(base)
    copy = files.copy

    def copy_and_look(*arguments, **options):
        copy(*arguments, **options)
        seen.append([tf.io.gfile.exists(f"{base}/7/{name}") for name in ("a.txt", "saved_model.pb")])

    monkeypatch.setattr(files, "copy", copy_and_look)
    destination.publish(str(source), base, 7)
    assert tf.io.gfile.exists(f"{base}/7/saved_model.pb")
    # A server that watched the copying saw nothing, or no saved_model.pb before the last moment.
    assert seen == ([[True, False], [True, False], [True, True]] if remote else [[False, False]] * 3)


def _write(path, content):
    tf.io.gfile.makedirs(os.path.dirname(path))  # noqa: PTH120 (may be remote)
    with tf.io.gfile.GFile(path, "w") as stream:
        stream.write(content)


def test_a_version_without_its_last_file_counts_for_nothing_but_its_number(tmp_path):
    base = f"ram://{tmp_path.name}/partial"
    for version in (4, 5):
        _write(f"{base}/{version}/model.tflite", "bytes")
        _write(f"{base}/{version}/model.json", f"{version}")
    number = int(time.time()) + 1000
    _write(f"{base}/{number}/model.tflite", "bytes")
    assert destination.whole_versions(base) == [4, 5]
    assert destination.next_version(base) == number + 1
    assert destination.newest(base, destination.tree_digest(f"{base}/5")) == f"{base}/5"
    assert destination.prune(base, 1) == [4]
    assert destination.whole_versions(base) == [5]


def test_a_removal_that_is_killed_leaves_no_version(tmp_path, monkeypatch):
    base = f"ram://{tmp_path.name}/removed"
    for name in ("model.json", "model.tflite"):
        _write(f"{base}/5/{name}", "bytes")

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.io.gfile, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        destination.remove(f"{base}/5")
    assert destination.whole_versions(base) == []
    assert tf.io.gfile.exists(f"{base}/5/model.tflite")


def test_a_push_removes_what_kills_have_left_there_and_is_old(tmp_path):
    now = int(time.time())
    old, young = now - 25 * 60 * 60, now - 23 * 60 * 60
    base = tmp_path / "base"
    names = [".staging-{}", ".removed-{}", ".staging-{}-0123abcd", ".removed-{}-0123abcd"]
    for name in names:
        for at in (old, young):
            _write(str(base / name.format(at) / "model.tflite"), "half")
    kept = {".staging-mine", "2024", *(name.format(young) for name in names)}
    for name in (".staging-mine", "2024"):
        _write(str(base / name / "notes.txt"), "the user's")
    version = _push(tmp_path, True, base).get_string_custom_property("pushed_version")
    assert {path.name for path in base.iterdir()} == {*kept, version}


def test_a_push_to_an_object_store_removes_old_versions_that_are_not_whole(tmp_path):
    now = int(time.time())
    old, young = now - 25 * 60 * 60, now - 23 * 60 * 60
    base = f"ram://{tmp_path.name}/leftovers"
    for version in (old, young):
        _write(f"{base}/{version}/model.tflite", "half")
    _write(f"{base}/5/model.json", "whole, however old")
    for name in ("2024/model.tflite", f"{old - 1}/notes.txt"):
        _write(f"{base}/{name}", "another program's")
    version = _push(tmp_path, True, base).get_string_custom_property("pushed_version")
    assert destination.versions(base) == [5, 2024, old - 1, young, int(version)]


@pytest.mark.parametrize("altered", ["a.txt", "saved_model.pb"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_copy_that_is_not_what_was_blessed_is_no_version(tmp_path, monkeypatch, remote, altered):
    source = tmp_path / "source"
    for name in ("saved_model.pb", "a.txt"):
        _write(str(source / name), "bytes")
    base = f"ram://{tmp_path.name}/{altered}" if remote else str(tmp_path / "watched")
    files = file_system(base)
    copy = files.copy

    def copy_badly(original, target, **options):
        copy(original, target, **options)
        if target.endswith(altered):
            _write(target, "bytfs")

    monkeypatch.setattr(files, "copy", copy_badly)
    with pytest.raises(OSError, match="not what was to be copied"):
        destination.publish(str(source), base, 7)
    assert tf.io.gfile.listdir(base) == []


def test_what_no_server_would_load_is_not_pushed(tmp_path):
    _write(str(tmp_path / "source" / "model.tflite"), "bytes")
    with pytest.raises(RuntimeError, match=r"no files that a server loads \(saved_model\.pb or model\.json\)"):
        destination.publish(str(tmp_path / "source"), str(tmp_path / "base"), 7)
    assert not (tmp_path / "base").exists()


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
