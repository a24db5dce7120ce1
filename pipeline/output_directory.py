"""The output directory on the command line: all commands take --output, those that only show a run OUT as well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

DEFAULT_OUTPUT = Path("out")
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Output directory of the run.")]
OutArgument = Annotated[
    Path | None, typer.Argument(metavar="OUT", help="Output directory of a run; default: out.", show_default=False)
]
OutOption = Annotated[Path | None, typer.Option("--output", "-o", help="The same as OUT.", show_default=False)]


def chosen_output(argument: Path | None, option: Path | None) -> Path:
    """Returns the output directory of a command that takes it as OUT and as --output.

    Raises:
        UserError: If both are given, and differ.
    """
    if argument and option and argument != option:
        raise UserError(f"OUT is {argument}, but --output is {option}; give one of them")
    return argument or option or DEFAULT_OUTPUT


def finished_workspace(output: Path) -> Workspace:
    """Returns the workspace of an output directory in which something has run.

    Raises:
        UserError: If nothing has.
    """
    from pipeline.workspace import Workspace

    workspace = Workspace(output)
    if not workspace.metadata_file.exists():
        raise UserError(f"{output}: no run has been recorded there; start one with trimline run --output {output}")
    return workspace
