"""trimline kubeflow: compile, submit, status."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline.config import load_settings
from pipeline.quiet import library_noise_hidden
from pipeline.terminal import Terminal
from trainer_module.errors import UserError
from trainer_module.files import write_whole

NOT_FOLLOWED, NOT_BLESSED, INTERRUPTED = 1, 3, 130

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Compiles the pipeline for Kubeflow Pipelines, starts it there, follows it. docs/kubeflow.md describes how.",
)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting; wins over --config.")
]


@app.command(
    name="compile",
    epilog="Example: `trimline kubeflow compile --config kubeflow/settings.yaml --output pipeline.yaml`.",
)
def compile_(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("pipeline.yaml"),
    config: ConfigOption = None,
    assignments: SetOption = None,
) -> None:
    """Writes the pipeline as Kubeflow Pipelines takes it; no cluster is needed.

    What the open-source backend would not honour is refused here, naming the setting or the node.
    """
    tasks = _compile(config, assignments, output)
    typer.echo(f"Written: {output} ({tasks} tasks)")


@app.command(
    epilog="Example: `trimline kubeflow submit --config kubeflow/settings.yaml "
    "--set kubeflow.host=http://localhost:8888`. $TRIMLINE_KUBEFLOW_TOKEN is the token, where one is needed. "
    "Exit codes: 0 done and pushed, 2 bad settings or no server, 3 finished but not blessed, 1 the run failed or "
    "could not be followed to its end."
)
def submit(
    config: ConfigOption = None,
    assignments: SetOption = None,
    package: Annotated[
        Path | None, typer.Option(help="A pipeline that trimline kubeflow compile wrote; without it, one is compiled.")
    ] = None,
    cache: Annotated[bool, typer.Option(help="Take results of earlier runs.")] = True,
    follow: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
) -> None:
    """Uploads the pipeline to the server at kubeflow.host, starts a run, and follows it to its end."""
    from pipeline.kubeflow.client import KubeflowClient
    from pipeline.kubeflow.outcome import was_pushed
    from pipeline.kubeflow.package import without_cache

    settings = load_settings(config, tuple(assignments or ())).kubeflow
    if package is not None and not package.is_file():
        raise UserError(f"{package}: no such file; write it with trimline kubeflow compile")
    with tempfile.TemporaryDirectory() as scratch:
        # The server tells formats apart by the name.
        uploaded = Path(scratch) / "pipeline.yaml"
        client = KubeflowClient(settings)
        if package is None:
            _compile(config, assignments, uploaded)
        else:
            shutil.copyfile(package, uploaded)
        if not cache:
            uploaded.write_text(without_cache(uploaded.read_text(encoding="utf-8")), encoding="utf-8")
        name = f"trimline-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
        run_id = client.submit(uploaded, "trimline", name)
    typer.echo(f"Run {run_id} ({name})")
    if not follow:
        return
    try:
        state = client.follow(run_id, lambda task, now: typer.echo(f"{task}: {now.lower()}"))
    except KeyboardInterrupt:
        typer.echo(f"trimline: the run goes on; look with trimline kubeflow status {run_id}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except UserError as error:
        # No mistake in the settings, with which a run was started: a token expired, a server stayed away.
        typer.echo(f"trimline: {error}; the run may go on; look with trimline kubeflow status {run_id}", err=True)
        raise typer.Exit(NOT_FOLLOWED) from None
    if not was_pushed(state):
        typer.echo("trimline: not pushed: the gates refused the release; see gates.json of the ReleaseGate", err=True)
        raise typer.Exit(NOT_BLESSED)
    typer.echo("Pushed")


@app.command(epilog="Examples: `trimline kubeflow status`; `trimline kubeflow status RUN`.")
def status(
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's id; without it, the latest runs.")
    ] = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many runs to list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Lists the latest runs of kubeflow.experiment, or the tasks of one run."""
    from pipeline.kubeflow.client import KubeflowClient

    client = KubeflowClient(load_settings(config, tuple(assignments or ())).kubeflow)
    terminal = Terminal(as_json=as_json)
    if run_id is None:
        runs = client.runs(count)
        table = Table("Run", "Name", "Started", "State")
        for run in runs:
            table.add_row(run.run_id, run.name, run.created, run.state.lower())
        terminal.result([dataclasses.asdict(run) for run in runs], table)
        return
    state = client.state(run_id)
    table = Table("Task", "State", "Error", title=f"{state.name}: {state.state.lower()}")
    for task, now in state.tasks.items():
        table.add_row(task, now.lower(), state.errors.get(task, ""))
    terminal.result(dataclasses.asdict(state), table)


def _compile(config: Path | None, assignments: list[str] | None, output: Path) -> int:
    """Compiles to a file; returns the number of tasks."""
    settings = load_settings(config, tuple(assignments or ()))
    with library_noise_hidden():
        from pipeline.kubeflow.runner import compile_settings

        compiled = compile_settings(settings)
    try:
        write_whole(output, compiled.to_yaml())
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from None
    return len(compiled.spec.root.dag.tasks)
