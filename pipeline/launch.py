"""Starts a run in a process of its own and follows it to its end."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import ml_metadata.errors

from pipeline import child
from pipeline.metadata import Metadata, UnreadableStoreError
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
_PREFERENCES = {
    # By itself TensorFlow takes all memory of a GPU at once, and a run has several processes that use TensorFlow.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    # By itself TensorFlow takes oneDNN's kernels only on CPUs with AVX-512 VNNI; on one without, training took 1.4 to
    # 2.5 times as long (docs/speed.md). Not measured on other architectures than x86.
    **({"TF_ENABLE_ONEDNN_OPTS": "1"} if platform.machine() in ("x86_64", "AMD64") else {}),
}
_POLL_SECONDS = 0.3
# What ML Metadata raises in a query, and on opening a database.
_BUSY = (ml_metadata.errors.StatusError, UnreadableStoreError)
_SECONDS_TO_STOP = 10.0
# What a pipe takes at once.
_LONGEST_OUTCOME = 65_536


class Interrupted(BaseException):
    """A command was stopped; the message says what is kept of it.

    Attributes:
        signal: What stopped it: SIGINT, which is Ctrl-C, SIGTERM or SIGHUP.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        """Creates the exception.

        Args:
            message: For the user.
            number: Number of the signal.
        """
        super().__init__(message)
        self.signal = number


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
        lock: The workspace's lock, which the process holds until it has come to its end, too.
        poll: Is called several times a second, and once more at the end.
        *arguments: Of the module, after the workspace's root.
        kept: What the same command need not do again after it was stopped.

    Raises:
        UserError: If it failed by a mistake that the user can mend.
        Interrupted: If the user pressed Ctrl-C, or the system asked it to end.
        RunError: If it failed otherwise.
    """
    for left_over in (workspace.progress_file, workspace.graph_file, workspace.trouble_file):
        left_over.unlink(missing_ok=True)
    alive, held = os.pipe()
    outcome, told = os.pipe()
    with _closing(held, outcome), signals_raise(f"stopped; {kept} are kept"), workspace.log_file.open("wb") as log:
        with _closing(alive, told):
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(workspace.root), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_PREFERENCES
                | dict(os.environ)
                | _ENVIRONMENT
                | {child.PARENT: str(alive), child.OUTCOME: str(told)},
                pass_fds=[lock.fileno(), alive, told],
                # A Ctrl-C is ours to pass on.
                start_new_session=True,
            )
        try:
            _follow(process, poll)
        except BaseException:
            _stop(process)
            raise
        _raise_for_outcome(process.returncode, _read_all(outcome), workspace)


@contextlib.contextmanager
def _closing(*files: int) -> Iterator[None]:
    try:
        yield
    finally:
        for file in files:
            os.close(file)


@contextlib.contextmanager
def signals_raise(message: str) -> Iterator[None]:
    """Lets the signals that ask a process to end raise Interrupted, so that it can undo or stop what it has begun.

    Args:
        message: What is kept, for the user.
    """

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(message, number)

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Lets what must not be left half done come to its end."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, Any], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, present in before.items():
        # What is ignored on purpose stays so: nohup does that.
        if present is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, present in before.items():
            signal.signal(number, present)


def _follow(process: subprocess.Popen[bytes], poll: Callable[[], None]) -> None:
    while process.poll() is None:
        poll()
        time.sleep(_POLL_SECONDS)
    poll()


def _report(workspace: Workspace, known: set[str], progress: Progress) -> None:
    runs = [run for run in _runs(workspace) if run not in known]
    try:
        components = Metadata(workspace.metadata_file).components(runs[-1]) if runs else []
    except _BUSY:
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
    except _BUSY:
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
    except (subprocess.TimeoutExpired, Interrupted):
        process.kill()
        process.wait()
    # Only now those that it started: while it lived, it could have taken the death of one for a verdict on a model.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _read_all(file: int) -> bytes:
    """Reads what the run has written, without waiting for whoever else may have the other end."""
    os.set_blocking(file, False)
    try:
        return os.read(file, _LONGEST_OUTCOME)
    except BlockingIOError:
        return b""


def _raise_for_outcome(returncode: int, told: bytes, workspace: Workspace) -> None:
    if returncode == 0:
        return
    if not told:
        raise RunError(f"the run died with exit status {returncode}; see {workspace.log_file}")
    outcome = json.loads(told)
    if outcome["user_error"]:
        raise UserError(outcome["message"])
    raise RunError(f"{outcome['message']}; see {workspace.log_file}")
