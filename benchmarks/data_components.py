"""Time and memory of ingest, statistics and Transform on a folder of photos.

    python -m benchmarks.data_components DATA [--set KEY=VALUE ...]

Prints seconds of each component, of all of them, and the largest resident memory of the process and its children.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pipeline.config import load_settings
from pipeline.metadata import Metadata
from pipeline.prepare import resolve
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAST = "Transform"
_RUN = """
import sys
from pathlib import Path
from pipeline.local_runner import run_pipeline
from pipeline.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
run_pipeline(workspace.read_settings(), workspace, last_component=sys.argv[2])
"""


def main() -> None:
    """Runs the components and prints the figures."""
    with prepared_workspace(__doc__) as workspace:
        seconds, memory = run_data_components(workspace)
        metadata = Metadata(workspace.metadata_file)
        for component in metadata.components(metadata.runs()[-1]):
            sys.stdout.write(f"{component.name:24}{component.seconds:8.1f} s  {component.state}\n")
        sys.stdout.write(f"{'all, with start-up':24}{seconds:8.1f} s  {memory / 2**30:.2f} GiB resident\n")


@contextlib.contextmanager
def prepared_workspace(description: str | None, *fixed: str) -> Iterator[Workspace]:
    """Reads the command line, DATA [--set KEY=VALUE ...], into the settings of a workspace that goes in the end.

    Args:
        description: What --help says.
        *fixed: "KEY=VALUE" assignments that the command line cannot change.

    Yields:
        The workspace, with its settings written.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        workspace = Workspace(Path(directory))
        workspace.prepare()
        settings = load_settings(assignments=(*arguments.set, f"data.path={arguments.data}", *fixed))
        workspace.write_settings(resolve(settings, workspace))
        yield workspace


def run_data_components(workspace: Workspace) -> tuple[float, int]:
    """Runs ingest, statistics and Transform on a prepared workspace.

    Returns:
        Seconds, and the largest resident memory of the process and its children together, in bytes.
    """
    started = time.perf_counter()
    with workspace.log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(workspace.root), _LAST],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TF_USE_LEGACY_KERAS": "1"},
        )
        memory = 0
        while process.poll() is None:
            memory = max(memory, _resident(process.pid))
            time.sleep(0.2)
    if process.returncode:
        sys.exit(workspace.log_file.read_text()[-2000:])
    return time.perf_counter() - started, memory


def _resident(pid: int) -> int:
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(process.memory_info().rss for process in family)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    main()
