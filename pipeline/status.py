"""The runs and pushes of an output directory, as tables."""

from __future__ import annotations

import posixpath
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import tensorflow as tf
from rich.table import Table

from pipeline.destinations import live_pushes
from pipeline.ledger import Ledger, Push
from pipeline.metadata import ComponentRun, Metadata

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def status_table(metadata_file: Path) -> Table:
    """Tabulates all runs, oldest first.

    Args:
        metadata_file: The SQLite metadata store.

    Returns:
        A row for each run: when, how many components ran or came from the cache, the verdict, the pushed version.
    """
    metadata = Metadata(metadata_file)
    table = Table("Run", "Components", "Verdict", "Pushed version")
    for run in metadata.runs():
        components = metadata.components(run)
        by_name = {component.name: component for component in components}
        table.add_row(run, _count(components), _verdict(metadata, by_name), _version(metadata, by_name))
    return table


def push_table(metadata_file: Path) -> Table:
    """Tabulates all pushes, oldest first.

    Args:
        metadata_file: The SQLite metadata store.

    Returns:
        A row for each: version, release (the same number is the same models), when, by whom, how, where, and whether it
        is what servers load there now.
    """
    pushes = Ledger(metadata_file).pushes()
    states = _states(pushes)
    table = Table("Version", "Release", "Pushed", "By", "How", "State")
    for column in table.columns:
        column.no_wrap = True
    table.add_column("Where", overflow="fold", ratio=1)
    for push in pushes:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(push.at))
        release = str(push.release.id) if push.release else "unknown"
        table.add_row(str(push.version), release, when, push.by, push.kind, states[push.path], push.path)
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
                states[push.path] = "live" if push is live else "there" if tf.io.gfile.isdir(push.path) else "removed"
        except (OSError, tf.errors.OpError):
            states |= {push.path: "not reachable" for push in here}
    return states


def _count(components: list[ComponentRun]) -> str:
    states = [component.state for component in components]
    parts = [(states.count("done"), "ran"), (states.count("cached"), "cached"), (states.count("failed"), "failed")]
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def _verdict(metadata: Metadata, components: dict[str, ComponentRun]) -> str:
    if "ReleaseGate" not in components:
        return "not finished"
    blessing = metadata.output(components["ReleaseGate"], "blessing")
    if blessing is None:
        return "not finished"
    refused_by = blessing.properties.get("refused_by")
    return f"refused by {refused_by}" if refused_by else "blessed"


def _version(metadata: Metadata, components: dict[str, ComponentRun]) -> str:
    if "PusherTFLite" not in components:
        return ""
    pushed = metadata.output(components["PusherTFLite"], "pushed_model")
    return str(pushed.properties.get("pushed_version", "")) if pushed else ""
