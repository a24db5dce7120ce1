"""Starts a run in a process of its own and follows it to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import ml_metadata.errors

from pipeline.metadata import Metadata
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import IO

    from pipeline.progress import Progress
    from pipeline.terminal import Terminal
    from pipeline.workspace import Workspace

_ENVIRONMENT = {
    # TFX and TFMA decide at import which Keras they use.
    "TF_USE_LEGACY_KERAS": "1",
    # A folder in the user's working directory that is called like one of our packages must not take its place.
    "PYTHONSAFEPATH": "1",
}
_POLL_SECONDS = 0.3
_SECONDS_TO_STOP = 10.0


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The user stopped a command; the message says what is kept of it."""


class RunError(Exception):
    """A run that failed for no fault of the user; the log has the details."""


def run_to_end(workspace: Workspace, terminal: Terminal, lock: IO[str]) -> dict[str, Any]:
    """Runs the pipeline of a prepared workspace.

    Args:
        workspace: Its settings file says what to run.
        terminal: Shows what is happening.
        lock: The workspace's lock.

    Returns:
        The content of summary.json.

    Raises:
        UserError, Interrupted, RunError: See `run_module`.
    """
    known = set(_runs(workspace))
    with terminal.progress() as progress:
        run_module(
            "pipeline.local_runner",
            workspace,
            lock,
            terminal.following(workspace.log_file, lambda: _report(workspace, known, progress)),
            kept="finished components, epochs and fine-tunings",
        )
    return json.loads(workspace.summary_file.read_text(encoding="utf-8"))


def run_module(
    module: str,
    workspace: Workspace,
    lock: IO[str],
    poll: Callable[[], None],
    *arguments: str,
    kept: str = "finished components",
) -> None:
    """Runs a module on a workspace in a process of its own.

    TFX and TensorFlow write straight to the process's file descriptors; in a process of its own that goes to the log.

    Args:
        module: Takes the workspace's root as its argument and ends with `child.report_outcome`.
        workspace: Output directory.
        lock: The workspace's lock, which the process holds on to even if this one dies.
        poll: Is called several times a second, and once more at the end.
        *arguments: Of the module, after the workspace's root.
        kept: What the same command need not do again after it was stopped.

    Raises:
        UserError: If it failed by a mistake that the user can mend.
        Interrupted: If the user pressed Ctrl-C.
        RunError: If it failed otherwise.
    """
    for left_over in (workspace.outcome_file, workspace.progress_file, workspace.graph_file):
        left_over.unlink(missing_ok=True)
    with workspace.log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(workspace.root), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | _ENVIRONMENT,
            pass_fds=[lock.fileno()],
            # A Ctrl-C is ours to pass on.
            start_new_session=True,
        )
        try:
            _follow(process, poll)
        except KeyboardInterrupt:
            _stop(process)
            raise Interrupted(f"stopped; {kept} are kept") from None
        except BaseException:
            _stop(process)
            raise
    _raise_for_outcome(process.returncode, workspace)


def _follow(process: subprocess.Popen[bytes], poll: Callable[[], None]) -> None:
    while process.poll() is None:
        poll()
        time.sleep(_POLL_SECONDS)
    poll()


def _report(workspace: Workspace, known: set[str], progress: Progress) -> None:
    runs = [run for run in _runs(workspace) if run not in known]
    try:
        components = Metadata(workspace.metadata_file).components(runs[-1]) if runs else []
    except ml_metadata.errors.StatusError:
        # The run is writing at this very moment.
        return
    graph = _read_json(workspace.graph_file)
    if graph:
        progress.update(components, graph, _read_json(workspace.progress_file))


def _runs(workspace: Workspace) -> list[str]:
    if not workspace.metadata_file.exists():
        return []
    try:
        return Metadata(workspace.metadata_file).runs()
    except ml_metadata.errors.StatusError:
        # Not created completely yet, or being written.
        return []


def _read_json(file: Path) -> dict[str, Any]:
    """Reads a file that is always whole, once it is there."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    # A second Ctrl-C is from somebody who does not want to wait.
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def _raise_for_outcome(returncode: int, workspace: Workspace) -> None:
    if returncode == 0:
        return
    if not workspace.outcome_file.exists():
        raise RunError(f"the run died with exit status {returncode}; see {workspace.log_file}")
    outcome = json.loads(workspace.outcome_file.read_text(encoding="utf-8"))
    if outcome["user_error"]:
        raise UserError(outcome["message"])
    raise RunError(f"{outcome['message']}; see {workspace.log_file}")
