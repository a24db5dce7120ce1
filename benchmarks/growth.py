"""How time and memory of ingest, statistics and Transform grow with the number of photos.

    python -m benchmarks.growth DATA [--images N ...] [--workers N ...] [--set KEY=VALUE ...]

DATA is a class-per-folder tree of JPEGs. For each number of images, makes a tree of that many: copies of DATA's, each
with a comment of its own, so that no two files are the same. Prints the seconds that passed, start-up included; for one
worker those that processors worked, which a busy machine does not change much (several are not this process's to ask);
the largest resident memory of all processes together; and the seconds of each component.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import struct
import sys
import tempfile
from pathlib import Path

from benchmarks.data_components import run_data_components
from pipeline.config import load_settings
from pipeline.metadata import Metadata
from pipeline.prepare import resolve
from pipeline.workspace import Workspace


def main() -> None:
    """Makes the trees, runs the components and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[6_000, 60_000, 600_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    sources = sorted(arguments.data.rglob("*.jpg"))
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as directory:
            data = Path(directory) / "photos"
            _copy(sources, data, count)
            # What the system has still to write of the copies is no work of the run's.
            os.sync()
            for workers in arguments.workers:
                assignments = (*arguments.set, f"data.path={data}", f"beam.workers={workers}")
                _measure(Workspace(Path(directory) / f"out-{workers}"), assignments, count, workers)


def _copy(sources: list[Path], data: Path, count: int) -> None:
    for number, source in enumerate(itertools.islice(itertools.cycle(sources), count)):
        folder = data / source.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        comment = b"%d" % number
        # A comment segment (JPEG specification, ITU-T T.81, section B.2.4.5) behind the start of the image.
        segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
        (folder / f"{number}.jpg").write_bytes(content[:2] + segment + content[2:])


def _measure(workspace: Workspace, assignments: tuple[str, ...], count: int, workers: int) -> None:
    workspace.prepare()
    workspace.write_settings(resolve(load_settings(assignments=assignments), workspace))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, memory = run_data_components(workspace)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    metadata = Metadata(workspace.metadata_file)
    components = "  ".join(f"{run.name} {run.seconds:.1f}" for run in metadata.components(metadata.runs()[-1]))
    worked = f"{work:.1f} s of processors, {1000 * work / count:.2f} ms each  " if workers == 1 else ""
    sys.stdout.write(
        f"{count:8,} images  {workers} workers  {seconds:7.1f} s  {worked}{memory / 2**30:5.2f} GiB  ({components})\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
