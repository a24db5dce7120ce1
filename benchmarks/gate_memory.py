"""Memory and time of one gate's Evaluator over more and more photos.

    python -m benchmarks.gate_memory [--photos 1000 5000 20000 50000] [--side 96]

Each number of photos is judged in a process of its own: a .tflite beside its float parent, as the fidelity gate does.
The photos are noise of the given side, as JPEG files, of ten classes; all classifiers are the bench's. Prints the
largest resident memory of the process, what of it was there before the first photo, and the time.
"""

from __future__ import annotations

import argparse
import logging
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.gate_bench import CLASS_NAMES, GateBench, example_of, run_evaluator, write_schema
from pipeline import gates
from pipeline.config import GateSettings

_PER_SHARD = 5000
_DISTINCT = 500


def main() -> None:
    """Judges each number of photos in a fresh process."""
    parser = argparse.ArgumentParser(description="Memory and time of the gate by the number of photos.")
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 5000, 20_000, 50_000])
    parser.add_argument("--side", type=int, default=96, help="Side of the photos in pixels.")
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        _judge(arguments.judge)
        return
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as directory:
        bench = GateBench(Path(directory) / "bench", epochs=1)
        for count in arguments.photos:
            work = Path(directory) / str(count)
            _write_photos(work / "examples", count, arguments.side)
            write_schema(work / "schema")
            for name in ("tflite", "parent"):
                (work / name).symlink_to(getattr(bench.honest, name))
            command = [sys.executable, "-m", "benchmarks.gate_memory", "--judge", str(work)]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            sys.stdout.write(f"| {count:,} {answer.stdout.strip()}\n")
            sys.stdout.flush()


def _judge(work: Path) -> None:
    logging.disable(logging.CRITICAL)
    before, started = _peak_mb(), time.perf_counter()
    _, blessing = run_evaluator(
        work / "tflite",
        work / "parent",
        work / "examples",
        work / "schema",
        work / "result",
        gates.eval_config(GateSettings(min_accuracy=0.0)),
    )
    seconds = time.perf_counter() - started
    assert blessing.get_int_custom_property("blessed") == 1  # noqa: S101 (a benchmark of nothing is worth nothing)
    sys.stdout.write(f"| {_peak_mb():,.0f} MB | {before:,.0f} MB | {seconds:.0f} s |")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _write_photos(directory: Path, count: int, side: int) -> None:
    """Writes photos of which 500 are distinct in their pixels; decoding costs the same for all."""
    split = directory / "Split-test"
    split.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (min(count, _DISTINCT), side, side, 3), dtype=np.uint8)
    files = [tf.io.encode_jpeg(image).numpy() for image in pixels]
    shards = -(-count // _PER_SHARD)
    for shard in range(shards):
        path = split / f"data_tfrecord-{shard:05d}-of-{shards:05d}.gz"
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for index in range(shard * _PER_SHARD, min(count, (shard + 1) * _PER_SHARD)):
                name = CLASS_NAMES[index % len(CLASS_NAMES)]
                image = pixels[index % len(pixels)]
                writer.write(example_of(files[index % len(files)], image, name).SerializeToString())


if __name__ == "__main__":
    main()
