"""`trimline data`: what can be said of a data folder before a run."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from pipeline.config import load_settings
from pipeline.quiet import library_noise_hidden
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from components.image_example_gen.engine.check import Finding
    from components.image_example_gen.engine.settings import IngestSettings

app = typer.Typer(no_args_is_help=True, help="Looks at a data folder.")


@app.callback()
def _group() -> None:
    """Makes `check` a command of its own even while it is the only one."""


@app.command(
    epilog="Examples: `trimline data check photos/`; `trimline data check photos/ --json`; "
    "`--set data.max_quarantined=0` accepts no bad file at all. Exit codes: 0 a run would go on with this "
    "folder, 2 it would stop."
)
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Class-per-folder tree of photos.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting; wins over --config.")
    ] = None,
) -> None:
    """Runs ingest's checks alone: reads every photo, and names each that a run would not use, with the reason.

    Also says which photos lie in several splits, as exact copies or as near-duplicates. Writes nothing.
    """
    settings = load_settings(config, tuple(assignments or ())).data.ingest()
    try:
        finding = _check(folder, settings)
    except UserError as error:
        if as_json:
            typer.echo(json.dumps({"accepted": False, "refusal": str(error)}))
        raise
    if as_json:
        typer.echo(json.dumps(_as_json(finding), indent=2))
    else:
        _print(finding)
    if finding.refusal:
        raise UserError(finding.refusal)


def _check(folder: Path, settings: IngestSettings) -> Finding:
    from components.image_example_gen.engine.listing import list_images

    # Before TensorFlow is loaded, which takes seconds.
    listing = list_images(folder)
    # Decoders complain of bad files on standard error; the bar goes there all the same.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as terminal, library_noise_hidden():
        from components.image_example_gen.engine.check import check as check_folder

        with Progress(console=Console(file=terminal), transient=True, disable=not terminal.isatty()) as bar:
            task = bar.add_task("Reading", total=None)
            return check_folder(listing, settings, lambda read, total: bar.update(task, completed=read, total=total))


def _as_json(finding: Finding) -> dict[str, Any]:
    outcome = finding.outcome
    return {
        "accepted": finding.refusal is None,
        "refusal": finding.refusal,
        **outcome.statistics.model_dump(mode="json"),
        "quarantine": [item.model_dump() for item in outcome.quarantined],
        "leaks": [asdict(leak) for leak in outcome.leaks],
    }


def _print(finding: Finding) -> None:
    outcome = finding.outcome
    for item in outcome.quarantined:
        typer.echo(f"quarantined\t{item.path}\t{item.reason}")
    for leak in outcome.leaks:
        places = ", ".join(f"{path} ({split})" for path, split in zip(leak.paths, leak.splits, strict=True))
        typer.echo(f"{leak.kind} duplicate\t{places}")
    for warning in outcome.statistics.warnings:
        typer.echo(f"warning\t{warning}")
    counts = outcome.statistics.images
    typer.echo(
        f"{counts.read} images read, {counts.used} usable, {counts.quarantined} quarantined; "
        f"{counts.ignored} other files ignored"
    )
