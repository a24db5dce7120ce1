"""The commands of README and docs/, given to the real command line where that takes seconds.

What trains for minutes (run, ladder, compress) is run by the other tests of this package and of tests/components, with
smaller settings; tests/unit/test_docs.py makes sure that each shown command can be given as it stands.
"""

import shutil

import pytest

from tests.documents import shown_commands
from tests.e2e.conftest import trimline

pytestmark = pytest.mark.e2e

QUICK = {"predict", "status", "verify", "push", "rollback", "init", "doctor"}
COMMANDS = sorted({tuple(words[1:]) for _, words in shown_commands() if words[0] == "trimline" and words[1] in QUICK})


@pytest.fixture(scope="module")
def at_home(digits):
    """The folder in which the documents' own names, out/ and photo.jpg, mean something."""
    out = digits[0]
    for name in ("photo.jpg", "new-photo.jpg"):
        shutil.copy(sorted((out / "digits" / "7").iterdir())[0], out.parent / name)
    return out.parent


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_shown_command_does_what_it_says(at_home, words):
    if "--url" in words:
        pytest.skip("asks a server: tests/serving/test_serving_commands.py")
    words = tuple(str(at_home / word) if word.startswith(("/srv/", "gs://")) else word for word in words)
    result = trimline(*words, cwd=at_home)
    if words[0] == "rollback":
        # There has been one release only.
        assert (result.returncode, "no earlier release" in result.stderr) == (2, True), result.stdout + result.stderr
        return
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout or words[0] == "init"
