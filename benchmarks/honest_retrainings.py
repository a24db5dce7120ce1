"""How many honest retrainings, with nothing but another seed, the gates refuse.

    python -m benchmarks.honest_retrainings [--count 20] [--epochs 15]

Trains a small network on the embedded digits and releases it; then trains it again with other seeds and sends each
release through the real doors, the release gate comparing with the first. Prints a line for each, then how many were
refused, and how many would have been by the bare differences, without confidence intervals.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from benchmarks.gate_bench import GateBench, Release, train_network
from components.release_gate.engine import Check, Limits
from pipeline import gates
from pipeline.config import GateSettings

_FIRST_SEED = 100


def main() -> None:
    """Retrains and judges."""
    parser = argparse.ArgumentParser(description="How many honest retrainings the gates refuse.")
    parser.add_argument("--count", type=int, default=20, help="Number of retrainings.")
    parser.add_argument("--epochs", type=int, default=15, help="Epochs of each training.")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    refused = bare = 0
    with tempfile.TemporaryDirectory() as directory:
        bench = GateBench(Path(directory) / "bench", arguments.epochs)
        for number in range(arguments.count):
            network = train_network(bench.train, _FIRST_SEED + number, arguments.epochs)
            release = bench.export(network, Path(directory) / str(number))
            refusal = bench.refusal(release)
            refused += refusal is not None
            checks = _comparisons(bench, release)
            beyond = [check for check in checks if check.value is not None and check.value > (check.limit or 0)]
            bare += bool(beyond)
            _line(number, checks, beyond, refusal)
    sys.stdout.write(f"{refused} of {arguments.count} refused; {bare} would be by the bare differences\n")


def _comparisons(bench: GateBench, release: Release) -> list[Check]:
    """Returns every judged drop of the release gate."""
    limits = Limits(**GateSettings().model_dump())
    checks = [
        check
        for name in gates.ARTIFACTS
        for check in bench.checks(release, "release", name, getattr(bench.honest, name), limits)
    ]
    return [check for check in checks if check.rule in ("gate.max_regression", "gate.max_class_drop")]


def _line(number: int, checks: list[Check], beyond: list[Check], refusal: Check | None) -> None:
    overall = [check.value or 0.0 for check in checks if check.slice is None]
    classes = [check.value or 0.0 for check in checks if check.slice is not None]
    verdict = f"refused: {refusal.gate}, {refusal.rule}, {refusal.slice}: {refusal.reason}" if refusal else "passed"
    sys.stdout.write(
        f"seed {_FIRST_SEED + number}: drop {max(overall):+.2%}, of the worst class {max(classes):+.2%}, "
        f"{len(beyond)} beyond their limits; {verdict}\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
