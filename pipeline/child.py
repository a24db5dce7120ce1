"""How a process that does the work tells the command line what went wrong."""

from __future__ import annotations

import json
import logging
import re
import traceback
from typing import TYPE_CHECKING

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.workspace import Workspace

# Beam workers carry exceptions as text, so the line meant for the user is found by the name of its class.
_USER_ERROR_LINE = re.compile(rf"\b{UserError.__name__}: (.+?)(?: \[while running .*)?$", re.MULTILINE)


def report_outcome(workspace: Workspace, work: Callable[[], None]) -> int:
    """Does the work; if it fails, writes the outcome file.

    Args:
        workspace: Names the outcome file.
        work: What to do.

    Returns:
        Exit status: 0 if the work was done, 2 for a user's mistake, 1 for anything else.
    """
    try:
        work()
    except Exception:
        text = traceback.format_exc()
        logging.getLogger(__name__).exception("the run failed")
        mistake = user_error(text)
        message = mistake or text.strip().splitlines()[-1]
        workspace.outcome_file.write_text(json.dumps({"user_error": bool(mistake), "message": message}))
        return 2 if mistake else 1
    return 0


def user_error(text: str) -> str | None:
    """Returns the line that a stack trace has for the user; None if nothing that the user did is at fault."""
    lines = _USER_ERROR_LINE.findall(text)
    return lines[-1] if lines else None
