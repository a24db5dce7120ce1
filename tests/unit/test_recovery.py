"""What a killed run left behind, and metadata stores that cannot be used as they are."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ml_metadata import MetadataStore, metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.config import PipelineSettings, PushSettings
from pipeline.disk import full_disk
from pipeline.metadata import Metadata
from pipeline.recovery import settle
from pipeline.workspace import Workspace
from trainer_module.errors import UserError

RUNNING, COMPLETE, FAILED = mlmd.Execution.RUNNING, mlmd.Execution.COMPLETE, mlmd.Execution.FAILED


def connection(workspace: Workspace) -> mlmd.ConnectionConfig:
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(workspace.metadata_file)
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An output directory in which a run finished one component and was killed in the next."""
    made = Workspace(tmp_path / "out")
    made.prepare()
    record(made, "first run", {"Trainer": COMPLETE, "Compression": RUNNING})
    return made


def record(workspace: Workspace, run: str, components: dict[str, int]) -> None:
    store = MetadataStore(connection(workspace))
    contexts = [
        mlmd.Context(type_id=store.put_context_type(mlmd.ContextType(name=kind)), name=name)
        for kind, name in (("pipeline_run", run), *(("node", f"trimline.{name}") for name in components))
    ]
    type_id = store.put_execution_type(mlmd.ExecutionType(name="component"))
    for node, (name, state) in zip(contexts[1:], components.items(), strict=True):
        execution = mlmd.Execution(type_id=type_id, last_known_state=state)
        number, _, _ = store.put_execution(execution, [], [contexts[0], node], reuse_context_if_already_exist=True)
        for key in ("model", ".system/executor_execution"):
            directory = workspace.pipeline_root / name / key / str(number)
            directory.mkdir(parents=True)
            (directory / "file").touch()


def states(workspace: Workspace) -> list[int]:
    return [execution.last_known_state for execution in MetadataStore(connection(workspace)).get_executions()]


def files(workspace: Workspace) -> set[str]:
    return {str(path.relative_to(workspace.pipeline_root)) for path in workspace.pipeline_root.rglob("file")}


def test_what_was_killed_has_failed_and_leaves_no_files(workspace: Workspace) -> None:
    settle(workspace)
    assert states(workspace) == [COMPLETE, FAILED]
    assert files(workspace) == {"Trainer/model/1/file", "Trainer/.system/executor_execution/1/file"}
    settle(workspace)
    assert states(workspace) == [COMPLETE, FAILED]


def test_an_output_directory_without_runs(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    settle(workspace)
    # Killed while the store was created.
    workspace.metadata_file.touch()
    settle(workspace)
    assert not workspace.metadata_file.exists()


def test_a_transaction_that_was_cut_off_is_rolled_back(workspace: Workspace) -> None:
    honest = workspace.metadata_file.read_bytes()
    with closing(sqlite3.connect(workspace.metadata_file, isolation_level=None)) as database:
        database.execute("PRAGMA cache_size = 1")
        database.execute("BEGIN")
        database.execute("UPDATE Execution SET last_known_state = 0")
        # So much that SQLite has to write pages of an unfinished transaction.
        database.execute("CREATE TABLE filling (content BLOB)")
        database.executemany("INSERT INTO filling VALUES (?)", ((os.urandom(4000),) for _ in range(200)))
        torn = {path: path.read_bytes() for path in workspace.root.glob("metadata.db*")}
    assert workspace.metadata_file.read_bytes() == honest
    for path, content in torn.items():
        path.write_bytes(content)
    assert workspace.metadata_file.read_bytes() != honest
    settle(workspace)
    assert states(workspace) == [COMPLETE, FAILED]


def test_a_store_of_an_older_version_is_brought_up_to_date_and_kept(workspace: Workspace) -> None:
    metadata_store.downgrade_schema(connection(workspace), 7)
    before = workspace.metadata_file.read_bytes()
    with pytest.raises(UserError, match="was written by an older version of ML Metadata"):
        Metadata(workspace.metadata_file)
    settle(workspace)
    assert Metadata(workspace.metadata_file).runs() == ["first run"]
    assert states(workspace) == [COMPLETE, FAILED]
    assert (workspace.root / "metadata.older.db").read_bytes() == before


def test_a_store_of_a_newer_version_is_left_alone(workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.metadata_file)) as database, database:
        database.execute("UPDATE MLMDEnv SET schema_version = 99")
    before = workspace.metadata_file.read_bytes()
    with pytest.raises(UserError, match="was written by a newer version of ML Metadata; use a newer Trimline"):
        settle(workspace)
    assert workspace.metadata_file.read_bytes() == before


