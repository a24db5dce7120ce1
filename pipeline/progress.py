"""What the terminal shows while a run is under way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType

    from pipeline.metadata import ComponentRun

_MARKS = {"done": ("✓", "green"), "cached": ("✓", "cyan"), "failed": ("✗", "red")}
_TRAINER = "Trainer"


class Progress(Protocol):
    """Anything that can be told how a run is getting on."""

    def update(self, components: list[ComponentRun], training: dict[str, Any] | None) -> None:
        """Takes the components that have started, in order, and the Trainer's latest progress."""
        ...


class LiveProgress:
    """A table that changes in place, for terminals."""

    def __init__(self, console: Console) -> None:
        """Creates the view; use it as a context manager.

        Args:
            console: Where to draw.
        """
        self._live = Live(Spinner("dots", "starting: loading TensorFlow"), console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        """Starts drawing."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops drawing and leaves the last picture."""
        self._live.stop()

    def update(self, components: list[ComponentRun], training: dict[str, Any] | None) -> None:
        """Draws the components with state and time, and the progress of the training."""
        if not components:
            return
        table = Table.grid(padding=(0, 2))
        for component in components:
            table.add_row(*_row(component, training))
        self._live.update(table)


class PlainProgress:
    """A line for every event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        """Creates the view.

        Args:
            console: Where to write.
        """
        self._console = console
        self._states: dict[str, str] = {}
        self._epoch = 0

    def __enter__(self) -> Self:
        """Does nothing; the view is used like the live one."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing."""

    def update(self, components: list[ComponentRun], training: dict[str, Any] | None) -> None:
        """Writes a line for every component that has started or ended and for every epoch that has ended."""
        for component in components:
            if self._states.get(component.name) != component.state:
                self._states[component.name] = component.state
                self._line(f"{component.name}: {_state_text(component)}")
        if training and self._states.get(_TRAINER) == "running":
            self._report_epoch(training)

    def _report_epoch(self, training: dict[str, Any]) -> None:
        finished = _steps_done(training) // training["steps"]
        if finished > self._epoch:
            self._epoch = finished
            self._line(f"{_TRAINER}: {_training_text(training)}")

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _row(component: ComponentRun, training: dict[str, Any] | None) -> list[RenderableType]:
    if component.state == "running":
        elapsed = f"{max(0.0, time.time() - component.started):.0f} s"
        details: RenderableType = ""
        if component.name == _TRAINER and training:
            bar = ProgressBar(total=training["epochs"] * training["steps"], completed=_steps_done(training), width=24)
            details = Table.grid(padding=(0, 1))
            details.add_row(bar, _training_text(training))
        return [Spinner("dots"), component.name, elapsed, details]
    mark, colour = _MARKS[component.state]
    return [Text(mark, style=colour), component.name, *_time_and_note(component)]


def _time_and_note(component: ComponentRun) -> tuple[str, str]:
    if component.state == "cached":
        return "", "from cache"
    return f"{component.seconds:.1f} s", "failed" if component.state == "failed" else ""


def _state_text(component: ComponentRun) -> str:
    if component.state == "running":
        return "started"
    return " ".join(part for part in _time_and_note(component) if part)


def _steps_done(training: dict[str, Any]) -> int:
    return (training["epoch"] - 1) * training["steps"] + training["step"]


def _training_text(training: dict[str, Any]) -> str:
    parts = [f"epoch {training['epoch']}/{training['epochs']}"]
    if training["accuracy"] is not None:
        parts.append(f"accuracy {100 * training['accuracy']:.1f} %")
    if training["validation_accuracy"] is not None:
        parts.append(f"validation {100 * training['validation_accuracy']:.1f} %")
    return ", ".join(parts)
