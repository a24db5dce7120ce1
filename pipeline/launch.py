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
    from typing import IO

    from pipeline.progress import Progress
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
    """The user stopped the run; the message says how to go on."""


class RunError(Exception):
    """A run that failed for no fault of the user; the log has the details."""


def run_to_end(workspace: Workspace, progress: Progress, lock: IO[str]) -> dict[str, Any]:
    """Runs the pipeline of a prepared workspace.

    Args:
        workspace: Its settings file says what to run.
        progress: Is told what is happening.
        lock: The workspace's lock.

    Returns:
        The content of summary.json.

    Raises:
        UserError, Interrupted, RunError: See `run_module`.
    """
    known = set(_runs(workspace))
    run_module("pipeline.local_runner", workspace, lock, lambda: _report(workspace, known, progress))
    return json.loads(workspace.summary_file.read_text(encoding="utf-8"))


def run_module(module: str, workspace: Workspace, lock: IO[str], poll: Callable[[], None], *arguments: str) -> None:
    """Runs a module on a workspace in a process of its own.

    TFX and TensorFlow write straight to the process's file descriptors; in a process of its own that goes to the log.

    Args:
        module: Takes the workspace's root as its argument and ends with `child.report_outcome`.
        workspace: Output directory.
        lock: The workspace's lock, which the process holds on to even if this one dies.
        poll: Is called several times a second, and once more at the end.
        *arguments: Of the module, after the workspace's root.

    Raises:
        UserError: If it failed by a mistake that the user can mend.
        Interrupted: If the user pressed Ctrl-C.
        RunError: If it failed otherwise.
    """
    workspace.outcome_file.unlink(missing_ok=True)
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
            raise Interrupted(
                "stopped; finished components and epochs are kept: run the same command again to go on"
            ) from None
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
    progress.update(components, _training_progress(workspace))


def _runs(workspace: Workspace) -> list[str]:
    if not workspace.metadata_file.exists():
        return []
    try:
        return Metadata(workspace.metadata_file).runs()
    except ml_metadata.errors.StatusError:
        # Not created completely yet, or being written.
        return []


def _training_progress(workspace: Workspace) -> dict[str, Any] | None:
    files = sorted(workspace.pipeline_root.glob("Trainer/model_run/*/progress.json"), key=os.path.getmtime)
    return json.loads(files[-1].read_text(encoding="utf-8")) if files else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
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
