"""Failures of the machine, which say nothing about the model that was at work when they came."""

from __future__ import annotations

import errno
import os

_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
# Of the system, and names of exceptions of Python, NumPy and TensorFlow.
_SIGNS = (*(os.strerror(number) for number in _ERRORS), "MemoryError", "ResourceExhaustedError")


def machine_fault(text: str) -> str | None:
    """Finds out whether disk or memory is at fault.

    Args:
        text: An exception with the name of its class, or what a process that failed wrote: each library has exceptions
            of its own, and not all keep the number of the error.

    Returns:
        The words that say so; None if nothing does.
    """
    return next((sign for sign in _SIGNS if sign in text), None)
