"""Directories of versions that model servers watch, local or on any file system that TensorFlow knows."""

from __future__ import annotations

import contextlib
import errno
import getpass
import hashlib
import posixpath
import re
import socket
import time
import uuid
from typing import TYPE_CHECKING

from components.file_systems import file_errors, file_system
from trainer_module.bundle_files import DESCRIPTION_FILE, LABELS_FILE, TFLITE_FILE
from trainer_module.uri import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Model servers look only at directories whose name is a number.
_STAGING_PREFIX = ".staging-"
_REMOVED_PREFIX = ".removed-"
_HIDDEN = re.compile(rf"(?:{re.escape(_STAGING_PREFIX)}|{re.escape(_REMOVED_PREFIX)})(\d+)(?:-[0-9a-f]+)?", re.ASCII)
# Without these no server takes a version for one.
_LAST_FILES = ("saved_model.pb", DESCRIPTION_FILE)
# Some of these are there before.
_FIRST_FILES = ("variables", "assets", "fingerprint.pb", TFLITE_FILE, LABELS_FILE)
# What is younger may be another run's, which is at work on it.
_LEFTOVER_SECONDS = 24 * 60 * 60
# Versions are times; a smaller number is another program's.
_FIRST_VERSION = 1_500_000_000


def versions(base: str) -> list[int]:
    """Returns the numbers that are taken in a directory of versions, in ascending order; none where it does not exist.

    Whoever wants what can be served asks for `whole_versions` or `latest_whole_versions`.
    """
    return sorted(int(name) for name in _names(base) if name.isascii() and name.isdigit())


def whole_versions(base: str) -> list[int]:
    """Returns the versions that servers load, in ascending order.

    Object stores have no rename, so a push that was killed there leaves a version without its last file.
    """
    return sorted(latest_whole_versions(base))


def latest_whole_versions(base: str) -> Iterator[int]:
    """Yields the versions that servers load, the newest first, and looks no further than it is asked to."""
    for version in reversed(versions(base)):
        if _is_whole(posixpath.join(base, str(version))):
            yield version


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
    version = next(latest_whole_versions(base), None)
    target = posixpath.join(base, str(version))
    return target if version is not None and tree_digest(target) == digest else None


def publish(source: str, base: str, version: int) -> str:
    """Copies a model to a directory of versions; whoever watches it sees the whole version or none.

    Local and network file systems have a rename that is atomic. Object stores have none: there the file without which
    no server loads the version is copied last. What kills have left there before is removed first.

    Args:
        source: Directory with the exported model.
        base: Directory of versions, made if need be.
        version: Number of the new version; must not exist.

    Returns:
        The version's directory.

    Raises:
        RuntimeError: There is nothing to copy that a server would load.
        FileExistsError: The version exists.
        `file_errors`: The destination cannot be written, or has other bytes than the source afterwards;
            nothing of the version is left there.
    """
    if not _is_whole(source):
        # TFX's Pusher would report success all the same.
        raise RuntimeError(
            f"{source}: holds no files that a server loads ({' or '.join(_LAST_FILES)}); nothing was pushed"
        )
    target = posixpath.join(base, str(version))
    if file_system(target).exists(target):
        raise FileExistsError(f"{target} exists already")
    _remove_leftovers(base)
    written = target if is_remote(base) else posixpath.join(base, _hidden_name(_STAGING_PREFIX))
    try:
        copy_files(source, written)
        if written != target:
            file_system(target).rename(written, target)
    except BaseException:
        if file_system(written).exists(written):
            _remove_tree(written)
        raise
    return target


def copy_files(source: str, target: str) -> None:
    """Copies the files of a directory, those last without which no server loads a version.

    Args:
        source: Directory to copy.
        target: Directory, made if need be.

    Raises:
        `file_errors`: The copy cannot be written, or is not what was to be copied.
    """
    for name in sorted(_files(source), key=lambda name: (name in _LAST_FILES, name)):
        original, copy = posixpath.join(source, name), posixpath.join(target, name)
        file_system(copy).makedirs(posixpath.dirname(copy))
        file_system(original, copy).copy(original, copy, overwrite=True)
        # One by one, so that the last file is never seen beside one that is not what it should be.
        if _file_digest(copy) != _file_digest(original):
            raise OSError(errno.EIO, "the copy is not what was to be copied", copy)


def prune(base: str, keep: int | None) -> list[int]:
    """Removes all but the newest versions that servers load; `publish` sees to those that they do not.

    Args:
        base: Directory of versions.
        keep: How many to keep; None keeps all.

    Returns:
        The versions that were removed.
    """
    removed = whole_versions(base)[:-keep] if keep else []
    for version in removed:
        remove(posixpath.join(base, str(version)))
    return removed


def remove(directory: str) -> None:
    """Removes a version; where there is a rename, it goes as a whole."""
    doomed = directory
    if not is_remote(directory):
        doomed = posixpath.join(posixpath.dirname(directory), _hidden_name(_REMOVED_PREFIX))
        file_system(directory).rename(directory, doomed)
    _remove_tree(doomed)


def _remove_tree(directory: str) -> None:
    """Removes a directory; first that without which nobody takes what a kill leaves of it for a version."""
    for path in (posixpath.join(directory, name) for name in _LAST_FILES):
        if file_system(path).exists(path):
            file_system(path).remove(path)
    file_system(directory).rmtree(directory)


def _remove_leftovers(base: str) -> None:
    """Removes what killed pushes and removals left there; the number in its name is when it was begun."""
    begun = {name: int(match[1]) for name in _names(base) if (match := _HIDDEN.fullmatch(name))}
    if is_remote(base):
        # Elsewhere a version appears whole, so what is not is nothing of ours.
        begun |= {str(version): version for version in versions(base) if version >= _FIRST_VERSION}
    for name, at in begun.items():
        directory = posixpath.join(base, name)
        # No reason not to push: it may be another user's, and a run beside this one may remove it too.
        with contextlib.suppress(*file_errors()):
            if at < time.time() - _LEFTOVER_SECONDS and (_HIDDEN.fullmatch(name) or _is_half(directory)):
                file_system(directory).rmtree(directory)


def _hidden_name(prefix: str) -> str:
    """Returns a name that no server takes for a version and no other run has."""
    return f"{prefix}{int(time.time())}-{uuid.uuid4().hex}"


def _is_whole(directory: str) -> bool:
    return _has_any(directory, _LAST_FILES)


def _is_half(directory: str) -> bool:
    """Tells whether something of a model is there, but not what is copied last."""
    return _has_any(directory, _FIRST_FILES) and not _is_whole(directory)


def _has_any(directory: str, names: Iterable[str]) -> bool:
    return any(file_system(directory).exists(posixpath.join(directory, name)) for name in names)


def _names(base: str) -> list[str]:
    files = file_system(base)
    return [name.rstrip("/") for name in files.listdir(base)] if files.isdir(base) else []


def tree_digest(directory: str) -> str:
    """Returns one hex SHA-256 for all files of a directory: that of the sorted lines that sha256sum would write."""
    lines = [f"{_file_digest(posixpath.join(directory, name))}  {name}\n" for name in _files(directory)]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def who() -> str:
    """Returns who is at work, as user@host; in a container it is the workload's own identity."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A user id without a name, as containers have it.
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _file_digest(path: str) -> str:
    with file_system(path).open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _files(directory: str) -> list[str]:
    """Returns the files below a directory, relative to it."""
    root = directory.rstrip("/")
    return [
        posixpath.join(folder, name)[len(root) :].lstrip("/")
        for folder, _, names in file_system(root).walk(root)
        for name in names
    ]
