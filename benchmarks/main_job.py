"""Time of `trimline run` on the embedded digits: the first run, and a second one with nothing changed.

    python -m benchmarks.main_job

Prints seconds of both runs and the test accuracy of the shipped .tflite.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Runs twice into a fresh directory and prints the figures."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        first, second = _seconds(out), _seconds(out)
        summary = json.loads((out / "report" / "summary.json").read_text())
    cached = sum(component["cached"] for component in summary["components"])
    shipped = summary["shipped"]
    sys.stdout.write(f"first run   {first:6.1f} s\n")
    sys.stdout.write(f"second run  {second:6.1f} s, {cached} of {len(summary['components'])} components cached\n")
    sys.stdout.write(f"shipped     {shipped['name']}, {100 * shipped['accuracy']:.2f} % of the test split\n")


def _seconds(out: Path) -> float:
    started = time.perf_counter()
    command = [Path(sys.executable).with_name("trimline"), "run", "--output", out]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
