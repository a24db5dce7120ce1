"""Kills a run at random moments inside every component, and checks that it ends as if it had never been killed.

    python -m benchmarks.kill_soak [--kills N] [--seed N] [--set KEY=VALUE ...]

Runs once unharmed. Then runs the same again into another directory, waits each time for one component to be under way,
and sends SIGKILL after a random part of its time: to the command line and to the process that it started, by turns. At
last lets it come to its end. Prints what was killed and what was checked, and exits with 1 if anything is not as it
must be.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import ml_metadata.errors
import psutil

from components.atomic_pusher.destination import tree_digest
from pipeline.metadata import Metadata
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.metadata import ComponentRun

_TRIMLINE = Path(sys.executable).with_name("trimline")
# The same on every machine, and quickly done; a seed, so that both directories must come to the same model.
_SETTINGS = ("seed=1", "trainer.epochs=4", "acceleration.mode=manual", "compression.stages=[quantize]")
_POLL_SECONDS = 0.05
_LONGEST_RUN = 900.0
_SECONDS_TO_DIE = 10.0


def main() -> None:
    """Runs, kills and checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        unharmed, killed = (Workspace(Path(directory) / name) for name in ("unharmed", "killed"))
        command = [word for setting in (*_SETTINGS, *arguments.set) for word in ("--set", setting)]
        started = time.perf_counter()
        _finish(unharmed, command)
        _say(f"unharmed: {time.perf_counter() - started:.0f} s")
        _kill_again_and_again(killed, unharmed, command, arguments.kills, random.Random(arguments.seed))  # noqa: S311
        started = time.perf_counter()
        _finish(killed, command)
        _say(f"the last run: {time.perf_counter() - started:.0f} s")
        faults = [
            fault
            for check in (_same_model, _one_push_each, _nothing_twice, _nothing_left)
            for fault in check(unharmed, killed)
        ]
        for fault in faults:
            _say(f"FAULT: {fault}")
        _say(f"{len(faults)} faults")
        sys.exit(bool(faults))


