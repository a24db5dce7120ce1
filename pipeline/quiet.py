"""Keeps what libraries write past Python's streams away from the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STANDARD_ERROR = 2


@contextlib.contextmanager
def library_noise_hidden() -> Iterator[None]:
    """Drops what is written to standard error meanwhile; exceptions come through.

    TensorFlow and LiteRT announce themselves there from C++, before any setting of theirs takes effect.
    """
    sys.stderr.flush()
    kept = os.dup(_STANDARD_ERROR)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123 (os.devnull is no Path)
            os.dup2(nothing.fileno(), _STANDARD_ERROR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, _STANDARD_ERROR)
        os.close(kept)
