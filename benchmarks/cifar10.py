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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

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
    from pipeline.metadata import Metadata, Outputs
    from pipeline.workspace import Workspace
    from trainer_module.input_pipeline import load_arrays

    workspace = Workspace(output)
    summary = json.loads(workspace.summary_file.read_text(encoding="utf-8"))
    metadata = Metadata(workspace.metadata_file)
    outputs = Outputs(metadata, metadata.runs()[-1])
    test = f"{outputs.uri('Transform', 'transformed_examples')}/Split-test/*"
    images, labels = load_arrays([test], summary["settings"]["data"]["image_size"])
    variants = Path(outputs.uri("Compression", "report")) / "variants"
    _print("| Variant | Bytes | Deflated | x naive | x float32 | Validation | Test | Latency ms |")
    _print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in summary["variants"]:
        row["test"] = _accuracy(variants / f"{row['name']}.tflite", images, labels)
        _print(
            f"| {row['name']} | {row['bytes']:,} | {row['deflated_bytes']:,} | {row['times_smaller_than_naive']:.0f} | "
            f"{row['times_smaller_than_float32']:.1f} | {row['accuracy']:.2%} | {row['test']:.2%} | "
            f"{row['latency_ms']:.3f} |"
        )
    _print_record(summary["variants"])
    seconds_of = {component["name"]: component["seconds"] for component in summary["components"]}
    trained, compressed = summary["model"]["train_seconds"], seconds_of["Compression"]
    _print(f"Shipped: {summary['shipped']['name']}; training {trained:.0f} s, compression {compressed:.0f} s,")
    _print(f"{len(labels)} test photos, this command {seconds:.0f} s")


def _print_record(rows: list[dict[str, Any]]) -> None:
    small = [row for row in rows if row["bytes"] <= _RECORD_BYTES]
    if not small:
        _print(f"No variant has at most {_RECORD_BYTES:,} bytes")
        return
    best = max(small, key=lambda row: row["accuracy"])
    _print(f"Record: {best['name']}, {best['bytes']:,} bytes, {best['test']:.2%} of the test photos")


def _accuracy(model: Path, images: np.ndarray, labels: np.ndarray) -> float:
    from trainer_module.tflite import TFLiteClassifier

    return float((TFLiteClassifier(model).predict(images).argmax(axis=1) == labels).mean())


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
