"""Where releases are pushed to."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from components.atomic_pusher.destination import is_remote, versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config import PipelineSettings
    from pipeline.ledger import Push
    from pipeline.workspace import Workspace


def push_directories(settings: PipelineSettings, workspace: Workspace) -> dict[str, str]:
    """Returns where a run pushes to: the directory of versions of each artifact."""
    return {
        "saved_model": _absolute(settings.push.saved_model_dir or str(workspace.pushed_saved_model)),
        "tflite": _absolute(settings.push.tflite_dir or str(workspace.pushed_tflite)),
    }


def below(destination: str) -> dict[str, str]:
    """Returns the directories of versions below a destination that trimline push was given."""
    return {name: posixpath.join(_absolute(destination), name) for name in ("saved_model", "tflite")}


def _absolute(directory: str) -> str:
    """Makes a path mean the same from wherever it is read later: it is recorded in the metadata store."""
    return directory.rstrip("/") if is_remote(directory) else str(Path(directory).expanduser().absolute())


def live_pushes(pushes: Sequence[Push], directories: Mapping[str, str]) -> dict[str, Push | None]:
    """Finds what is live: servers load the highest version.

    Args:
        pushes: All pushes, oldest first.
        directories: The directory of versions of each artifact.

    Returns:
        The push that each artifact's highest version came from; None where there is no version, or an unknown one.
    """
    live: dict[str, Push | None] = {}
    for name, directory in directories.items():
        highest = versions(directory)[-1:]
        path = posixpath.join(directory, str(highest[0])) if highest else ""
        live[name] = next((push for push in reversed(pushes) if push.path == path), None)
    return live
