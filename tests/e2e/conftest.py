"""Runs that several files of tests look at."""

import pytest

from tests.e2e.commands import QUICK, read_summary, trimline


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Runs the embedded default twice and keeps what both runs left."""
    out = tmp_path_factory.mktemp("digits") / "out"
    first = trimline("run", "--output", out, *QUICK)
    assert first.returncode == 0, first.stdout + first.stderr
    summary = read_summary(out)
    pushed = sorted(path.name for path in (out / "pushed" / "tflite").iterdir())
    second = trimline("run", "--output", out, *QUICK, "--json")
    assert second.returncode == 0, second.stdout + second.stderr
    (out.parent / "second.json").write_text(second.stdout)
    return out, first, summary, pushed
