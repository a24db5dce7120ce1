"""The command line as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TRIMLINE = Path(sys.executable).with_name("trimline")
QUICK = ("--set", "trainer.epochs=8", "--set", "model.width=0.5")


def trimline(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run([TRIMLINE, *map(str, arguments)], capture_output=True, text=True, timeout=900, cwd=cwd)


def read_summary(out: Path) -> dict[str, Any]:
    """Reads the summary of the latest finished run."""
    return json.loads((out / "report" / "summary.json").read_text())
