"""What the terminal shows of the ladder: its progress, and its table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pipeline.ladder_table import HEADINGS, ladder_rows
from pipeline.status_line import StatusLine

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from pipeline.ladder_table import Row


class LadderProgress(StatusLine):
    """Follows the ladder's progress file: a status line in a terminal, else a line for each epoch of all rungs."""

    def __init__(self, path: Path, console: Console) -> None:
        """Creates the view; use it as a context manager.

        Args:
            path: The progress file; it need not exist yet.
            console: Where to write.
        """
        super().__init__(console)
        self._path = path
        self._epoch = 0

    def poll(self) -> None:
        """Shows the latest progress."""
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines()
        if not lines:
            return
        latest = json.loads(lines[-1])
        text = f"epoch {latest['epoch']}/{latest['epochs']}, {latest['rung']}: {latest['seconds']:.1f} s"
        if self._console.is_terminal:
            self._status.update(text)
        elif latest["epoch"] > self._epoch:
            self._epoch = latest["epoch"]
            self._console.print(text, highlight=False)


def ladder_table(rungs: list[dict[str, Any]], lesson: list[dict[str, Any]]) -> Table:
    """Tabulates the rungs beside the lesson's own figures.

    Args:
        rungs: As in ladder.json, bottom first.
        lesson: The lesson's rungs; what it does not tell is missing.

    Returns:
        A row for each rung, and what the last saves against the first.
    """
    table = Table("Rung", title="In parentheses: the lesson's own figures (one GPU, 6 classes)")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    *rows, against = ladder_rows(rungs, lesson)
    for row in rows:
        table.add_row(row.name, *_cells(row))
    table.add_section()
    table.add_row(against.name, *_cells(against))
    return table


def _cells(row: Row) -> list[str]:
    return [f"{own} ({told})" if told else own for own, told in zip(row.own, row.told, strict=True)]
