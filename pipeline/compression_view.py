"""What the terminal shows of a compression: how far it is, and the table of its variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


class CompressionProgress:
    """Names each variant as its file appears."""

    def __init__(self, directory: Path, console: Console) -> None:
        """Creates the view.

        Args:
            directory: Where the .tflite files appear; it need not exist yet.
            console: Where to write.
        """
        self._directory = directory
        self._console = console
        self._shown: set[str] = set()

    def poll(self) -> None:
        """Shows what is new."""
        files = sorted(self._directory.glob("*.tflite"), key=lambda path: path.stat().st_mtime)
        for path in files:
            if path.stem not in self._shown:
                self._shown.add(path.stem)
                self._console.print(f"{path.stem}: {path.stat().st_size:,} bytes")


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
