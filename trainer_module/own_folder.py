"""Temporary folders that go with the process that made them, in the end also when it was killed."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

# Only a folder that has it was made here; it is locked for as long as the process lives.
_LOCK = ".made-by-trimline"


def make(prefix: str) -> str:
    """Makes a folder that is removed when this process ends, empty but for a hidden file.

    Args:
        prefix: How its name begins.

    Returns:
        Its path.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    unlocked = folder / f"{_LOCK}.new"
    # Where nothing can be locked, nothing is taken for abandoned.
    with contextlib.suppress(OSError):
        # Never closed: the kernel lets go of it when the process ends, in whatever way.
        fcntl.flock(os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX)
        unlocked.rename(folder / _LOCK)
    return str(folder)


def remove_abandoned(prefix: str) -> None:
    """Removes the folders that killed processes have left; those of living ones, which are locked, stay.

    Args:
        prefix: How their names begin.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{prefix}*/{_LOCK}"):
        # What belongs to another user stays too.
        with contextlib.suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent)
            finally:
                os.close(descriptor)
