"""The command line's answers to mistakes, from the real command."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from pipeline import launch
from pipeline.cli import app
from pipeline.config import PipelineSettings, PushSettings
from pipeline.workspace import Workspace
from tests.commands import trimline_without_tensorflow
from trainer_module.errors import UserError

TRIMLINE = Path(sys.executable).with_name("trimline")


def _trimline(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TRIMLINE, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def _refused(*arguments: str | Path) -> str:
    """Runs a command that must fail by the user's mistake, and returns its one line."""
    result = _trimline(*arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("trimline: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def _commands(group, path=()):
    """Yields the words that call each command, those of groups within groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("words", _commands(typer.main.get_command(app)), ids=" ".join)
def test_every_command_explains_itself(words):
    result = _trimline(*words, "--help")
    assert result.returncode == 0
    assert "Usage: trimline " + " ".join(words) in result.stdout
    # It is written in Markdown, of which nothing may be left.
    assert [mark for mark in ("[bold]", "**", "`") if mark in result.stdout] == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["data", "check", "absent"], "absent: no such folder"),
        (["compress", "--model", "absent", "--data", "."], "absent: there is no such model"),
        (["compress", "--model", ".", "--labels", "absent"], "absent: cannot be read (No such file or directory)"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_what_is_not_there_is_said_before_tensorflow_is_loaded(words, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = trimline_without_tensorflow(*words)
    assert refused.returncode == 2
    assert reason in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_missing_data_folder(tmp_path):
    assert "absent" in _refused("run", "--data", tmp_path / "absent", "--output", tmp_path / "out")


def test_an_empty_data_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    assert str(tmp_path / "photos") in _refused("run", "--data", tmp_path / "photos", "--output", tmp_path / "out")


def test_a_single_class(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for index in range(9):
        Image.new("RGB", (20, 20), (index, 0, 0)).save(tmp_path / "photos" / "cat" / f"{index}.png")
    line = _refused("run", "--data", tmp_path / "photos", "--output", tmp_path / "out")
    assert "class" in line
    assert "cat" in line


def test_names_that_need_more_than_two_bytes(tmp_path):
    (tmp_path / "📷 photos").mkdir()
    assert "📷 photos" in _refused("run", "--data", tmp_path / "📷 photos", "--output", tmp_path / "out")


def test_a_name_that_no_file_can_have(tmp_path):
    assert "too long" in _refused("status", "--output", tmp_path / ("n" * 300))


@pytest.mark.parametrize(
    "command", [("status", "-o"), ("push", "--to", "there", "-o"), ("rollback", "-o"), ("verify",)], ids=" ".join
)
def test_commands_where_the_metadata_store_is_none(tmp_path, command):
    Workspace(tmp_path).write_settings(PipelineSettings())
    (tmp_path / "metadata.db").write_bytes(b"no database at all")
    assert str(tmp_path / "metadata.db") in _refused(*command, tmp_path)


def test_status_of_a_run_that_was_killed_at_its_very_start(tmp_path):
    (tmp_path / "metadata.db").write_bytes(b"")
    assert str(tmp_path / "metadata.db") in _refused("status", "--output", tmp_path)


def test_settings_of_another_version(tmp_path):
    (tmp_path / "metadata.db").write_bytes(b"")
    (tmp_path / "settings.json").write_text('{"renamed": 1}')
    assert str(tmp_path / "settings.json") in _refused("rollback", "--output", tmp_path)


@pytest.mark.parametrize("command", [("ladder",), ("compress", "--model", __file__)], ids=lambda words: words[0])
def test_what_does_not_push_leaves_the_destinations_of_the_runs(tmp_path, monkeypatch, command):
    def stop(*_, **__):
        raise UserError("far enough")

    monkeypatch.setattr(launch, "run_module", stop)
    push = PushSettings(tflite_dir="/srv/tflite", keep_versions=2)
    workspace = Workspace(tmp_path)
    workspace.write_settings(PipelineSettings(push=push))
    # As a version had it that is no more.
    older = json.loads(workspace.settings_file.read_text()) | {"renamed": 1}
    workspace.settings_file.write_text(json.dumps(older))
    elsewhere = f"push.tflite_dir={tmp_path}/settings.json/unusable"
    result = CliRunner().invoke(app, [*command, "--output", str(tmp_path), "--set", elsewhere])
    assert str(result.exception) == "far enough"
    assert workspace.read_settings().push == push


def test_a_destination_that_cannot_be_written_starts_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    line = _refused("run", "--output", tmp_path / "out", "--set", f"push.tflite_dir={tmp_path}/file/models")
    assert "push.tflite_dir" in line


def test_an_output_among_the_photos_starts_nothing(tmp_path):
    (tmp_path / "cat").mkdir()
    line = _refused("run", "--data", tmp_path, "--output", tmp_path / "out")
    assert f"{tmp_path}/out: the output lies in the data folder" in line
    assert not (tmp_path / "out").exists()


def test_a_bad_setting_starts_nothing(tmp_path):
    assert "trainer.epochs" in _refused("run", "--output", tmp_path / "out", "--set", "trainer.epochs=0")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "--output" in _refused("run", "--output", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_whose_files_would_not_be_found(tmp_path):
    line = _refused("run", "--output", tmp_path / "out [2]" / "deeper")
    assert f"{tmp_path}/out [2]/deeper: " in line
    assert "'['" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_an_output_on_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    result = CliRunner().invoke(app, ["run", "--output", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == (
        f"{tmp_path}: this file system has no locks ({os.strerror(number)}); choose another --output"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("status", "--output=~/out"),
        ("status", "-o~/out"),
        ("verify", "~/out"),
        ("predict", "~/out/photo.jpg", "--url=http://127.0.0.1:1"),
        ("run", "--output=~/out", "--config=~/out/settings.yaml"),
    ],
    ids=" ".join,
)
def test_a_home_directory_behind_an_equals_sign_too(tmp_path, monkeypatch, words):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert f"{tmp_path}/out" in _refused(*words)
    assert not (tmp_path / "~").exists()


def test_names_that_begin_like_a_home_directory_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "trimline: ~draft.jpg: " in _refused("predict", "~draft.jpg", "--url=http://127.0.0.1:1")


def test_predict_before_any_run(tmp_path):
    assert str(tmp_path) in _refused("predict", "photo.jpg", "--output", tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ("status", "-o"),
        ("push", "--to", "there", "-o"),
        ("rollback", "-o"),
        ("verify",),
        ("verify", "-o"),
        ("report",),
        ("report", "--output"),
        ("tensorboard",),
        ("tensorboard", "--output"),
    ],
)
def test_commands_on_a_finished_run_before_any_run(tmp_path, command):
    line = _refused(*command, tmp_path)
    assert "trimline run" in line
    assert str(tmp_path) in line


@pytest.mark.parametrize("command", [("serve",), ("serve", "--output")])
def test_serve_before_any_run(tmp_path, command):
    assert str(tmp_path) in _refused(*command, tmp_path)


@pytest.mark.parametrize("command", ["verify", "report", "tensorboard", "serve"])
def test_two_output_directories_are_one_too_many(tmp_path, command):
    line = _refused(command, tmp_path / "one", "--output", tmp_path / "other")
    assert str(tmp_path / "one") in line
    assert str(tmp_path / "other") in line


def test_init_never_overwrites(tmp_path):
    file = tmp_path / "settings.yaml"
    assert _trimline("init", file).returncode == 0
    before = file.read_text()
    assert "exists already" in _refused("init", file)
    assert file.read_text() == before


def test_what_init_prints_is_what_it_writes_and_a_run_takes_it(tmp_path):
    file = tmp_path / "settings.yaml"
    assert _trimline("init", file).returncode == 0
    assert _trimline("init").stdout == file.read_text()
    assert "absent" in _refused("run", "--config", file, "--data", tmp_path / "absent")


def test_less_and_more_at_once_starts_nothing(tmp_path):
    assert "--quiet and --verbose" in _refused("run", "--quiet", "--verbose", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
