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
    assert [path.name for path in kept.iterdir() if not path.name.startswith(".")] == []
    killed.kill()
    killed.wait()
    assert set(tmp_path.iterdir()) == {left, kept}
    own_folder.remove_abandoned(PREFIX)
    assert list(tmp_path.iterdir()) == [kept]
    living.communicate()
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_made_here_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"{PREFIX}photos").mkdir()
    (tmp_path / f"{PREFIX}photos" / "1.jpg").touch()
    (tmp_path / f"{PREFIX}file").touch()
    own_folder.remove_abandoned(PREFIX)
    assert len(list(tmp_path.rglob("*"))) == 3


def test_what_is_elsewhere_stays_where_a_link_leads_there(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process, folder = _owner(tmp_path)
    process.kill()
    process.wait()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    own_folder.remove_abandoned(PREFIX)
    assert (tmp_path / "elsewhere").exists()
