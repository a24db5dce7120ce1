"""The command line."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from pipeline import data_cli
from pipeline.completion import setting_keys
from pipeline.config import load_settings
from pipeline.doctor_command import doctor_app
from pipeline.kubeflow.cli import app as kubeflow_app
from pipeline.output_directory import (
    DEFAULT_OUTPUT,
    OutArgument,
    OutOption,
    OutputOption,
    chosen_output,
    finished_workspace,
)
from pipeline.quiet import library_noise_hidden
from pipeline.report_commands import app as report_commands
from pipeline.terminal import Terminal
from serving.errors import ServingError
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.workspace import Workspace

# The last as shells have it: 130 after Ctrl-C, 143 after SIGTERM.
BUG, USER_ERROR, NOT_BLESSED, STOPPED_BY_SIGNAL = 1, 2, 3, 128
_ORDERS = {
    "labels": "that of --labels",
    "model": "the model's own",
    "alphabetical": "alphabetical",
    "frequency": "the most frequent first",
}
# What a path on the command line or in the settings can come to.
_OF_PATHS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class _Commands(TyperGroup):
    """All commands; a Ctrl-C ends each of them alike."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command."""
        from pipeline.launch import Interrupted

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("stopped") from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Turns a folder of labelled photos into a small, gated, served image classifier.",
    epilog="Start with `trimline run` (the handwritten digits that come with Trimline), "
    "then `trimline run --data photos/ --output out/`. "
    "Exit codes: 0 done and pushed, 2 bad input or settings, 3 finished but not blessed, 1 a bug, 130 stopped by "
    "Ctrl-C.",
)
app.add_typer(doctor_app)
app.add_typer(data_cli.app, name="data")
app.add_typer(kubeflow_app, name="kubeflow")

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        "-d",
        help="Folder with a folder of photos for each class, with or without train/ validation/ test/ above the "
        "classes. Without it: the handwritten digits that come with Trimline.",
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings.")]
VersionOption = Annotated[int | None, typer.Option(min=1, help="A version that trimline status lists.")]
PushKeepOption = Annotated[int | None, typer.Option(min=1, help="Newest versions to keep there; default: all.")]
RollbackKeepOption = Annotated[
    int | None, typer.Option(min=1, help="Newest versions to keep there; default: push.keep_versions, with --to all.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        autocompletion=setting_keys,
        help="One setting, for example trainer.epochs=50; wins over --config, and may be given many times.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors; the exit code tells.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what TFX and TensorFlow say too, on standard error.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="The result as one JSON document on standard output; all else on standard error.")
]


@app.command(
    epilog="Examples: `trimline run --data photos/ --output out/`; "
    "`trimline run --set trainer.epochs=50 --set data.image_size=64`. "
    "`trimline init` prints all settings with their meaning."
)
def run(
    data: DataOption = None,
    output: OutputOption = DEFAULT_OUTPUT,
    config: ConfigOption = None,
    assignments: SetOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Trains, compresses, judges and pushes a classifier.

    Components whose inputs and settings are as they were are taken from the cache. Nothing is pushed unless every gate
    blesses it. OUTPUT/pushed/ has the model, OUTPUT/report/ the report, OUTPUT/logs/run.log what the libraries say.
    """
    from pipeline.launch import run_to_end

    terminal = Terminal(quiet=quiet, verbose=verbose, as_json=as_json)
    with _prepared(data, output, config, assignments, pushes=True) as (workspace, lock):
        summary = run_to_end(workspace, terminal, lock)
    terminal.result(summary, _summary_table(summary, workspace.report))
    if not summary["blessed"]:
        _complain(f"not pushed: {_refusal(summary['gates']['checks'])}; see the report")
        raise typer.Exit(NOT_BLESSED)


@app.command(
    epilog="Example: `trimline ladder --data photos/ --set trainer.epochs=10`. "
    "Every rung trains for trainer.epochs epochs; all rungs take turns, so that a busy machine favours none."
)
def ladder(
    data: DataOption = None,
    output: OutputOption = DEFAULT_OUTPUT,
    config: ConfigOption = None,
    assignments: SetOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measures the tricks of lean training on your photos and this machine, one more on each rung.

    Rungs: naive, pooling, separable, jit, amp, fusing, and auto, which is what trimline run would do. Prints
    parameters, test accuracy, training time per epoch and inference time per step; writes OUTPUT/ladder.json and
    OUTPUT/ladder.png, which the report of a run in OUTPUT shows too.
    """
    from pipeline.ladder_view import LadderProgress, ladder_table
    from pipeline.launch import run_module

    terminal = Terminal(quiet=quiet, verbose=verbose, as_json=as_json)
    with _prepared(data, output, config, assignments, pushes=False) as (workspace, lock):
        workspace.ladder_progress_file.unlink(missing_ok=True)
        with LadderProgress(workspace.ladder_progress_file, terminal.console) as progress:
            poll = terminal.following(workspace.log_file, progress.poll)
            run_module("pipeline.ladder", workspace, lock, poll)
        result = json.loads(workspace.ladder_file.read_text(encoding="utf-8"))
    table = ladder_table(result["rungs"], result["lesson"])
    terminal.result(result, table, f"Written: {workspace.ladder_file} and {workspace.ladder_picture}")


@app.command(
    epilog="Example: `trimline compress --model classifier.keras --data photos/ --output out/ "
    "--set compression.sparsity=auto`."
)
def compress(
    model: Annotated[
        Path,
        typer.Option(
            "--model",
            "-m",
            help="Classifier from pixels [N, S, S, 3] in 0 to 255 to probabilities [N, C]: a .keras or .h5 file of "
            "Keras 3 or 2, a SavedModel of Keras 2's, or one that trimline run has pushed.",
        ),
    ],
    data: DataOption = None,
    output: OutputOption = DEFAULT_OUTPUT,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_code: Annotated[
        bool,
        typer.Option("--allow-code", help="Load a model that runs code of its own, such as a Lambda layer's, as you."),
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="File with the names of the classes, one a line, in the order of the model's answers. Default: as the "
            "model says; where it does not, alphabetical or the most frequent first, whichever makes it right.",
        ),
    ] = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compresses a classifier that is trained already: prunes, clusters, quantises, measures, and selects.

    Every variant is measured on its bytes and on the validation photos; the smallest inside compression.budget is
    selected, of nearly as small ones the most accurate. Leaves OUTPUT/compressed/: report.json, variants/, tflite/ (the
    selected bundle) and saved_model/. A compression that was killed goes on where it was.
    """
    from pipeline.compress import ALLOW_CODE, LABELS, REPORT_FILE, require_there
    from pipeline.compression_view import CompressionProgress, compression_table
    from pipeline.launch import run_module

    require_there(model)
    if labels:
        from pipeline.class_order import read_labels

        read_labels(labels)
    terminal = Terminal(quiet=quiet, verbose=verbose, as_json=as_json)
    with _prepared(data, output, config, assignments, pushes=False) as (workspace, lock):
        # What a killed compression has left is made anew, and must not be shown in place of that.
        shutil.rmtree(workspace.compressed_partial, ignore_errors=True)
        with CompressionProgress(workspace, terminal.console) as progress:
            poll = terminal.following(workspace.log_file, progress.poll)
            kept = "finished components and fine-tunings"
            flags = [ALLOW_CODE] if allow_code else []
            flags += [LABELS, str(labels.absolute())] if labels else []
            run_module("pipeline.compress", workspace, lock, poll, str(model.absolute()), *flags, kept=kept)
    report = json.loads((workspace.compressed / REPORT_FILE).read_text(encoding="utf-8"))
    dropped = [f"Dropped: {each['name']}: {each['reason']}" for each in report["dropped"]]
    order = f"Order of the classes: {_ORDERS[report['class_order']['source']]}; see labels.txt"
    selected = f"Selected: {report['selected']}; written to {workspace.compressed}"
    terminal.result(report, compression_table(report), *dropped, order, selected)


@app.command(
    epilog="Examples: `trimline predict photo.jpg --output out/`; "
    "`trimline predict photo.jpg --url http://127.0.0.1:8080 --top 3`."
)
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Photos to classify.")],
    output: OutputOption = DEFAULT_OUTPUT,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many classes to name for each photo.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per photo and line.")] = False,
    url: Annotated[
        str | None,
        typer.Option(help="Ask the server at this address, not the model in OUTPUT; $TRIMLINE_API_KEY is its key."),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate authority of an https:// address.")
    ] = None,
) -> None:
    """Names the class of photos with the pushed .tflite: label and probability, a line for each photo."""
    from components.image_example_gen.engine.quarantine import printable

    failed = False
    with _classifier(output, url, ca_file) as classify:
        for path in images:
            try:
                scored = classify(path, top)
            except ServingError as error:
                _complain(str(error) if url else f"{printable(str(path))}: {str(error).removeprefix('image 0: ')}")
                failed = True
                continue
            if as_json:
                classes = [{"label": label, "probability": round(float(p), 6)} for label, p in scored]
                typer.echo(json.dumps({"image": str(path), "classes": classes}))
            else:
                named = "\t".join(f"{label}\t{probability:.4f}" for label, probability in scored)
                typer.echo(f"{printable(str(path))}\t{named}")
    if failed:
        raise typer.Exit(USER_ERROR)


@app.command(
    epilog="Examples: `trimline serve out/`, then `curl --data-binary @photo.jpg "
    "localhost:8080/predict`; `trimline serve out/ --workers 2 --set serving.queue=32`. "
    "docs/serving.md describes the protocols and settings."
)
def serve(
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="Output directory of a run, a folder of pushed versions, or one bundle; default: out.",
            show_default=False,
        ),
    ] = None,
    output: OutOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: serving.host, loopback.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default: serving.port, 8080.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Server processes; default: serving.workers, 1.")] = None,
    saved_model: Annotated[
        bool, typer.Option("--saved-model", help="Serve the pushed SavedModel with TensorFlow Serving instead.")
    ] = False,
) -> None:
    """Serves the pushed .tflite over HTTP: a web page, TensorFlow Serving's V1 and the Open Inference Protocol's V2.

    A version that is pushed later is served as soon as it is there, without a request lost.
    """
    served = chosen_output(out, output)
    given = {"host": host, "port": port, "workers": workers}
    overrides = tuple(f"serving.{key}={json.dumps(value)}" for key, value in given.items() if value is not None)
    settings = load_settings(config, (*(assignments or ()), *overrides)).serving
    if saved_model:
        from serving.tensorflow_serving import serve_saved_model

        serve_saved_model(served, settings)
    from serving.server import serve as serve_models

    serve_models(served, settings)


@app.command(epilog="Examples: `trimline status --output out/`; `trimline status --json`.")
def status(output: OutputOption = DEFAULT_OUTPUT, as_json: JsonOption = False) -> None:
    """Lists runs and pushes: what ran, what was blessed, what was pushed where, when and by whom, and what is live."""
    workspace = finished_workspace(output)
    with library_noise_hidden():
        from pipeline.status import push_table, pushes, runs, status_table

        found = {"runs": runs(workspace.metadata_file), "pushes": pushes(workspace.metadata_file)}
    tables = status_table(found["runs"]), push_table(found["pushes"], workspace.root)
    Terminal(as_json=as_json).result(found, *(table for table in tables if table.row_count))


@app.command(
    epilog="Examples: `trimline push --to /srv/models`; `trimline push --to gs://bucket/models`. "
    "TensorFlow Serving then watches TO/saved_model, edge servers TO/tflite."
)
def push(
    to: Annotated[
        str, typer.Option(help="Directory, or URI such as gs://bucket/models; gets saved_model/ and tflite/.")
    ],
    output: OutputOption = DEFAULT_OUTPUT,
    version: VersionOption = None,
    keep: PushKeepOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copies what is live in OUTPUT, or another blessed version, to a further place: both artifacts or neither."""
    workspace = finished_workspace(output)
    with workspace.locked(), library_noise_hidden():
        from pipeline.destinations import below
        from pipeline.pushing import push as push_release

        pushed = push_release(workspace, below(to), version, keep)
    told = [f"Pushed to {path}" for path in pushed.paths.values()]
    Terminal(as_json=as_json).result({"paths": dict(pushed.paths), "release": pushed.release.id}, *told)


@app.command(
    epilog="Examples: `trimline rollback`; `trimline rollback --version 1795514522`; "
    "`trimline rollback --to /srv/models` for what trimline push put there."
)
def rollback(
    output: OutputOption = DEFAULT_OUTPUT,
    to: Annotated[str | None, typer.Option(help="Where trimline push put it; default: where runs push to.")] = None,
    version: VersionOption = None,
    keep: RollbackKeepOption = None,
    as_json: JsonOption = False,
) -> None:
    """Makes the release before the live one live again, or that of --version, under a new version number."""
    workspace = finished_workspace(output)
    with workspace.locked(), library_noise_hidden():
        from pipeline.destinations import below, push_directories
        from pipeline.pushing import rollback as roll_back

        settings = workspace.read_settings()
        directories = below(to) if to else push_directories(settings, workspace)
        own_keep = None if to else settings.push.keep_versions
        pushed = roll_back(workspace, directories, version, keep or own_keep)
    told = [f"Live again: {path}" for path in pushed.paths.values()]
    Terminal(as_json=as_json).result({"paths": dict(pushed.paths), "release": pushed.release.id}, *told)


@app.command(epilog="Example: `trimline verify out/`. Exit code 2 if a check failed.")
def verify(
    out: OutArgument = None,
    output: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Checks that what is live is what was blessed: digests, labels, tensors, signatures, metrics, lineage."""
    verified = chosen_output(out, output)
    workspace = finished_workspace(verified)
    with library_noise_hidden():
        from pipeline.verification import verify as verify_live

        findings = verify_live(workspace)
    told = [f"{'FAILED' if each.fault else 'ok':<6}  {each.what}: {each.fault or each.detail}" for each in findings]
    Terminal(as_json=as_json).result([dataclasses.asdict(finding) for finding in findings], *told)
    faults = [finding for finding in findings if finding.fault]
    if faults:
        raise UserError(
            f"{verified}: {len(faults)} of {len(findings)} checks failed; to push again: trimline run, "
            "or after a rollback trimline push (docs/operations.md)"
        )


@app.command(
    epilog="Example: `trimline init settings.yaml`, then `trimline run --config settings.yaml`. "
    "Files that are there are never overwritten."
)
def init(
    file: Annotated[Path | None, typer.Argument(help="File to write; without it, standard output.")] = None,
) -> None:
    """Writes a settings file with every setting, its default and its meaning, for use with --config."""
    from pipeline.settings_file import commented_settings

    if file is None:
        typer.echo(commented_settings(), nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(commented_settings())
    except FileExistsError:
        raise UserError(f"{file}: exists already; choose another name or remove it") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from None


app.add_typer(report_commands)


def main() -> None:
    """Runs the command line; a user's mistake is one line on standard error and exit code 2."""
    from pipeline.disk import FULL
    from pipeline.launch import Interrupted, RunError

    try:
        app(list(map(_at_home, sys.argv[1:])))
    except (UserError, ServingError) as error:
        _complain(str(error))
        sys.exit(USER_ERROR)
    except Interrupted as stop:
        # Where the terminal was closed, nobody is there to be told.
        with contextlib.suppress(OSError):
            _complain(f"{stop}; to go on: {shlex.join(['trimline', *sys.argv[1:]])}")
        _drop_what_cannot_be_written()
        sys.exit(STOPPED_BY_SIGNAL + stop.signal)
    except OSError as error:
        if error.errno in FULL:
            advice = "make room there, then run the same command again"
        elif error.errno in _OF_PATHS and error.filename:
            advice = "check the path, and who may use it"
        else:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror}; {advice}")
        sys.exit(USER_ERROR)
    except RunError as error:
        _complain(str(error))
        sys.exit(BUG)


def _at_home(word: str) -> str:
    """Expands ~ where most shells leave it alone: behind an option's = or letter, as in --output=~/out."""
    home = r"^(--[\w-]+=|-\w|)(~[^/]*)"
    # Unlike Path's own, it leaves what is no user's name alone, such as ~draft.jpg.
    return re.sub(home, lambda found: found[1] + os.path.expanduser(found[2]), word)  # noqa: PTH111


def _drop_what_cannot_be_written() -> None:
    """Keeps Python from trying once more at its end, and from putting an exit code of its own in the place of ours."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _prepared(
    data: Path | None, output: Path, config: Path | None, assignments: list[str] | None, *, pushes: bool
) -> Iterator[tuple[Workspace, IO[str]]]:
    """Checks settings and data, and makes the output directory ready for a run of its own, which pushes or does not."""
    from pipeline.prepare import require_apart, require_destinations, resolve
    from pipeline.recovery import settle
    from pipeline.workspace import Workspace

    settings = load_settings(config, tuple(assignments or ()))
    if data:
        settings = settings.model_copy(update={"data": settings.data.model_copy(update={"path": data})})
    workspace = Workspace(output)
    require_apart(settings.data.path, workspace.root)
    workspace.prepare()
    with workspace.locked() as lock:
        settle(workspace)
        settings = resolve(settings, workspace)
        if pushes:
            require_destinations(settings.push)
        else:
            # Where the runs before have pushed to, which push, rollback and verify go by.
            settings = settings.model_copy(update={"push": workspace.read_push_settings() or settings.push})
        workspace.write_settings(settings)
        yield workspace, lock


@contextlib.contextmanager
def _classifier(
    output: Path, url: str | None, ca_file: Path | None
) -> Iterator[Callable[[Path, int], list[tuple[str, float]]]]:
    """Yields what names the most probable classes of a photo: the pushed model, or a server that has it."""
    if url is None:
        from serving.bundle import find_bundle, load_bundle
        from serving.predictor import Predictor

        with library_noise_hidden():
            predictor = Predictor(load_bundle(find_bundle(output)))
        yield lambda path, top: list(predictor.top(predictor.predict_images([_read(path)]), top)[0])
        return
    from serving.client import PredictClient

    # As the server takes it: without the newline of the file that it was read from.
    api_key = os.environ.get("TRIMLINE_API_KEY", "").strip() or None
    with PredictClient(url, api_key=api_key, ca_file=ca_file) as client:
        yield lambda path, top: [(each.label, each.probability) for each in client.top_classes(path, top)]


def _complain(message: str) -> None:
    typer.echo(f"trimline: {message}", err=True)


def _refusal(checks: list[dict[str, Any]]) -> str:
    """Says which gates refused, and the first reason."""
    refused = [check for check in checks if check["verdict"] == "refused"]
    gates = " and the ".join(dict.fromkeys(check["gate"] for check in refused))
    first = refused[0]
    about = f" of class {first['slice']}" if first["slice"] is not None else ""
    return f"refused by the {gates} gate; {first['artifact']}, {first['rule']}{about}: {first['reason']}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServingError(f"cannot be read: {error.strerror}") from None


def _summary_table(summary: dict[str, Any], report: Path) -> Table:
    images, shipped = summary["images"], summary["shipped"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("Images", f"{images['read']} read, {images['used']} used, {images['quarantined']} quarantined")
    accuracy = "not computed" if shipped["accuracy"] is None else f"{100 * shipped['accuracy']:.2f} %"
    table.add_row("Test accuracy", f"{accuracy} ({shipped['name']} .tflite)")
    if classes := shipped["class_accuracy"]:
        weakest = min(classes, key=lambda name: classes[name])
        mean = 100 * sum(classes.values()) / len(classes)
        table.add_row("By class", f"{mean:.2f} % on average, {100 * classes[weakest]:.2f} % of the weakest, {weakest}")
    table.add_row("Size", f"{shipped['bytes']:,} bytes, {shipped['deflated_bytes']:,} deflated")
    table.add_row("Latency", f"{shipped['latency_ms']:.3f} ms per image, one thread")
    for pushed in summary["pushed"]:
        table.add_row("Pushed to", pushed["path"])
    for warning in images["warnings"]:
        table.add_row("Warning", warning)
    table.add_row("Report", str(report) if report.exists() else "could not be written; see logs/run.log")
    return table


if __name__ == "__main__":
    main()
