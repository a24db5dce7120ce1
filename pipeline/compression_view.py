"""What the terminal shows of a compression: how far it is, and the table of its variants."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pipeline.compress import VARIANTS_DIRECTORY
from pipeline.progress import ReportLines, report_text
from pipeline.status_line import StatusLine
from trainer_module.progress import COMPRESSION

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from pipeline.workspace import Workspace


class CompressionProgress(StatusLine):
    """Names each variant as its file appears and says what is being done, in a terminal on a status line."""

    def __init__(self, workspace: Workspace, console: Console) -> None:
        """Creates the view; use it as a context manager.

        Args:
            workspace: Where the compression works.
            console: Where to write.
        """
        super().__init__(console)
        self._directory = workspace.compressed_partial / VARIANTS_DIRECTORY
        self._reports = workspace.progress_file
        self._lines = ReportLines(console)
        self._shown: set[str] = set()

    def poll(self) -> None:
        """Shows what is new."""
        for _, name, size in _variants(self._directory):
            if name not in self._shown:
                self._shown.add(name)
                self._console.print(f"{name}: {size:,} bytes", highlight=False)
        reports = json.loads(self._reports.read_text(encoding="utf-8")) if self._reports.exists() else {}
        if COMPRESSION not in reports:
            return
        if self._console.is_terminal:
            self._status.update(report_text(reports[COMPRESSION]))
        else:
            self._lines.tell(COMPRESSION, reports[COMPRESSION])


def _variants(directory: Path) -> list[tuple[int, str, int]]:
    """Lists time, name and size of the variants' files, oldest first."""
    found = []
    # When all is done, the folder is renamed, maybe at this very moment.
    with contextlib.suppress(FileNotFoundError):
        for path in directory.glob("*.tflite"):
            status = path.stat()
            found.append((status.st_mtime_ns, path.stem, status.st_size))
    return sorted(found)


def compression_table(report: dict[str, Any]) -> Table:
    """Makes the table of all variants, the selected one marked.

    Args:
        report: Content of report.json.

    Returns:
        The table.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("Variant")
    for heading in ("Bytes", "Deflated", "x naive", "Accuracy", "Agreement", "Latency ms", "Zeros"):
        table.add_column(heading, justify="right")
    for row in report["variants"]:
        mark = " *" if row["name"] == report["selected"] else ""
        table.add_row(
            row["name"] + mark,
            f"{row['bytes']:,}",
            f"{row['deflated_bytes']:,}",
            f"{row['times_smaller_than_naive']:,.0f}",
            f"{100 * row['accuracy']:.2f} %",
            f"{100 * row['agreement']:.2f} %",
            f"{row['latency_ms']:.3f}",
            f"{100 * row['sparsity']:.0f} %",
            style="" if row["within_budget"] else "dim",
        )
    return table
