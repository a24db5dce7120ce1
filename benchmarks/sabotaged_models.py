"""What the gates answer to sabotaged releases.

    python -m benchmarks.sabotaged_models [--only TEXT]

Trains a small network on the embedded digits, breaks its release in every way of benchmarks/sabotages.py, and sends
each through the real doors: TFX's Evaluator of both gates, the rules of the ReleaseGate, the ServingValidator. Prints
the table of docs/gate.md. Exits with 1 if one is let through, or the honest one is not.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from benchmarks.gate_bench import GateBench
from benchmarks.sabotages import KINDS
from components.release_gate.engine import Check


def main() -> None:
    """Judges the honest release and every sabotaged one."""
    parser = argparse.ArgumentParser(description="What the gates answer to sabotaged releases.")
    parser.add_argument("--only", default="", help="Only those whose name has this text.")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failures = 0
    with tempfile.TemporaryDirectory() as directory:
        bench = GateBench(Path(directory) / "bench")
        honest = bench.refusal(bench.honest)
        failures += honest is not None
        _row("none: the honest release", honest)
        for number, kind in enumerate(kind for kind in KINDS if arguments.only in kind.name):
            work = Path(directory) / str(number)
            work.mkdir()
            refused = bench.refusal(kind.apply(bench, work))
            failures += refused is None
            _row(kind.name, refused)
    sys.exit(1 if failures else 0)


def _row(name: str, refused: Check | None) -> None:
    answer = "passed | | |"
    if refused:
        about = f", class {refused.slice}" if refused.slice is not None else ""
        answer = f"refused: {refused.gate} | `{refused.rule}`{about} | {refused.reason} |"
    sys.stdout.write(f"| {name} | {answer}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