def test_a_file_that_is_no_store_is_left_alone(workspace: Workspace) -> None:
    workspace.metadata_file.write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="cannot be read as the metadata store"):
        settle(workspace)
    assert workspace.metadata_file.read_bytes() == b"no database" * 1000


def test_the_latest_run_is_the_last_one_wherever_the_clock_went(workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.metadata_file)) as database, database:
        database.execute("UPDATE Context SET create_time_since_epoch = create_time_since_epoch + 864000000")
        database.execute("UPDATE Execution SET create_time_since_epoch = create_time_since_epoch + 864000000")
    record(workspace, "second run", {"Trainer": COMPLETE})
    assert Metadata(workspace.metadata_file).runs() == ["first run", "second run"]


@contextmanager
def unwritable_folder() -> Iterator[Path]:
    """Yields a folder in which this process may not write; root steps down for that."""
    user = os.geteuid()
    # The folders that pytest hands out cannot be entered by another user.
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "out").mkdir(mode=0o555)
        Workspace(Path(name) / "finished").prepare()
        os.seteuid(65_534 if user == 0 else user)
        if user != 0:
            (Path(name) / "finished").chmod(0o555)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)


def test_an_output_directory_that_is_read_only() -> None:
    with unwritable_folder() as folder:
        with pytest.raises(UserError, match=r"out: cannot write the output there: Permission denied; choose another"):
            Workspace(folder / "out").prepare()
        # Made by an earlier run, so that there is nothing to make.
        finished = Workspace(folder / "finished")
        finished.prepare()
        with pytest.raises(UserError, match="finished: cannot write the output there"), finished.locked():
            pass


@pytest.mark.parametrize("character", list("[]*?\\"))
def test_an_output_directory_in_which_files_would_not_be_found(tmp_path: Path, character: str) -> None:
    folder = tmp_path / f"out{character}" / "deeper"
    with pytest.raises(UserError, match="choose another --output") as caught:
        Workspace(folder).prepare()
    assert str(caught.value).startswith(f"{folder}: the path of the output directory must not have '{character}' in it")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "OSError: [Errno 28] No space left on device: 'x'",
        "ResourceExhaustedError: /x; No space left on device",
        "InternalError: Cannot execute query: database or disk is full",
        "OSError: [Errno 30] Read-only file system: 'x'",
        "OSError: [Errno 122] Disk quota exceeded",
    ],
)
def test_a_full_disk_is_no_bug(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = full_disk(f"Traceback\n{text}", Workspace(tmp_path))
    assert line.startswith(f"{tmp_path} or {Path(os.environ.get('TMPDIR', '/tmp'))}: ")  # noqa: S108
    assert "run the same command again" in line
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=0) if place == str(tmp_path) else usage)
    assert full_disk(text, Workspace(tmp_path))[0].startswith(f"{tmp_path}: ")
    assert full_disk("ValueError: something else", Workspace(tmp_path)) == []


def test_a_full_destination_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there"
    there.mkdir()
    Workspace(tmp_path).write_settings(PipelineSettings(push=PushSettings(tflite_dir=str(there))))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=0) if place == str(there) else usage)
    (line,) = full_disk("OSError: [Errno 28] No space left on device: 'x'", Workspace(tmp_path))
    assert line.startswith(f"{there}: ")
