"""Files that are never seen half-written."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file, text as UTF-8, as a whole or not at all: beside it first, then renamed.

    Raises:
        OSError: It cannot be written, or is a directory.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # Hidden, and with the whole name: whoever has a NAME.tmp there keeps it.
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)
