"""How a process that does the work tells the command line what went wrong."""

from __future__ import annotations

import json
import logging
import re
import traceback
from typing import TYPE_CHECKING

from trainer_module import progress
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.workspace import Workspace

# Beam workers carry exceptions as text, so the line meant for the user is found by the name of its class.
_USER_ERROR_LINE = re.compile(rf"\b{UserError.__name__}: (.+?)(?: \[while running .*)?$", re.MULTILINE)


def report_outcome(workspace: Workspace, work: Callable[[], None]) -> int:
    """Does the work, and keeps what it reports of its progress; if it fails, writes the outcome file.

    Args:
        workspace: Names both files.
        work: What to do.

    Returns:
        Exit status: 0 if the work was done, 2 for a user's mistake, 1 for anything else.
    """
    try:
        with progress.kept_in(workspace.progress_file):
            work()
    except Exception:
        text = traceback.format_exc()
        logging.getLogger(__name__).exception("the run failed")
        lines = _USER_ERROR_LINE.findall(text)
        message = lines[-1] if lines else text.strip().splitlines()[-1]
        workspace.outcome_file.write_text(json.dumps({"user_error": bool(lines), "message": message}))
        return 2 if lines else 1
    return 0
