"""Paths that a later command reads, which may be started elsewhere."""

from __future__ import annotations

from pathlib import Path

from trainer_module.uri import is_remote


def absolute(directory: str) -> str:
    """Makes a directory mean the same from wherever it is read; URIs of other file systems do already."""
    return directory.rstrip("/") if is_remote(directory) else str(Path(directory).expanduser().absolute())
