"""Files that are not used, and how their names are shown."""

import os
from collections.abc import Collection

from pydantic import BaseModel

# Control characters and the Unicode line breaks: each would break a one-line message or a JSON line in two.
_BREAKING = {
    code: chr(code).encode("unicode_escape").decode("ascii")
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}

# Sentences name this many classes, folders or files.
_NAMED = 5


class Quarantined(BaseModel, frozen=True):
    """A file that looks like an image and is not used.

    Attributes:
        path: printable path relative to the data folder.
        reason: why it is not used, in plain words.
    """

    path: str
    reason: str


def printable(path: str) -> str:
    """Returns a file name as valid UTF-8 on one line.

    Args:
        path: a name from the file system, where bytes that are no UTF-8 are kept as surrogates.

    Returns:
        The same text for ordinary names; control characters and stray bytes appear as backslash escapes.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace").translate(_BREAKING)


def enumerated(names: Collection[str]) -> str:
    """Returns the first of these names for a sentence: printable, in alphabetical order, separated by commas."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, sorted(names)[:_NAMED])) + more