def _kill_again_and_again(
    killed: Workspace, unharmed: Workspace, command: list[str], kills: int, chance: random.Random
) -> None:
    components = _components(unharmed)
    at = [components[number * len(components) // kills] for number in range(kills)]
    for number, component in enumerate(at):
        share = chance.random()
        parent_dies = number % 2 == 0
        became = _kill(killed, command, component, share, parent_dies=parent_dies)
        whom = "command line" if parent_dies else "pipeline"
        note = _going_on(killed)
        _say(f"{number + 1:3} {component.name:28} after {share:4.0%} of its time  {whom:12}  {became}{note}")
        _require_blessing_before_push(killed)


def _kill(workspace: Workspace, command: list[str], component: ComponentRun, share: float, *, parent_dies: bool) -> str:
    """Starts a run and kills it in a component; returns what had become of the component by then."""
    known = {run.execution_id for run in _executions(workspace)}
    line = subprocess.Popen([_TRIMLINE, "run", "--output", workspace.root, *command], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + _LONGEST_RUN
    while not any(run.name == component.name for run in _executions(workspace) if run.execution_id not in known):
        if line.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{component.name} was never reached; the run ended with {line.poll()}")
        time.sleep(_POLL_SECONDS)
    time.sleep(share * component.seconds)
    pipelines = psutil.Process(line.pid).children() if line.poll() is None else []
    for process in pipelines if not parent_dies else []:
        process.send_signal(signal.SIGKILL)
    if parent_dies:
        line.send_signal(signal.SIGKILL)
    line.wait(_SECONDS_TO_DIE)
    _, alive = psutil.wait_procs(pipelines, _SECONDS_TO_DIE)
    if alive:
        raise SystemExit(f"the pipeline lives on {_SECONDS_TO_DIE} s after the command line has died")
    states = [run.state for run in _executions_at_rest(workspace) if run.name == component.name]
    return {"running": "killed in it", "done": "killed right after it", "cached": "killed right after it"}[states[-1]]


def _going_on(workspace: Workspace) -> str:
    found = re.search(r"the training goes on after epoch \d+", workspace.log_file.read_text(errors="replace"))
    return f"; {found[0]}" if found else ""


def _finish(workspace: Workspace, command: list[str]) -> None:
    line = subprocess.run(
        [_TRIMLINE, "run", "--output", workspace.root, *command], capture_output=True, text=True, check=False
    )
    if line.returncode:
        raise SystemExit(f"a run that nobody killed ended with {line.returncode}: {line.stderr}")


def _require_blessing_before_push(workspace: Workspace) -> None:
    blessed = any(
        run.name == "ReleaseGate" and run.state in ("done", "cached") for run in _executions_at_rest(workspace)
    )
    if _pushed(workspace) and not blessed:
        raise SystemExit("something was pushed before the gates had blessed it")


def _same_model(unharmed: Workspace, killed: Workspace) -> list[str]:
    digests = []
    for workspace in (unharmed, killed):
        (model,) = workspace.pushed_tflite.glob("*/model.tflite")
        digests.append(hashlib.sha256(model.read_bytes()).hexdigest())
    accuracies = [
        json.loads(workspace.summary_file.read_text())["shipped"]["accuracy"] for workspace in (unharmed, killed)
    ]
    _say(f"model.tflite: {digests[0][:12]} unharmed, {digests[1][:12]} killed; accuracies {accuracies}")
    # Not the digests: docs/reliability.md says when they differ.
    return [] if accuracies[0] == accuracies[1] else ["the models differ in accuracy"]


def _one_push_each(_: Workspace, killed: Workspace) -> list[str]:
    pushed = _pushed(killed)
    verified = subprocess.run([_TRIMLINE, "verify", killed.root], capture_output=True, text=True, check=False)
    _say(f"pushed: {len(pushed)} versions; trimline verify ends with {verified.returncode}")
    faults = [] if len(pushed) == 2 else [f"{len(pushed)} versions were pushed instead of 2"]
    digests = [tree_digest(str(path)) for path in pushed]
    if len(set(digests)) < len(digests) or verified.returncode:
        faults.append(f"the pushed versions are not what was blessed: {verified.stdout}")
    return faults


def _nothing_twice(_: Workspace, killed: Workspace) -> list[str]:
    executions = _executions(killed)
    done = Counter(run.name for run in executions if run.state == "done")
    states = Counter(run.state for run in executions)
    _say(f"executions: {dict(states)}; each of {len(done)} components was done once: {set(done.values()) == {1}}")
    faults = [f"{name} was done {times} times" for name, times in done.items() if times > 1]
    return faults + ([f"{states['running']} executions never ended"] if states["running"] else [])


def _nothing_left(_: Workspace, killed: Workspace) -> list[str]:
    left = [
        directory
        for run in _executions(killed)
        if run.state == "failed"
        for directory in killed.pipeline_root.glob(f"{run.name}/*/{run.execution_id}")
    ]
    left += list(killed.root.glob("pushed/*/.*"))
    return [f"{path} is left of a killed execution" for path in left]


def _pushed(workspace: Workspace) -> list[Path]:
    return [path for path in workspace.root.glob("pushed/*/*") if path.name.isdigit()]


def _components(workspace: Workspace) -> list[ComponentRun]:
    metadata = Metadata(workspace.metadata_file)
    return metadata.components(metadata.runs()[-1])


def _executions(workspace: Workspace) -> list[ComponentRun]:
    """Returns the executions of all runs so far; none while the store is being written."""
    if not workspace.metadata_file.exists():
        return []
    try:
        metadata = Metadata(workspace.metadata_file)
        return [component for run in metadata.runs() for component in metadata.components(run)]
    except (ml_metadata.errors.StatusError, RuntimeError):
        return []


def _executions_at_rest(workspace: Workspace) -> list[ComponentRun]:
    """Returns the executions in a store that was killed amid a transaction, which a reader cannot roll back.

    It is rolled back in a copy, so that the next run finds it as it was left.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy = Workspace(Path(directory))
        for file in workspace.root.glob(f"{workspace.metadata_file.name}*"):
            shutil.copy(file, copy.root)
        with contextlib.closing(sqlite3.connect(copy.metadata_file)) as database:
            database.execute("SELECT count(*) FROM sqlite_master")
        return _executions(copy)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
