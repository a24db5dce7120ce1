"""`trimline doctor`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipeline.output_directory import DEFAULT_OUTPUT
from pipeline.terminal import Terminal
from trainer_module.errors import UserError

_STYLES = {"ok": "green", "slow": "yellow", "fault": "red"}

doctor_app = typer.Typer()


@doctor_app.command(epilog="Exit code 0 if all works, however slowly; 2 if something does not.")
def doctor(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where runs will write.")] = DEFAULT_OUTPUT,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document: what was found, each with its verdict.")
    ] = False,
) -> None:
    """Looks at this machine: does Trimline work here, and what will be slow?

    Python, the packages against requirements.lock, memory and disk (with a container's limits), cores and what they can
    do, other load, GPUs. Takes some seconds.
    """
    from pipeline.doctor import examine

    findings = list(examine(output))
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        table.add_row(verdict, finding.what, Text(finding.found + (f": {finding.advice}" if finding.advice else "")))
    Terminal(as_json=as_json).result([dataclasses.asdict(finding) for finding in findings], table)
    faults = [finding for finding in findings if finding.verdict == "fault"]
    if faults:
        first = faults[0]
        raise UserError(f"{first.what}: {first.found}; {first.advice} ({len(faults)} of {len(findings)} are faults)")
