"""The finished run that whole-pipeline tests look at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRIMLINE = Path(sys.executable).with_name("trimline")
QUICK = ("--set", "trainer.epochs=8", "--set", "model.width=0.5")


def trimline(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the real command."""
    return subprocess.run([TRIMLINE, *map(str, arguments)], capture_output=True, text=True, timeout=900, cwd=cwd)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Runs the embedded default twice and keeps what both runs left."""
    out = tmp_path_factory.mktemp("digits") / "out"
    first = trimline("run", "--output", out, *QUICK)
    assert first.returncode == 0, first.stdout + first.stderr
    summary = json.loads((out / "report" / "summary.json").read_text())
    pushed = sorted(path.name for path in (out / "pushed" / "tflite").iterdir())
    second = trimline("run", "--output", out, *QUICK, "--json")
    assert second.returncode == 0, second.stdout + second.stderr
    (out.parent / "second.json").write_text(second.stdout)
    return out, first, summary, pushed
