"""Failures of the machine, which say nothing about the model that was at work when they came."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of a disk that takes nothing more: it is full, over quota, or read-only.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ERRORS = (*FULL, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
# Names of exceptions of Python, NumPy and TensorFlow.
_NAMES = ("MemoryError", "ResourceExhaustedError")
# What TensorFlow's errors quote where a GPU has no memory left, or none for CUDA's libraries to begin with. Not what it
# says of every machine without a GPU: that cuInit has failed, and that factories are registered already.
_GPU_SIGNS = (
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDA_ERROR_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Could not create cudnn handle",
    "failed to create cublas handle",
    "DNN library initialization failed",
    "No DNN in stream executor",
    "Failed to initialize BLAS support",
    "No BLAS support in stream",
    "RESOURCE_EXHAUSTED",
    # tensorflow#7025
    "Dst tensor is not initialized",
)


def machine_fault(text: str) -> str | None:
    """Finds out whether disk, memory or GPU is at fault.

    Args:
        text: An exception with the name of its class, or what a process that failed wrote: each library has exceptions
            of its own, and not all keep the number of the error.

    Returns:
        The words that say so; None if nothing does.
    """
    return first_sign(text, _ERRORS, *_NAMES, *_GPU_SIGNS)


def first_sign(text: str, errors: Sequence[int], *others: str) -> str | None:
    """Finds out whether one of several errors came about.

    Args:
        text: An error as text.
        errors: Their numbers, by which the system's words for them are found.
        others: Words that others have for them.

    Returns:
        The words that say so; None if nothing does.
    """
    return next((sign for sign in (*map(os.strerror, errors), *others) if sign in text), None)
