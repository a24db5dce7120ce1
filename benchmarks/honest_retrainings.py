"""How many honest retrainings, with nothing but another seed, the gates refuse.

    python -m benchmarks.honest_retrainings [--count 20] [--first 100] [--epochs 15]

Trains a small network on the embedded digits and releases it; then trains it again with other seeds and sends each
release through the fidelity and the release gate, which compares with the first. (The serving gate has nothing to do
with chance.) Prints a line for each, then how many were refused, and how many would have been by the bare differences,
without confidence intervals.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from benchmarks.gate_bench import GateBench, Release, train_network
from components.release_gate.engine import ARTIFACTS, Check, Limits
from pipeline.config import GateSettings

_DROPS = ("gate.max_drop", "gate.max_regression", "gate.max_class_drop")


def main() -> None:
    """Retrains and judges."""
    parser = argparse.ArgumentParser(description="How many honest retrainings the gates refuse.")
    parser.add_argument("--count", type=int, default=20, help="Number of retrainings.")
    parser.add_argument("--first", type=int, default=100, help="Seed of the first of them.")
    parser.add_argument("--epochs", type=int, default=15, help="Epochs of each training.")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    refused = bare = 0
    with tempfile.TemporaryDirectory() as directory:
        bench = GateBench(Path(directory) / "bench", arguments.epochs)
        for seed in range(arguments.first, arguments.first + arguments.count):
            network = train_network(bench.train, seed, arguments.epochs)
            release = bench.export(network, Path(directory) / str(seed))
            checks = _checks(bench, release)
            refusal = next((check for check in checks if check.verdict == "refused"), None)
            beyond = [check for check in checks if check.rule in _DROPS and (check.value or 0.0) > (check.limit or 0.0)]
            refused += refusal is not None
            bare += bool(beyond)
            _line(seed, [check for check in checks if check.gate == "release"], beyond, refusal)
    sys.stdout.write(f"{refused} of {arguments.count} refused; {bare} would be by the bare differences\n")


def _checks(bench: GateBench, release: Release) -> list[Check]:
    limits = Limits(**GateSettings().model_dump())
    return [
        check
        for name in ARTIFACTS
        for gate, reference in (("fidelity", release.parent), ("release", getattr(bench.honest, name)))
        for check in bench.checks(release, gate, name, reference, limits)
    ]


def _line(seed: int, checks: list[Check], beyond: list[Check], refusal: Check | None) -> None:
    overall = [check.value or 0.0 for check in checks if check.rule == "gate.max_regression"]
    classes = [check.value or 0.0 for check in checks if check.rule == "gate.max_class_drop"]
    verdict = f"refused: {refusal.gate}, {refusal.rule}, {refusal.slice}: {refusal.reason}" if refusal else "passed"
    sys.stdout.write(
        f"seed {seed}: drop {max(overall):+.2%}, of the worst class {max(classes):+.2%}, "
        f"{len(beyond)} beyond their limits; {verdict}\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
