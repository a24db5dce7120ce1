"""How a process that does the work is tied to the command line that started it: it dies with it, and tells it why."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import traceback
from typing import TYPE_CHECKING

from pipeline.disk import full_disk
from trainer_module import progress
from trainer_module.errors import UserError, messages_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.workspace import Workspace

# Environment variables with the numbers of two open files: one that ends when the command line does, and one for the
# outcome. Not a file in the output directory, which may be what is full.
PARENT, OUTCOME = "TRIMLINE_PARENT", "TRIMLINE_OUTCOME"


def report_outcome(workspace: Workspace, work: Callable[[], None]) -> int:
    """Does the work, and keeps what it reports of its progress; if it fails, tells the command line why.

    Args:
        workspace: Where the work is done.
        work: What to do.

    Returns:
        Exit status: 0 if the work was done, 2 for a user's mistake, 1 for anything else.
    """
    if PARENT in os.environ:
        threading.Thread(target=_die_with_parent, args=(int(os.environ[PARENT]),), daemon=True).start()
    try:
        with progress.kept_in(workspace.progress_file):
            work()
    except Exception:
        logging.getLogger(__name__).exception("the run failed")
        message, user_error = describe_failure(traceback.format_exc(), workspace)
        if OUTCOME in os.environ:
            os.write(int(os.environ[OUTCOME]), json.dumps({"user_error": user_error, "message": message}).encode())
        return 2 if user_error else 1
    return 0


def describe_failure(text: str, workspace: Workspace) -> tuple[str, bool]:
    """Finds the line that says what went wrong, and whether it is meant for the user.

    Args:
        text: A traceback as Python prints it.
        workspace: Where it happened.
    """
    lines = [*messages_of(UserError, text), *full_disk(text, workspace)]
    return (lines[-1], True) if lines else (text.strip().splitlines()[-1], False)


def user_error_line(text: str) -> str | None:
    """Returns the line that a traceback has for the user; None if nothing that the user did is at fault."""
    lines = messages_of(UserError, text)
    return lines[-1] if lines else None


def _die_with_parent(file: int) -> None:
    """Ends this process and all that it started when the command line is gone, be it by kill -9.

    Otherwise it would go on unseen, and keep the lock from whoever starts the command again.
    """
    os.read(file, 1)
    os.killpg(0, signal.SIGKILL)
