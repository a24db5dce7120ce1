import subprocess
import sys
import tempfile
from pathlib import Path

from trainer_module import own_folder

PREFIX = "trimline-test-"

# Ends with its input.
OWNER = f"""
import sys
from trainer_module import own_folder
print(own_folder.make("{PREFIX}"), flush=True)
sys.stdin.read()
"""


def _owner(directory):
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={"TMPDIR": str(directory)},
    )
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (killed, left), (living, kept) = _owner(tmp_path), _owner(tmp_path)
    (left / "file").touch()
    killed.kill()
    killed.wait()
    assert set(tmp_path.iterdir()) == {left, kept}
    own_folder.remove_abandoned(PREFIX)
    assert list(tmp_path.iterdir()) == [kept]
    living.communicate()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_folder_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}file").touch()
    own_folder.remove_abandoned(PREFIX)
    assert len(list(tmp_path.iterdir())) == 3
