"""The command line's answers to mistakes, from the real command."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "ladder",
        "compress",
        "predict",
        "serve",
        "status",
        "push",
        "rollback",
        "verify",
        "init",
        "report",
        "compare",
    ],
)
def test_every_command_explains_itself(command):
    result = _trimline(command, "--help")
    assert result.returncode == 0
    assert "Usage: trimline " + command in result.stdout


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


def test_a_bad_setting_starts_nothing(tmp_path):
    assert "trainer.epochs" in _refused("run", "--output", tmp_path / "out", "--set", "trainer.epochs=0")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "--output" in _refused("run", "--output", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_predict_before_any_run(tmp_path):
    assert str(tmp_path) in _refused("predict", "photo.jpg", "--output", tmp_path)


@pytest.mark.parametrize(
    "command",
    [("status", "-o"), ("push", "--to", "there", "-o"), ("rollback", "-o"), ("verify",), ("report",), ("tensorboard",)],
)
def test_commands_on_a_finished_run_before_any_run(tmp_path, command):
    assert "trimline run" in _refused(*command, tmp_path)


def test_serve_before_any_run(tmp_path):
    assert str(tmp_path) in _refused("serve", tmp_path)


def test_init_never_overwrites(tmp_path):
    file = tmp_path / "settings.yaml"
    assert _trimline("init", file).returncode == 0
    before = file.read_text()
    assert "exists already" in _refused("init", file)
    assert file.read_text() == before
