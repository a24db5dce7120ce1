"""Directories elsewhere; this module imports nothing, so that commands start fast."""


def is_remote(path: str) -> bool:
    """Tells whether a path is a URI of a file system other than the machine's own."""
    return "://" in path
