"""The file system of a path. TensorFlow takes seconds to load, so it is loaded only for paths that need it."""

from __future__ import annotations

import sys

from tfx.dsl.io.filesystem import Filesystem
from tfx.dsl.io.plugins.local import LocalFilesystem

from trainer_module.uri import is_remote


def file_system(*paths: str) -> type[Filesystem]:
    """Returns TFX's access to the file system of paths; where one of them is remote, to that and the machine's own.

    Args:
        paths: Local paths, or URIs of any file system that TensorFlow knows.
    """
    if not any(map(is_remote, paths)):
        return LocalFilesystem
    from tfx.dsl.io.plugins.tensorflow_gfile import TensorflowFilesystem

    return TensorflowFilesystem


def file_errors() -> tuple[type[Exception], ...]:
    """Returns what a file system can raise, to be asked for when something was raised."""
    tensorflow = sys.modules.get("tensorflow")
    return (OSError, tensorflow.errors.OpError) if tensorflow else (OSError,)


def reason(error: Exception) -> str:
    """Says in one line why a file system would not: TFX raises errors without a word in place of some that have one."""
    told = error if str(error) else error.__cause__ or error
    text = getattr(told, "strerror", None) or getattr(told, "message", None) or str(told) or type(told).__name__
    return " ".join(str(text).split())
