"""Where releases are pushed to."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from components.atomic_pusher.destination import latest_whole_versions
from components.file_systems import file_errors, file_system, reason
from pipeline.paths import absolute
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.config import PipelineSettings
    from pipeline.ledger import Push
    from pipeline.workspace import Workspace


def push_directories(settings: PipelineSettings, workspace: Workspace) -> dict[str, str]:
    """Returns where a run pushes to: the directory of versions of each artifact."""
    return {
        "saved_model": absolute(settings.push.saved_model_dir or str(workspace.pushed_saved_model)),
        "tflite": absolute(settings.push.tflite_dir or str(workspace.pushed_tflite)),
    }


def below(destination: str) -> dict[str, str]:
    """Returns the directories of versions below a destination that trimline push was given."""
    return {name: posixpath.join(absolute(destination), name) for name in ("saved_model", "tflite")}


def live_pushes(pushes: Sequence[Push], directories: Mapping[str, str]) -> dict[str, Push | None]:
    """Finds what is live: servers load the highest version that is whole.

    Args:
        pushes: All pushes, oldest first.
        directories: The directory of versions of each artifact.

    Returns:
        The push that each artifact's highest version came from; None where there is no version, or an unknown one.
    """
    live: dict[str, Push | None] = {}
    for name, directory in directories.items():
        path = posixpath.join(directory, str(next(latest_whole_versions(directory), "")))
        live[name] = next((push for push in reversed(pushes) if push.path == path), None)
    return live


def require_reachable(directories: Iterable[str]) -> None:
    """Asks for each directory, so that one that cannot be had is found out before anything is trained.

    Raises:
        UserError: TensorFlow knows no such file system, or cannot reach it.
    """
    for directory in directories:
        try:
            file_system(directory).exists(directory)
        except file_errors() as error:
            raise UserError(f"{directory}: nothing can be pushed there: {reason(error)}; check push.*_dir") from None
