"""Directories of versions that model servers watch, local or on any file system that TensorFlow knows."""

from __future__ import annotations

import getpass
import hashlib
import posixpath
import socket
import time

import tensorflow as tf

# Model servers look only at directories whose name is a number.
_STAGING_PREFIX = ".staging-"
_REMOVED_PREFIX = ".removed-"
# Without these no server takes a version for one.
_LAST_FILES = ("saved_model.pb", "model.json")


def versions(base: str) -> list[int]:
    """Returns the versions in a directory in ascending order; none where it does not exist."""
    if not tf.io.gfile.isdir(base):
        return []
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(base))
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def next_version(*bases: str) -> int:
    """Returns the number of a new version: the Unix time, or more where clocks went backwards, as versions never do."""
    latest = max((version for base in bases for version in versions(base)[-1:]), default=0)
    return max(int(time.time()), latest + 1)


def newest(base: str, digest: str) -> str | None:
    """Returns the newest version if it holds this very content already, else None.

    A run that was killed after it had published and before it could say so would otherwise publish twice.

    Args:
        base: Directory of versions.
        digest: The content's `tree_digest`.
    """
    for version in versions(base)[-1:]:
        target = posixpath.join(base, str(version))
        if tree_digest(target) == digest:
            return target
    return None


def publish(source: str, base: str, version: int) -> str:
    """Copies a model to a directory of versions; whoever watches it sees the whole version or none.

    Local and network file systems have a rename that is atomic. Object stores have none: there the file without which
    no server loads the version is copied last.

    Args:
        source: Directory with the exported model.
        base: Directory of versions, made if need be.
        version: Number of the new version; must not exist.

    Returns:
        The version's directory.

    Raises:
        RuntimeError: There is nothing to copy.
        FileExistsError: The version exists.
        OSError, tf.errors.OpError: The destination cannot be written; nothing of the version is left there.
    """
    files = _files(source)
    if not files:
        # TFX's Pusher would report success all the same.
        raise RuntimeError("the model's artifact holds no files; nothing was pushed")
    target = posixpath.join(base, str(version))
    if tf.io.gfile.exists(target):
        raise FileExistsError(f"{target} exists already")
    written = target if is_remote(base) else posixpath.join(base, f"{_STAGING_PREFIX}{version}")
    try:
        for name in sorted(files, key=lambda name: (name in _LAST_FILES, name)):
            copy = posixpath.join(written, name)
            tf.io.gfile.makedirs(posixpath.dirname(copy))
            tf.io.gfile.copy(posixpath.join(source, name), copy, overwrite=True)
        if written != target:
            tf.io.gfile.rename(written, target)
    except BaseException:
        if tf.io.gfile.exists(written):
            tf.io.gfile.rmtree(written)
        raise
    return target


def prune(base: str, keep: int | None) -> list[int]:
    """Removes all but the newest versions.

    Args:
        base: Directory of versions.
        keep: How many to keep; None keeps all.

    Returns:
        The versions that were removed.
    """
    removed = versions(base)[:-keep] if keep else []
    for version in removed:
        remove(posixpath.join(base, str(version)))
    return removed


def remove(directory: str) -> None:
    """Removes a version; where there is a rename, it goes as a whole."""
    doomed = directory
    if not is_remote(directory):
        base, name = posixpath.split(directory)
        doomed = posixpath.join(base, f"{_REMOVED_PREFIX}{name}")
        tf.io.gfile.rename(directory, doomed, overwrite=True)
    tf.io.gfile.rmtree(doomed)


def tree_digest(directory: str) -> str:
    """Returns one hex SHA-256 for all files of a directory: that of the sorted lines that sha256sum would write."""
    lines = []
    for name in _files(directory):
        with tf.io.gfile.GFile(posixpath.join(directory, name), "rb") as stream:
            lines.append(f"{hashlib.sha256(stream.read()).hexdigest()}  {name}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def is_remote(path: str) -> bool:
    """Tells whether a path is a URI of a file system other than the machine's own."""
    return "://" in path


def who() -> str:
    """Returns who is at work, as user@host; in a container it is the workload's own identity."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A user id without a name, as containers have it.
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _files(directory: str) -> list[str]:
    """Returns the files below a directory, relative to it."""
    root = directory.rstrip("/")
    return [
        posixpath.join(folder, name)[len(root) :].lstrip("/")
        for folder, _, names in tf.io.gfile.walk(root)
        for name in names
    ]
