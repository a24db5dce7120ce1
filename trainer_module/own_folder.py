"""Temporary folders that go with the process that made them, in the end also when it was killed."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path


def make(prefix: str) -> str:
    """Makes an empty folder that is removed when this process ends.

    Args:
        prefix: How its name begins.

    Returns:
        Its path.
    """
    # Under another name until it is locked, or another process could take it for an abandoned one meanwhile.
    unlocked = Path(tempfile.mkdtemp(prefix=f"unlocked-{prefix}"))
    with contextlib.suppress(OSError):
        # Never closed: the kernel lets go of it when the process ends, in whatever way.
        fcntl.flock(os.open(unlocked, os.O_RDONLY), fcntl.LOCK_EX)
    folder = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix("unlocked-")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(folder)


def remove_abandoned(prefix: str) -> None:
    """Removes the folders that killed processes have left; those of living ones, which are locked, stay.

    Args:
        prefix: How their names begin.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # What belongs to another user, or cannot be locked in this file system, stays too.
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
