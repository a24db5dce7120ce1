"""The runs and pushes of an output directory, for programs and as tables."""

from __future__ import annotations

import posixpath
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from components.file_systems import file_errors, file_system
from pipeline.destinations import live_pushes
from pipeline.ledger import Ledger, Push
from pipeline.metadata import ComponentRun, Metadata

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def runs(metadata_file: Path) -> list[dict[str, Any]]:
    """Lists all runs, oldest first.

    Args:
        metadata_file: The SQLite metadata store.

    Returns:
        For each run: id, how many components ran, came from the cache and failed, the verdict, the pushed version.
    """
    metadata = Metadata(metadata_file)
    rows = []
    for run in metadata.runs():
        components = metadata.components(run)
        by_name = {component.name: component for component in components}
        rows.append(
            {
                "run": run,
                "components": _count(components),
                "verdict": _verdict(metadata, by_name),
                "pushed_version": _version(metadata, by_name),
            }
        )
    return rows


def pushes(metadata_file: Path) -> list[dict[str, Any]]:
    """Lists all pushes, oldest first.

    Args:
        metadata_file: The SQLite metadata store.

    Returns:
        For each: artifact, version, release (the same number is the same models), when (Unix time), by whom, how,
        where, and whether it is what servers load there now.
    """
    made = Ledger(metadata_file).pushes()
    states = _states(made)
    return [
        {
            "artifact": push.artifact,
            "version": push.version,
            "release": push.release.id if push.release else None,
            "at": push.at,
            "by": push.by,
            "how": push.kind,
            "state": states[push.path],
            "path": push.path,
        }
        for push in made
    ]


def status_table(rows: list[dict[str, Any]]) -> Table:
    """Tabulates what `runs` lists."""
    table = Table("Run", "Components", "Verdict", "Pushed version")
    for row in rows:
        counted = ", ".join(f"{count} {word}" for word, count in row["components"].items() if count)
        table.add_row(row["run"], counted, row["verdict"], str(row["pushed_version"] or ""))
    return table


def push_table(rows: list[dict[str, Any]], root: Path | None = None) -> Table:
    """Tabulates what `pushes` lists, with the directories that servers watch; those in the root are told from there."""
    # Without lines, so that 80 columns suffice, which is what a pipe has.
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading, width in (("Version", 0), ("Release", 0), ("Pushed", 10), ("By", 12), ("How", 0), ("State", 0)):
        table.add_column(heading, no_wrap=not width, overflow="fold", max_width=width or None)
    table.add_column("Where", overflow="fold")
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
        release = str(row["release"] or "unknown")
        where = posixpath.dirname(row["path"]).removeprefix(f"{root}/")
        table.add_row(str(row["version"]), release, when, row["by"], row["how"], row["state"], where)
    return table


def _states(pushes: Sequence[Push]) -> dict[str, str]:
    """Says of every pushed path whether it is live, there, removed or cannot be reached."""
    states: dict[str, str] = {}
    by_directory = defaultdict(list)
    for push in pushes:
        by_directory[posixpath.dirname(push.path)].append(push)
    for directory, here in by_directory.items():
        try:
            live = live_pushes(here, {"": directory})[""]
            for push in here:
                is_there = push is live or file_system(directory).isdir(push.path)
                states[push.path] = "live" if push is live else "there" if is_there else "removed"
        except file_errors():
            states |= {push.path: "not reachable" for push in here}
    return states


def _count(components: list[ComponentRun]) -> dict[str, int]:
    words = {"ran": "done", "cached": "cached", "failed": "failed"}
    return {word: sum(component.state == state for component in components) for word, state in words.items()}


def _verdict(metadata: Metadata, components: dict[str, ComponentRun]) -> str:
    if "ReleaseGate" not in components:
        ended = {component.state for component in components.values()} <= {"done", "cached"}
        # That is as far as trimline ladder and trimline compress need it.
        return "data prepared" if ended and next(reversed(components), None) == "Transform" else "not finished"
    blessing = metadata.output(components["ReleaseGate"], "blessing")
    if blessing is None:
        return "not finished"
    refused_by = blessing.properties.get("refused_by")
    return f"refused by {refused_by}" if refused_by else "blessed"


def _version(metadata: Metadata, components: dict[str, ComponentRun]) -> int | None:
    if "PusherTFLite" not in components:
        return None
    pushed = metadata.output(components["PusherTFLite"], "pushed_model")
    version = pushed.properties.get("pushed_version") if pushed else None
    return int(version) if version else None
