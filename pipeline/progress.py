"""What the terminal shows while a run is under way."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.console import Console, RenderableType

    from pipeline.metadata import ComponentRun

_MARKS = {"done": ("✓", "green"), "cached": ("✓", "cyan"), "failed": ("✗", "red")}
_WAITING = ("·", "dim")
_BAR_WIDTH = 24
# As Keras calls them, and as people do.
_METRICS = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.1%}",
    "val_accuracy": "validation {:.1%}",
    "val_balanced_accuracy": "balanced {:.1%}",
}

# What each component waits for, by name.
Graph = dict[str, list[str]]
# See `trainer_module.progress.report`.
Report = dict[str, Any]


class Progress(Protocol):
    """Anything that can be told how a run is getting on."""

    def update(self, components: list[ComponentRun], graph: Graph, reports: Mapping[str, Report]) -> None:
        """Takes the components that have started, what each waits for, and what they last said of themselves."""
        ...


class LiveProgress:
    """The whole graph with states and times, changing in place, for terminals."""

    def __init__(self, console: Console) -> None:
        """Creates the view; use it as a context manager.

        Args:
            console: Where to draw.
        """
        self._started = time.monotonic()
        self._spinner = Spinner("dots")
        self._live = Live(Spinner("dots", "starting: loading TensorFlow"), console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        """Starts drawing."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops drawing and leaves the last picture."""
        # Where the terminal was closed, that is what ends the run, not that nothing can be drawn there.
        with contextlib.suppress(OSError):
            self._live.stop()

    def update(self, components: list[ComponentRun], graph: Graph, reports: Mapping[str, Report]) -> None:
        """Draws the graph from top to bottom; what may run side by side is joined by a bracket."""
        known = {component.name: component for component in components}
        table = Table.grid(padding=(0, 1))
        for name, bracket in layout(graph):
            table.add_row(*self._row(bracket, name, known.get(name), reports.get(name)))
        ended = sum(component.state != "running" for component in components)
        elapsed = time.monotonic() - self._started
        footer = Text(f"{ended} of {len(graph)} components, {elapsed:.0f} s; Ctrl-C stops", style="dim")
        warnings = [Text(f"Warning: {warning}", style="yellow") for _, warning in _warnings(reports)]
        self._live.update(Group(table, *warnings, footer))

    def _row(
        self, bracket: str, name: str, component: ComponentRun | None, report: Report | None
    ) -> list[RenderableType]:
        if component is None:
            return [Text(_WAITING[0], style="dim"), bracket, Text(name, style="dim"), "", ""]
        if component.state == "running":
            elapsed = f"{max(0.0, time.time() - component.started):.0f} s"
            return [self._spinner, bracket, name, elapsed, _details(report) if report else ""]
        mark, colour = _MARKS[component.state]
        return [Text(mark, style=colour), bracket, name, *_time_and_note(component)]


class PlainProgress:
    """A line for every event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        """Creates the view.

        Args:
            console: Where to write.
        """
        self._console = console
        self._lines = ReportLines(console)
        self._states: dict[str, str] = {}
        self._warned: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        """Does nothing; the view is used like the live one."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing."""

    def update(self, components: list[ComponentRun], graph: Graph, reports: Mapping[str, Report]) -> None:
        """Writes a line for every component that starts or ends, all that it begins to do, every epoch and warning."""
        del graph
        for component in components:
            if self._states.get(component.name) != component.state:
                self._states[component.name] = component.state
                _print_line(self._console, f"{component.name}: {_state_text(component)}")
            if component.state == "running" and component.name in reports:
                self._lines.tell(component.name, reports[component.name])
        for name, warning in _warnings(reports):
            if (name, warning) not in self._warned:
                self._warned.add((name, warning))
                _print_line(self._console, f"{name}: warning: {warning}")


class ReportLines:
    """A line for all that a component begins to do, and for every epoch."""

    def __init__(self, console: Console) -> None:
        """Starts with nothing told.

        Args:
            console: Where to write.
        """
        self._console = console
        self._told: dict[str, tuple[str, int]] = {}

    def tell(self, name: str, report: Report) -> None:
        """Writes a line if a component's report says anything new."""
        finished = report.get("finished") or {}
        latest = report["doing"], finished.get("epoch", 0)
        if self._told.get(name) != latest:
            self._told[name] = latest
            _print_line(self._console, f"{name}: {report_text(report | finished) if finished else report['doing']}")


def layout(graph: Graph) -> list[tuple[str, str]]:
    """Orders the components so that each stands below all that it waits for.

    Args:
        graph: What each component waits for, by name.

    Returns:
        Names, each with the bracket that joins it to those beside which it may run; "" if it is alone.
    """
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max((depth(upstream) for upstream in graph.get(name, ())), default=0)
        return depths[name]

    rows: list[tuple[str, str]] = []
    for _, beside in itertools.groupby(sorted(graph, key=depth), key=depth):
        names = list(beside)
        brackets = ["┌", *"├" * (len(names) - 2), "└"] if len(names) > 1 else [""]
        rows += zip(names, brackets, strict=True)
    return rows


def report_text(report: Report) -> str:
    """Says in a line what a component is doing, how far it is, and its metrics."""
    return ", ".join(part for part in (report["doing"], _position(report), _metrics(report)) if part)


def _warnings(reports: Mapping[str, Report]) -> list[tuple[str, str]]:
    return [(name, warning) for name, report in reports.items() for warning in report.get("warnings", ())]


def _print_line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _details(report: Report) -> RenderableType:
    if "epoch" not in report:
        return report["doing"]
    done = (report["epoch"] - 1) * report["steps"] + report["step"]
    bar = Table.grid(padding=(0, 1))
    total = report["epochs"] * report["steps"]
    bar.add_row(ProgressBar(total=total, completed=done, width=_BAR_WIDTH), _position(report))
    validated = {name: value for name, value in _finished_metrics(report).items() if name.startswith("val_")}
    return Group(report["doing"], bar, _metrics({"metrics": report["metrics"] | validated}))


def _finished_metrics(report: Report) -> dict[str, float | None]:
    return (report.get("finished") or {}).get("metrics", {})


def _position(report: Report) -> str:
    return f"epoch {report['epoch']}/{report['epochs']}" if "epoch" in report else ""


def _metrics(report: Report) -> str:
    metrics = report.get("metrics", {})
    known = [form.format(metrics[name]) for name, form in _METRICS.items() if metrics.get(name) is not None]
    return ", ".join(known).replace("%", " %")


def _time_and_note(component: ComponentRun) -> tuple[str, str]:
    if component.state == "cached":
        return "", "from cache"
    return f"{component.seconds:.1f} s", "failed" if component.state == "failed" else ""


def _state_text(component: ComponentRun) -> str:
    if component.state == "running":
        return "started"
    return " ".join(part for part in _time_and_note(component) if part)
