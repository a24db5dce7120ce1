"""Putting a release somewhere: trimline push and trimline rollback."""

from __future__ import annotations

import dataclasses
import posixpath
import time
from typing import TYPE_CHECKING

from components.atomic_pusher import destination
from components.file_systems import file_errors, file_system, reason
from pipeline.destinations import push_directories
from pipeline.launch import signals_ignored, signals_raise
from pipeline.ledger import Kind, Ledger, Push, Release
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.workspace import Workspace


# Where TFX puts the exported model in its artifact.
_SERVING_FOLDER = "Format-Serving"


@dataclasses.dataclass(frozen=True)
class Pushed:
    """What a push came to.

    Attributes:
        paths: Directory of the new version of each artifact.
        release: What was pushed.
    """

    paths: Mapping[str, str]
    release: Release


def push(
    workspace: Workspace, directories: Mapping[str, str], version: int | None = None, keep: int | None = None
) -> Pushed:
    """Copies a release to another place.

    Args:
        workspace: Output directory of the run that made it.
        directories: The directory of versions of each artifact; may be URIs.
        version: A version that the run pushed; None takes what is live.
        keep: Versions to keep there; None keeps all.

    Raises:
        UserError: There is no such release, its files are not what was blessed, or the destination cannot be written.
    """
    ledger = Ledger(workspace.metadata_file, writable=True)
    pushes = ledger.pushes()
    own = push_directories(workspace.read_settings(), workspace)
    if version is None:
        chosen = _live(pushes, own["saved_model"])
        missing = f"{workspace.root}: no blessed model is live there; run the pipeline until it ends blessed"
    else:
        named = [push for push in pushes if push.version == version]
        # Elsewhere the same number may be another release: versions are seconds, or one more than the one before.
        of_the_run = [push for push in named if posixpath.dirname(push.path) in own.values()]
        chosen = next(reversed(of_the_run or named), None)
        missing = f"{workspace.root}: no version {version} was pushed there; trimline status lists those that were"
    if chosen is None or chosen.release is None:
        raise UserError(missing)
    return _publish(ledger, chosen.release, directories, "push", keep)


def rollback(
    workspace: Workspace, directories: Mapping[str, str], version: int | None = None, keep: int | None = None
) -> Pushed:
    """Makes an earlier release live again.

    Servers load the highest version, and what a version holds must not change. So the earlier release is pushed again,
    under a new version.

    Args:
        workspace: Output directory of the run that made it.
        directories: The directory of versions of each artifact.
        version: The version to go back to; None takes the release before the live one.
        keep: Versions to keep there; None keeps all.

    Raises:
        UserError: There is nothing to go back to, or see `push`.
    """
    ledger = Ledger(workspace.metadata_file, writable=True)
    here = [push for push in ledger.pushes() if posixpath.dirname(push.path) in directories.values()]
    live = _live(here, directories["saved_model"])
    if live is None or live.release is None:
        raise UserError(
            f"{directories['saved_model']}: nothing that was pushed is live there, so nothing to go back from"
        )
    release = _earlier(here, live.release, version)
    if release is None:
        wanted = f"version {version} is no earlier release" if version else "no earlier release was pushed"
        raise UserError(f"{directories['saved_model']}: {wanted} there; trimline status lists what was")
    return _publish(ledger, release, directories, "rollback", keep)


def _live(pushes: Sequence[Push], directory: str) -> Push | None:
    """Returns the push that is live; None if there is none, or what is live was not pushed from here.

    A push that was killed before it could be recorded left a version of a known release: it has not happened.
    """
    known = {push.sha256 for push in pushes}
    for version in destination.latest_whole_versions(directory):
        path = posixpath.join(directory, str(version))
        recorded = next((push for push in reversed(pushes) if push.path == path), None)
        if recorded or destination.tree_digest(path) not in known:
            return recorded
    return None


def _earlier(pushes: Sequence[Push], live: Release, version: int | None) -> Release | None:
    """Returns the release before the live one, or that of a version, if it is another one than is live."""
    releases = [push.release for push in pushes if push.release and (version is None or push.version == version)]
    if version is None:
        releases = [release for release in releases if release.id < live.id]
    others = [release for release in releases if release.id != live.id]
    return max(others, key=lambda release: release.id, default=None)


def _publish(ledger: Ledger, release: Release, directories: Mapping[str, str], kind: Kind, keep: int | None) -> Pushed:
    """Publishes both artifacts under one new version, or neither."""
    sources = {name: posixpath.join(uri, _SERVING_FOLDER) for name, uri in release.uris.items()}
    digests = {name: _checked_digest(ledger, release, name, source) for name, source in sources.items()}
    try:
        with signals_raise("stopped; nothing was pushed"):
            paths = _publish_and_record(ledger, release, sources, directories, kind, digests)
    except file_errors() as error:
        raise UserError(
            f"{' and '.join(directories.values())}: cannot be written, nothing was pushed: {reason(error)}"
        ) from None
    for directory in directories.values():
        destination.prune(directory, keep)
    return Pushed(paths, release)


def _publish_and_record(
    ledger: Ledger,
    release: Release,
    sources: Mapping[str, str],
    directories: Mapping[str, str],
    kind: Kind,
    digests: Mapping[str, str],
) -> dict[str, str]:
    """Returns the paths of the new version; whatever stops it on the way, none of it stays there."""
    paths: dict[str, str] = {}
    try:
        version = destination.next_version(*directories.values())
        for name, source in sources.items():
            paths[name] = posixpath.join(directories[name], str(version))
            try:
                destination.publish(source, directories[name], version)
            except FileExistsError:
                # Another push made it in this very second.
                del paths[name]
                raise
        now, who = time.time(), destination.who()
        pushed = {
            name: Push(name, release, path, version, who, now, kind, digests[name]) for name, path in paths.items()
        }
        ledger.record(release, pushed)
    except BaseException:
        with signals_ignored():
            for path in paths.values():
                if file_system(path).isdir(path):
                    destination.remove(path)
        raise
    return paths


def _checked_digest(ledger: Ledger, release: Release, name: str, source: str) -> str:
    """Returns the digest of an artifact's files, which must be that of when it was first pushed."""
    if not file_system(source).isdir(source):
        raise UserError(f"{source}: the files of the release are gone; run the pipeline again")
    digest = destination.tree_digest(source)
    known = [
        push.sha256
        for push in ledger.pushes()
        if push.artifact == name and push.release and push.release.id == release.id and push.sha256
    ]
    if known and digest != known[0]:
        raise UserError(f"{source}: its files are not those that were blessed and pushed; run the pipeline again")
    return digest
