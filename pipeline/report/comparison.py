"""Two runs side by side, from their summaries."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.report.texts import NO_VALUE, percent
from pipeline.workspace import Workspace
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PLACES = 6


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of both runs, as text.

    Attributes:
        name: What it is.
        values: Of the first and of the second run; a dash where it has none.
        difference: Second less first, or "same"; "" where that says nothing.
    """

    name: str
    values: tuple[str, str]
    difference: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        summaries: The content of both summary.json.
        figures: What became of the runs.
        settings: The settings that differ.
        classes: Test accuracy of each class, those first that differ most.
    """

    summaries: tuple[Mapping[str, Any], Mapping[str, Any]]
    figures: tuple[Row, ...]
    settings: tuple[Row, ...]
    classes: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class _Figure:
    """How a figure is found and told."""

    name: str
    read: Callable[[Mapping[str, Any]], Any]
    tell: Callable[[Any], str] = str
    # What the difference is told in; "" where there is none to tell.
    unit: str = ""


def _count(value: float) -> str:
    return f"{value:,}"


_FIGURES = (
    _Figure("Verdict", lambda s: s["status"]),
    _Figure("Photos used", lambda s: s["images"]["used"], _count, "number"),
    _Figure("Quarantined", lambda s: s["images"]["quarantined"], _count, "number"),
    _Figure("Shipped variant", lambda s: s["shipped"]["name"]),
    _Figure("Test accuracy", lambda s: s["shipped"]["accuracy"], percent, "points"),
    _Figure("Float model", lambda s: s["model"]["accuracy"], percent, "points"),
    _Figure("Bytes", lambda s: s["shipped"]["bytes"], _count, "share"),
    _Figure("Deflated", lambda s: s["shipped"]["deflated_bytes"], _count, "share"),
    _Figure("Latency, ms", lambda s: s["shipped"]["latency_ms"], lambda value: f"{value:.3f}", "share"),
    _Figure("Parameters", lambda s: s["model"]["params"], _count, "share"),
    _Figure("Epochs", lambda s: s["model"]["epochs"], _count, "number"),
    _Figure("Training, s", lambda s: s["model"]["train_seconds"], lambda value: f"{value:.1f}", "share"),
    _Figure("Precision of training", lambda s: s["acceleration"]["chosen"]["precision"]),
)


def read_run(name: str, output: Path) -> dict[str, Any]:
    """Reads the summary of a run.

    Args:
        name: An output directory, which stands for its latest finished run, or the id of a run.
        output: The output directory whose runs ids are looked up in.

    Returns:
        The content of its summary.json.

    Raises:
        UserError: There is no such run, or its summary cannot be read.
    """
    if name and Path(name).is_dir():
        file = Workspace(Path(name)).summary_file
        if not file.exists():
            raise UserError(f"{name}: no run has finished there; start one with trimline run --output {name}")
        return _read(file)
    runs = Workspace(output).run_summaries
    known = sorted(path.stem for path in runs.glob("*.json"))
    if name not in known:
        some = f"runs of {output}: {', '.join(known[-5:])}" if known else f"{output} has no finished run"
        raise UserError(f"{name}: neither an output directory nor a run; {some}")
    return _read(runs / f"{name}.json")


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Sets two runs side by side.

    Args:
        first: Content of a summary.json.
        second: Content of another.

    Returns:
        Their figures, the settings that differ, and the classes.
    """
    both = (first, second)
    return Comparison(
        summaries=both,
        figures=tuple(_figure_row(figure, both) for figure in _FIGURES),
        settings=tuple(_setting_rows(both)),
        classes=tuple(_class_rows(both)),
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as a summary: {error}; run the pipeline again") from None


def _figure_row(figure: _Figure, both: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Row:
    values = [_value(figure, summary) for summary in both]
    told = tuple(NO_VALUE if value is None else figure.tell(value) for value in values)
    known = [value for value in values if value is not None]
    difference = _difference(known[0], known[1], figure.unit) if len(known) == 2 and figure.unit else ""
    return Row(figure.name, (told[0], told[1]), difference)


def _value(figure: _Figure, summary: Mapping[str, Any]) -> Any:
    try:
        return figure.read(summary)
    except (KeyError, TypeError):
        # A run of another version, or one that did not get so far.
        return None


def _difference(first: float, second: float, unit: str) -> str:
    change = second - first
    if not change:
        return "same"
    if unit == "points":
        return f"{100 * change:+.2f} points"
    if unit == "share":
        return f"{100 * change / first:+.1f} %" if first else ""
    return f"{change:+,}"


def _setting_rows(both: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Iterator[Row]:
    first, second = (dict(flat_settings(summary.get("settings") or {})) for summary in both)
    for key in first | second:
        values = (first.get(key), second.get(key))
        if values[0] != values[1]:
            yield Row(key, (json.dumps(values[0]), json.dumps(values[1])))


def _class_rows(both: tuple[Mapping[str, Any], Mapping[str, Any]]) -> list[Row]:
    first, second = ((summary.get("shipped") or {}).get("class_accuracy", {}) for summary in both)
    changes = {name: second[name] - first[name] for name in first if name in second}
    names = sorted(first | second, key=lambda name: (-round(abs(changes.get(name, 0.0)), _PLACES), name))
    return [
        Row(
            name,
            (percent(first.get(name)), percent(second.get(name))),
            _difference(first[name], second[name], "points") if name in changes else "",
        )
        for name in names
    ]


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every setting of a tree with its full key."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
