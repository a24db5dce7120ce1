"""Disks that take nothing more: full, over quota, or read-only."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from trainer_module.machine_faults import FULL, first_sign

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

# What SQLite makes of it.
_SQLITE_SIGN = "database or disk is full"
_LITTLE = 64 * 2**20


def full_disk(text: str, workspace: Workspace) -> list[str]:
    """Finds out whether an error came of a disk that takes nothing more.

    Args:
        text: The error with its causes, as text: TensorFlow, Beam and SQLite have exceptions of their own for it.
        workspace: Where the error happened.

    Returns:
        The line for the user, if so.
    """
    sign = first_sign(text, FULL, _SQLITE_SIGN)
    if sign is None:
        return []
    places = [str(workspace.root), tempfile.gettempdir(), *_destinations(workspace)]
    where = " or ".join([place for place in places if shutil.disk_usage(place).free < _LITTLE] or places)
    return [
        f"{where}: {sign[0].lower()}{sign[1:]}; make room there, then run the same command again: finished components "
        "and epochs are kept"
    ]


def _destinations(workspace: Workspace) -> list[str]:
    if not workspace.settings_file.exists():
        return []
    push = workspace.read_settings().push
    return [path for path in (push.saved_model_dir, push.tflite_dir) if path and Path(path).is_dir()]
