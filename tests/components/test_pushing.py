"""trimline push and rollback over a real metadata store, with versions that the real Pusher made."""

import dataclasses
import errno
import io
import os
import signal
import time
from pathlib import Path

import pytest
import tensorflow as tf
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from rich.console import Console
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.atomic_pusher import destination
from components.atomic_pusher.executor import Executor as PusherExecutor
from pipeline.config import PipelineSettings, PushSettings
from pipeline.destinations import below, live_pushes, push_directories
from pipeline.launch import Interrupted
from pipeline.ledger import Ledger
from pipeline.local_runner import forget_lost_pushes
from pipeline.local_runner import run as run_locally
from pipeline.pushing import push, rollback
from pipeline.status import push_table, pushes
from pipeline.verification import verify
from pipeline.workspace import Workspace
from tests.commands import trimline_without_tensorflow
from trainer_module.errors import UserError

pytestmark = pytest.mark.component

FILES = {"saved_model": "saved_model.pb", "tflite": "model.json"}


class Run:
    """An output directory in which releases were made."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.workspace.prepare()
        self.workspace.write_settings(PipelineSettings())
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(self.workspace.metadata_file)
        config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self._store = MetadataStore(config)

    @property
    def directories(self) -> dict[str, str]:
        return push_directories(self.workspace.read_settings(), self.workspace)

    def release(self, content: str, *, blessed: bool = True) -> None:
        """Records two models and their blessing, and pushes them if they are blessed."""
        models = {name: self._model(name, content) for name in FILES}
        blessing = mlmd.Artifact(type_id=self._artifact_type("ModelBlessing"), uri="unused")
        blessing.custom_properties["released"].int_value = int(blessed)
        blessing.custom_properties["current_model_id"].int_value = models["saved_model"].id
        blessing.custom_properties["tflite_model_id"].int_value = models["tflite"].id
        self._store.put_artifacts([blessing])
        for name, model in models.items():
            if blessed:
                self._push(name, model)

    def _model(self, name: str, content: str) -> mlmd.Artifact:
        directory = self.workspace.pipeline_root / content / name
        (directory / "Format-Serving").mkdir(parents=True)
        (directory / "Format-Serving" / FILES[name]).write_text(content)
        model = mlmd.Artifact(type_id=self._artifact_type("Model"), uri=str(directory))
        (model.id,) = self._store.put_artifacts([model])
        return model

    def _push(self, name: str, model: mlmd.Artifact) -> None:
        artifact = standard_artifacts.Model()
        artifact.uri = model.uri
        pushed = standard_artifacts.PushedModel()
        pushed.uri = f"{model.uri}-archive"
        filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=self.directories[name])
        to = proto_utils.proto_to_json(pusher_pb2.PushDestination(filesystem=filesystem))
        PusherExecutor().Do({"model": [artifact]}, {"pushed_model": [pushed]}, {"push_destination": to})
        recorded = mlmd.Artifact(type_id=self._artifact_type("PushedModel"), uri=pushed.uri)
        for key, value in pushed.mlmd_artifact.custom_properties.items():
            recorded.custom_properties[key].CopyFrom(value)
        kind = self._store.put_execution_type(mlmd.ExecutionType(name="Pusher"))
        events = [(model, _event(mlmd.Event.INPUT, "model")), (recorded, _event(mlmd.Event.OUTPUT, "pushed_model"))]
        self._store.put_execution(mlmd.Execution(type_id=kind), events, [])

    def _artifact_type(self, name: str) -> int:
        return self._store.put_artifact_type(mlmd.ArtifactType(name=name))

    def live(self, directories: dict[str, str] | None = None) -> dict[str, str]:
        """Reads what a server would load."""
        contents = {}
        for name, directory in (directories or self.directories).items():
            version = destination.versions(directory)[-1]
            with tf.io.gfile.GFile(f"{directory}/{version}/{FILES[name]}") as stream:
                contents[name] = stream.read()
        return contents


def _event(kind, key):
    event = mlmd.Event(type=kind)
    event.path.steps.add().key = key
    return event


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "out")
    for content in ("first", "second", "third"):
        made.release(content)
    return made


def _both(content):
    return dict.fromkeys(FILES, content)


def test_a_rollback_makes_the_release_before_live_under_a_new_version(run):
    before = {name: destination.versions(directory) for name, directory in run.directories.items()}
    rollback(run.workspace, run.directories)
    assert run.live() == _both("second")
    for name, directory in run.directories.items():
        assert destination.versions(directory)[:-1] == before[name]


def test_status_push_and_rollback_need_no_tensorflow(run, tmp_path):
    """It takes seconds to load, and nobody who goes back to a release that worked has seconds to spare."""
    there = str(tmp_path / "there")
    for words in (["status"], ["push", "--to", there], ["rollback"]):
        done = trimline_without_tensorflow(*words, "--output", run.workspace.root)
        assert done.returncode == 0, done.stderr
    assert run.live() == _both("second")
    assert run.live(below(there)) == _both("third")
    refused = trimline_without_tensorflow("push", "--to", "/dev/null/x", "--output", run.workspace.root)
    assert refused.returncode == 2
    assert "/dev/null/x/tflite: cannot be written, nothing was pushed: Not a directory" in refused.stderr


def test_rollbacks_go_back_step_by_step_to_the_first_release_and_no_further(run):
    for content in ("second", "first"):
        rollback(run.workspace, run.directories)
        assert run.live() == _both(content)
    with pytest.raises(UserError, match="no earlier release"):
        rollback(run.workspace, run.directories)
    assert run.live() == _both("first")


def test_a_rollback_goes_to_the_version_that_is_named(run):
    first = destination.versions(run.directories["saved_model"])[0]
    rollback(run.workspace, run.directories, first)
    assert run.live() == _both("first")
    with pytest.raises(UserError, match="version 12 is no earlier release"):
        rollback(run.workspace, run.directories, 12)


def test_a_refused_release_is_never_gone_back_to(tmp_path):
    run = Run(tmp_path / "out")
    run.release("refused", blessed=False)
    run.release("good")
    with pytest.raises(UserError, match="no earlier release"):
        rollback(run.workspace, run.directories)


def test_a_push_copies_what_is_live_and_records_who_did_it(run, tmp_path):
    rollback(run.workspace, run.directories)
    there = below(str(tmp_path / "there"))
    push(run.workspace, there)
    assert run.live(there) == _both("second")
    assert [path.name for path in (tmp_path / "there" / "tflite").iterdir() if not path.name.isdigit()] == []
    recorded = Ledger(run.workspace.metadata_file).pushes()
    assert [entry.kind for entry in recorded] == ["run"] * 6 + ["rollback"] * 2 + ["push"] * 2
    assert {entry.by for entry in recorded} == {destination.who()}
    assert {entry.sha256 for entry in recorded if entry.path.startswith(str(tmp_path / "there"))} == {
        destination.tree_digest(f"{directory}/{destination.versions(directory)[-1]}") for directory in there.values()
    }


def test_a_push_of_a_named_version_that_keeps_two(run, tmp_path):
    there = below(str(tmp_path / "there"))
    for version in destination.versions(run.directories["saved_model"]):
        push(run.workspace, there, version, keep=2)
    assert run.live(there) == _both("third")
    assert [len(destination.versions(directory)) for directory in there.values()] == [2, 2]
    rollback(run.workspace, there)
    assert run.live(there) == _both("second")
    assert run.live() == _both("third")


def test_a_version_is_the_runs_own_even_if_another_place_has_one_of_that_number(run, tmp_path):
    first = destination.versions(run.directories["saved_model"])[0]
    number = int(time.time()) + 1000
    elsewhere, there = (below(str(tmp_path / name)) for name in ("elsewhere", "there"))
    # The next version of both is `number`.
    for directory in [*run.directories.values(), *elsewhere.values()]:
        Path(directory, str(number - 1)).mkdir(parents=True)
    run.release("fourth")
    push(run.workspace, elsewhere, first)
    assert {destination.versions(directory)[-1] for directory in elsewhere.values()} == {number}
    push(run.workspace, there, number)
    assert run.live(there) == _both("fourth")


def test_a_push_to_another_file_system(run, tmp_path):
    there = below(f"ram://{tmp_path.name}")
    push(run.workspace, there)
    assert run.live(there) == _both("third")


def test_a_destination_is_recorded_as_an_absolute_path(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pushed = push(run.workspace, below("there"))
    monkeypatch.chdir("/")
    assert pushed.paths["tflite"].startswith(f"{tmp_path}/there/tflite/")
    assert run.live(below(f"{tmp_path}/there/")) == _both("third")


def test_both_or_neither(run, tmp_path):
    there = below(str(tmp_path / "there"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "tflite").write_text("a file is in the way")
    with pytest.raises(UserError, match="nothing was pushed"):
        push(run.workspace, there)
    assert list((tmp_path / "there" / "saved_model").iterdir()) == []
    assert len(Ledger(run.workspace.metadata_file).pushes()) == 6


def test_files_that_changed_since_they_were_blessed_are_not_pushed(run, tmp_path):
    (run.workspace.pipeline_root / "third" / "tflite" / "Format-Serving" / "model.json").write_text("forged")
    with pytest.raises(UserError, match="not those that were blessed"):
        push(run.workspace, below(str(tmp_path / "there")))
    assert not (tmp_path / "there").exists()


def test_nothing_can_be_pushed_before_anything_was_blessed(tmp_path):
    run = Run(tmp_path / "out")
    run.release("refused", blessed=False)
    with pytest.raises(UserError, match="no blessed model is live"):
        push(run.workspace, below(str(tmp_path / "there")))


def test_the_table_says_what_is_live_and_what_is_gone(run, tmp_path):
    rollback(run.workspace, run.directories, keep=2)
    table = push_table(pushes(run.workspace.metadata_file))
    states = list(next(column for column in table.columns if column.header == "State").cells)
    assert states == ["removed"] * 4 + ["there"] * 2 + ["live"] * 2


def test_the_table_keeps_what_it_is_for_in_80_columns(run):
    rows = [row | {"by": f"somebody@{'h' * 30}"} for row in pushes(run.workspace.metadata_file)]
    console = Console(file=io.StringIO(), width=80)
    console.print(push_table(rows, run.workspace.root))
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    for row in rows:
        (line,) = (line for line in lines if f"{row['version']} " in line and f"pushed/{row['artifact']}" in line)
        assert f" {row['state']} " in line
    assert sum(" live " in line for line in lines) == 2


LIVE_ARCHIVES = {"third/saved_model-archive", "third/tflite-archive"}


def _archives(run):
    root = run.workspace.pipeline_root
    return {path.relative_to(root).as_posix() for path in root.glob("*/*-archive")}


def test_a_run_looks_after_its_own_pushes_only(run, tmp_path):
    there = tmp_path / "there"
    push(run.workspace, below(str(there)))
    forget_lost_pushes(run.workspace)
    assert _archives(run) == LIVE_ARCHIVES
    live = live_pushes(Ledger(run.workspace.metadata_file).pushes(), run.directories)["tflite"]
    destination.remove(live.path)
    destination.remove(f"{there}/tflite/{destination.versions(str(there / 'tflite'))[-1]}")
    forget_lost_pushes(run.workspace)
    assert _archives(run) == {"third/saved_model-archive"}


def test_what_is_live_and_was_changed_is_pushed_again(run):
    versions = destination.versions(run.directories["tflite"])
    older, live = (Path(run.directories["tflite"], str(version)) for version in versions[-2:])
    (older / FILES["tflite"]).write_text("forged, but live no more")
    forget_lost_pushes(run.workspace)
    assert _archives(run) == LIVE_ARCHIVES
    (live / FILES["tflite"]).write_text("forged")
    forget_lost_pushes(run.workspace)
    assert _archives(run) == {"third/saved_model-archive"}


def test_what_is_no_longer_live_is_not_taken_from_the_cache(run):
    forget_lost_pushes(run.workspace)
    assert _archives(run) == LIVE_ARCHIVES


def test_a_run_asks_no_destination_of_trimline_push(run):
    ledger = Ledger(run.workspace.metadata_file, writable=True)
    pushed = ledger.pushes()[-1]
    there = dataclasses.replace(pushed, path="nowhere://bucket/tflite/5", version=5, kind="push")
    ledger.record(pushed.release, {"tflite": there})
    forget_lost_pushes(run.workspace)
    assert _archives(run) == LIVE_ARCHIVES


def test_a_run_does_not_undo_a_rollback(run):
    rollback(run.workspace, run.directories, keep=1)
    forget_lost_pushes(run.workspace)
    assert len(_archives(run)) == 6
    for name, directory in run.directories.items():
        (Path(directory, str(destination.versions(directory)[-1])) / FILES[name]).write_text("forged")
    forget_lost_pushes(run.workspace)
    assert len(_archives(run)) == 6


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no room")], ids=["Ctrl-C", "full disk"])
def test_a_rollback_that_is_stopped_between_its_artifacts_has_not_happened(run, monkeypatch, stop):
    publish = destination.publish

    def stopped(source, base, version):
        if base == run.directories["tflite"]:
            raise stop
        return publish(source, base, version)

    monkeypatch.setattr(destination, "publish", stopped)
    with pytest.raises((KeyboardInterrupt, UserError)):
        rollback(run.workspace, run.directories)
    assert run.live() == _both("third")
    monkeypatch.undo()
    rollback(run.workspace, run.directories)
    assert run.live() == _both("second")


def test_a_rollback_that_was_killed_between_its_artifacts_can_be_repeated(run):
    release = run.workspace.pipeline_root / "second" / "saved_model" / "Format-Serving"
    base = run.directories["saved_model"]
    destination.publish(str(release), base, destination.next_version(base))
    rollback(run.workspace, run.directories)
    assert run.live() == _both("second")


def test_a_push_that_cannot_be_recorded_has_not_happened(run, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("the metadata store is gone")

    monkeypatch.setattr(Ledger, "record", fail)
    with pytest.raises(RuntimeError, match="is gone"):
        push(run.workspace, below(str(tmp_path / "there")))
    assert not any(destination.versions(directory) for directory in below(str(tmp_path / "there")).values())


def test_what_is_stopped_by_a_signal_undoes_what_it_began(run, monkeypatch):
    publish = destination.publish

    def killed(source, base, version):
        if base == run.directories["tflite"]:
            os.kill(os.getpid(), signal.SIGTERM)
        return publish(source, base, version)

    monkeypatch.setattr(destination, "publish", killed)
    with pytest.raises(Interrupted, match="nothing was pushed"):
        rollback(run.workspace, run.directories)
    assert run.live() == _both("third")


def test_an_empty_live_version_is_a_fault_of_every_check(run):
    live = Path(run.directories["tflite"], str(destination.versions(run.directories["tflite"])[-1]))
    (live / FILES["tflite"]).unlink()
    findings = {finding.what: finding.fault for finding in verify(run.workspace)}
    assert all(fault for what, fault in findings.items() if what.startswith("tflite: "))


def test_half_a_version_is_not_live_but_one_that_was_recorded_and_changed_is_at_fault(run):
    number = int(time.time()) + 1000
    for directory in run.directories.values():
        Path(directory, str(number), "variables").mkdir(parents=True)
    live = live_pushes(Ledger(run.workspace.metadata_file).pushes(), run.directories)
    assert all(push is not None for push in live.values())
    assert {finding.fault for finding in verify(run.workspace) if "files as pushed" in finding.what} == {""}
    (Path(live["tflite"].path) / FILES["tflite"]).unlink()
    faults = {finding.what: finding.fault for finding in verify(run.workspace)}
    assert live["tflite"].path in faults["tflite: files as pushed"]


def test_a_file_system_that_tensorflow_does_not_know_is_refused_before_a_run(tmp_path):
    workspace = Workspace(tmp_path / "out")
    workspace.prepare()
    workspace.write_settings(PipelineSettings(push=PushSettings(tflite_dir="nowhere://bucket/models")))
    with pytest.raises(UserError, match=r"nowhere://bucket/models: nothing can be pushed there: .*nowhere"):
        run_locally(workspace)
    assert not workspace.metadata_file.exists()
