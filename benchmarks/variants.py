"""What the variants of a compression are worth: accuracy on the test photos, and speed against each other in turns.

    python -m benchmarks.variants OUT

OUT is what `trimline run` or `trimline compress` has written, from photos with a test split. The test photos choose
nothing here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

# The faster, and than which it ought to be faster.
_PAIRS = (("int8", "float32"), ("channel_pruned_int8", "int8"))
_ROUNDS = 25
_RUNS = 300


def main() -> None:
    """Prints the table of all variants, and the ratios."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    report(parser.parse_args().output)


def report(output: Path) -> list[dict[str, Any]]:
    """Prints the table of all variants, and how much faster the faster ones are.

    Args:
        output: Of `trimline run` or `trimline compress`.

    Returns:
        The rows of the compression's report, each with its accuracy on the test photos as "test".
    """
    from pipeline.metadata import Metadata, Outputs
    from pipeline.workspace import Workspace
    from trainer_module.input_pipeline import load_arrays

    workspace = Workspace(output)
    metadata = Metadata(workspace.metadata_file)
    outputs = Outputs(metadata, metadata.runs()[-1])
    compressed = workspace.compressed if workspace.compressed.exists() else Path(outputs.uri("Compression", "report"))
    files = {path.stem: path for path in (compressed / "variants").glob("*.tflite")}
    rows = json.loads((compressed / "report.json").read_text(encoding="utf-8"))["variants"]
    size = workspace.read_settings().training().image_size
    images, labels = load_arrays([f"{outputs.uri('Transform', 'transformed_examples')}/Split-test/*"], size)
    say("| Variant | Bytes | Deflated | x naive | x float32 | Validation | Test | Latency ms |")
    say("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        row["test"] = _accuracy(files[row["name"]], images, labels)
        say(
            f"| {row['name']} | {row['bytes']:,} | {row['deflated_bytes']:,} | {row['times_smaller_than_naive']:.0f} | "
            f"{row['times_smaller_than_float32']:.1f} | {row['accuracy']:.2%} | {row['test']:.2%} | "
            f"{row['latency_ms']:.3f} |"
        )
    say(f"{len(labels)} test photos")
    _report_ratios(files, images[:1])
    return rows


def say(line: str) -> None:
    """Prints a line."""
    sys.stdout.write(f"{line}\n")


def _report_ratios(files: Mapping[str, Path], image: np.ndarray) -> None:
    for fast, slow in _PAIRS:
        if fast in files and slow in files:
            ratios = sorted(_ratios(files[fast], files[slow], image))
            say(
                f"{fast}: {statistics.median(ratios):.2f} times as fast as {slow}, one image on one thread, "
                f"in turns ({ratios[0]:.2f} to {ratios[-1]:.2f} in {_ROUNDS} rounds)"
            )


def _ratios(fast: Path, slow: Path, image: np.ndarray) -> list[float]:
    from trainer_module.tflite import TFLiteClassifier

    classifiers = [TFLiteClassifier(path) for path in (fast, slow)]
    ratios = []
    for _ in range(_ROUNDS):
        seconds = []
        for classifier in classifiers:
            encoded = classifier.encode(image)
            # What the other one has pushed out of the caches comes back first.
            for _ in range(_RUNS // 10):
                classifier.run(encoded)
            started = time.perf_counter()
            for _ in range(_RUNS):
                classifier.run(encoded)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[1] / seconds[0])
    return ratios


def _accuracy(model: Path, images: np.ndarray, labels: np.ndarray) -> float:
    from trainer_module.tflite import TFLiteClassifier

    return float((TFLiteClassifier(model).predict(images).argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    main()
