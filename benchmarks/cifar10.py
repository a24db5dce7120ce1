"""CIFAR-10, trained and compressed: the record to beat, and what each variant is worth on the real test set.

    python -m benchmarks.cifar10 DATA --output OUT [--set KEY=VALUE ...]

DATA has train/ and test/ with a folder for each class. Runs `trimline run` with benchmarks/cifar10.yaml, which goes on
where it was if it was killed, and then runs every variant on all test photos. Nothing is chosen by the test photos: the
record is the variant of at most 98,496 bytes with the best validation accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import variants

_SETTINGS = Path(__file__).with_name("cifar10.yaml")
# The size of MLPerf Tiny's reference model for image classification.
_RECORD_BYTES = 98_496


def main() -> None:
    """Runs the pipeline and prints the table."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    settings = [f"--set={assignment}" for assignment in arguments.set]
    command = ["run", "--data", arguments.data, "--config", _SETTINGS, "--output", arguments.output, *settings]
    started = time.perf_counter()
    # A refused gate (exit status 3) is a result too.
    if subprocess.run([sys.executable, "-m", "pipeline.cli", *map(str, command)]).returncode not in {0, 3}:
        sys.exit("benchmarks.cifar10: trimline run failed")
    _report(arguments.output, time.perf_counter() - started)


def _report(output: Path, seconds: float) -> None:
    from pipeline.workspace import Workspace

    _report_record(variants.report(output))
    summary = json.loads(Workspace(output).summary_file.read_text(encoding="utf-8"))
    seconds_of = {component["name"]: component["seconds"] for component in summary["components"]}
    trained, compressed = summary["model"]["train_seconds"], seconds_of["Compression"]
    variants.say(f"Shipped: {summary['shipped']['name']}; training {trained:.0f} s, compression {compressed:.0f} s,")
    variants.say(f"this command {seconds:.0f} s")


def _report_record(rows: list[dict[str, Any]]) -> None:
    small = [row for row in rows if row["bytes"] <= _RECORD_BYTES]
    if not small:
        variants.say(f"No variant has at most {_RECORD_BYTES:,} bytes")
        return
    best = max(small, key=lambda row: row["accuracy"])
    variants.say(f"Record: {best['name']}, {best['bytes']:,} bytes, {best['test']:.2%} of the test photos")


if __name__ == "__main__":
    main()
