"""The commands that show runs: report, compare, tensorboard."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.output_directory import DEFAULT_OUTPUT, OutArgument, OutOption, chosen_output, finished_workspace
from pipeline.quiet import library_noise_hidden
from pipeline.terminal import Terminal
from pipeline.workspace import Workspace
from trainer_module.errors import UserError
from trainer_module.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.report.comparison import Row

app = typer.Typer()

OpenOption = Annotated[bool, typer.Option("--open/--no-open", help="Show it in the browser.")]


@app.command(
    epilog="Examples: `trimline report out/`; `trimline report out/ --rebuild --no-open`. "
    "docs/report.md says what the page shows and how to read it."
)
def report(
    out: OutArgument = None,
    output: OutOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Write it anew from the metadata and artifacts.")] = False,
    show: OpenOption = True,
) -> None:
    """Opens the report of the latest run; writes it and the model card first if they are not there."""
    workspace = finished_workspace(chosen_output(out, output))
    if rebuild or not workspace.report.exists():
        workspace.prepare()
        # Decides which Keras TFX takes, when it is imported.
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
        with workspace.locked(), library_noise_hidden():
            from pipeline.summary import rebuild_report

            rebuild_report(workspace)
    _show(workspace.report, show)


@app.command(
    epilog="Examples: `trimline compare out/ other-out/`; "
    "`trimline compare 20260102-101500.123456 20260103-090000.654321 --output out/`."
)
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="An output directory, or a run that status lists.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The same; differences are this one less the first.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where runs are looked up.")] = DEFAULT_OUTPUT,
    html: Annotated[
        Path | None, typer.Option(help="The page; default: report/comparison.html where the second run is.")
    ] = None,
    show: OpenOption = False,
) -> None:
    """Sets two finished runs side by side, as a table and as a page: figures, variants, settings, classes."""
    from pipeline.report.comparison import compare as compare_runs
    from pipeline.report.comparison import read_run
    from pipeline.report.comparison_page import render_comparison

    comparison = compare_runs(read_run(first, output), read_run(second, output))
    names = (first, second) if first != second else (f"{first} (first)", f"{second} (second)")
    parts = (("", comparison.figures), ("Setting", comparison.settings), ("Class", comparison.classes))
    Terminal().result(None, *(_table(heading, names, rows) for heading, rows in parts if rows))
    file = html or Workspace(Path(second) if Path(second).is_dir() else output).comparison
    _write(file, render_comparison(comparison, names))
    _show(file, show)


@app.command(
    epilog="Example: `trimline tensorboard out/ --port 6007`. The logs are those of every training in OUT, "
    "each under the id of its artifact in the metadata store."
)
def tensorboard(
    out: OutArgument = None,
    output: OutOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 6006,
) -> None:
    """Starts TensorBoard on the trainings of an output directory."""
    chosen = chosen_output(out, output)
    logs = Workspace(chosen).training_logs
    if not any(logs.glob("**/*tfevents*")):
        raise UserError(f"{chosen}: no training has left logs there; start one with trimline run --output {chosen}")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", host, "--port", str(port)]
    os.execv(command[0], command)  # noqa: S606


def _table(heading: str, names: tuple[str, str], rows: Sequence[Row]) -> Table:
    table = Table(heading, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in (*names, "Difference" if any(row.difference for row in rows) else ""):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.name, *row.values, row.difference)
    return table


def _write(file: Path, content: str) -> None:
    try:
        write_whole(file, content)
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}; choose another --html") from None


def _show(file: Path, show: bool) -> None:
    typer.echo(file)
    if show:
        webbrowser.open(file.absolute().as_uri())
