"""The runs of an output directory, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from pipeline.metadata import ComponentRun, Metadata

if TYPE_CHECKING:
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
