"""Paths that a later command reads, which may be started elsewhere."""

from __future__ import annotations

from pathlib import Path

from trainer_module.errors import UserError
from trainer_module.uri import is_remote


def absolute(directory: str) -> str:
    """Makes a directory mean the same from wherever it is read; URIs of other file systems do already."""
    return directory.rstrip("/") if is_remote(directory) else str(expanded(Path(directory)).absolute())


def expanded(path: Path) -> Path:
    """Puts a home directory in the place of ~ at the beginning of a path.

    Raises:
        UserError: There is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no user of that name; write the path in full") from None
