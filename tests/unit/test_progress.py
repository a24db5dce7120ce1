"""What a run looks like in a terminal and in a log."""

import errno
import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline import launch
from pipeline.cli import app
from pipeline.compression_view import CompressionProgress
from pipeline.launch import Interrupted
from pipeline.metadata import ComponentRun
from pipeline.progress import LiveProgress, PlainProgress, layout
from pipeline.status_line import StatusLine
from pipeline.terminal import Terminal
from pipeline.workspace import Workspace
from trainer_module import progress
from trainer_module.errors import UserError

GRAPH = {
    "Ingest": [],
    "Trainer": ["Ingest"],
    "GateB": ["Trainer"],
    "GateA": ["Trainer"],
    "GateC": ["Trainer", "Ingest"],
    "Push": ["GateA", "GateB", "GateC"],
}
FINISHED = {"epoch": 2, "metrics": {"loss": 0.61234, "accuracy": 0.8, "val_loss": 0.6, "val_accuracy": 0.875}}
TRAINING = {
    "doing": "training",
    "epoch": 3,
    "epochs": 30,
    "step": 5,
    "steps": 10,
    "metrics": {"loss": 0.51234, "accuracy": 0.9},
    "finished": FINISHED,
}


def _component(name, state="running", seconds=2.0):
    return ComponentRun(name, state, started=100.0, updated=100.0 + seconds, execution_id=1)


def _screen(components, reports):
    """What a terminal shows last, without colours."""
    console = Console(
        file=io.StringIO(), force_terminal=True, no_color=True, width=100, height=30, legacy_windows=False
    )
    with LiveProgress(console) as view:
        view.update(components, GRAPH, reports)
    return console.file.getvalue().split("\x1b[2K")[-1]


def test_components_stand_below_what_they_wait_for_and_siblings_are_joined():
    assert layout(GRAPH) == [
        ("Ingest", ""),
        ("Trainer", ""),
        ("GateB", "┌"),
        ("GateA", "├"),
        ("GateC", "└"),
        ("Push", ""),
    ]


def test_the_live_view_shows_states_times_and_metrics_of_the_whole_graph():
    screen = _screen([_component("Ingest", "cached"), _component("Trainer")], {"Trainer": TRAINING})
    rows = {name: line for line in screen.splitlines() for name in GRAPH if name in line}
    assert set(rows) == set(GRAPH)
    assert "from cache" in rows["Ingest"]
    assert "training" in rows["Trainer"]
    assert "epoch 3/30" in screen
    assert "loss 0.512, accuracy 90.0 %, validation 87.5 %" in screen
    assert "·" in rows["Push"]
    assert "1 of 6 components" in screen
    failed = _screen([_component("Ingest", "done", 3.21), _component("Trainer", "failed")], {})
    assert "3.2 s" in failed
    assert "✗" in failed


def test_warnings_are_shown_as_soon_as_they_are_known_and_once():
    warned = {"Ingest": {"doing": "writing", "warnings": ["classes without an image in the test split: [red]"]}}
    assert "Warning: classes without an image in the test split: [red]" in _screen(
        [_component("Ingest", "done")], warned
    )
    console = Console(file=io.StringIO(), width=40)
    view = PlainProgress(console)
    for _ in range(2):
        view.update([_component("Ingest", "done")], GRAPH, warned)
    assert console.file.getvalue().splitlines() == [
        "Ingest: 2.0 s",
        "Ingest: warning: classes without an image in the test split: [red]",
    ]


def test_plain_lines_are_written_once_for_each_event():
    console = Console(file=io.StringIO(), width=40)
    view = PlainProgress(console)
    running = [_component("Ingest", "done"), _component("Trainer")]
    for reports in (
        {},
        {"Trainer": {"doing": "choosing"}},
        {"Trainer": {"doing": "choosing"}},
        {"Trainer": TRAINING | {"epoch": 1, "finished": None}},
        {"Trainer": TRAINING | {"epoch": 1, "step": 9, "finished": None}},
        {"Trainer": TRAINING},
        {"Trainer": TRAINING | {"step": 6}},
    ):
        view.update(running, GRAPH, reports)
    view.update([_component("Ingest", "done"), _component("Trainer", "done")], GRAPH, {"Trainer": TRAINING})
    assert console.file.getvalue().splitlines() == [
        "Ingest: 2.0 s",
        "Trainer: started",
        "Trainer: choosing",
        "Trainer: training",
        "Trainer: training, epoch 2/30, loss 0.612, accuracy 80.0 %, validation 87.5 %",
        "Trainer: 2.0 s",
    ]


def test_reports_are_kept_for_each_component_and_only_while_somebody_wants_them(tmp_path):
    file = tmp_path / "progress.json"
    progress.report("Trainer", "nobody sees this")
    with progress.kept_in(file):
        progress.report("Trainer", "training", epoch=1)
        progress.report("Compression", "preparing")
        progress.report("Trainer", "training", epoch=2)
    progress.report("Compression", "nobody sees this")
    assert json.loads(file.read_text()) == {
        "Trainer": {"doing": "training", "epoch": 2},
        "Compression": {"doing": "preparing"},
    }


def test_what_cannot_be_written_stops_no_work(tmp_path):
    with progress.kept_in(tmp_path / "absent" / "progress.json"):
        progress.report("Trainer", "training")


def test_a_result_as_json_has_standard_output_for_itself(capsys):
    terminal = Terminal(as_json=True)
    terminal.console.print("on the way")
    terminal.result({"blessed": True}, "for people")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"blessed": True}
    assert err == "on the way\n"


def test_text_is_printed_as_it_is(capsys):
    path = "/photos/[bold]/:100:/" + "x" * 200
    Terminal().result({}, path)
    assert capsys.readouterr().out == f"{path}\n"


def test_quiet_says_nothing_but_still_gives_json(capsys):
    Terminal(quiet=True).result({}, "for people")
    assert capsys.readouterr() == ("", "")
    terminal = Terminal(quiet=True, as_json=True)
    terminal.console.print("on the way")
    terminal.result([1])
    assert capsys.readouterr() == ("[\n  1\n]\n", "")


def test_verbose_follows_a_log_from_its_beginning(tmp_path, capfdbinary):
    log, polls = tmp_path / "run.log", []
    log.write_bytes(b"first\n")
    poll = Terminal(verbose=True).following(log, lambda: polls.append(1))
    poll()
    with log.open("ab") as stream:
        stream.write(b"\xffsecond\n")
    poll()
    poll()
    assert capfdbinary.readouterr() == (b"", b"first\n\xffsecond\n")
    assert len(polls) == 3


def test_quiet_and_verbose_exclude_each_other():
    with pytest.raises(UserError, match="--quiet and --verbose"):
        Terminal(quiet=True, verbose=True)


def test_variants_are_told_once_and_one_that_is_moved_away_meanwhile_stops_nothing(tmp_path):
    console = Console(file=io.StringIO())
    workspace = Workspace(tmp_path)
    view = CompressionProgress(workspace, console)
    view.poll()
    variants = workspace.compressed_partial / "variants"
    variants.mkdir(parents=True)
    (variants / "int8.tflite").write_bytes(b"12345")
    # As a file that was there when the folder was listed, and then no more.
    (variants / "float32.tflite").symlink_to("absent")
    view.poll()
    (variants / "float32.tflite").unlink()
    (variants / "float16.tflite").write_bytes(b"123")
    view.poll()
    view.poll()
    assert sorted(console.file.getvalue().splitlines()) == ["float16: 3 bytes", "int8: 5 bytes"]


def test_what_a_killed_compression_has_left_is_not_told_as_new(tmp_path, monkeypatch):
    variants = Workspace(tmp_path).compressed_partial / "variants"
    variants.mkdir(parents=True)
    (variants / "int8.tflite").write_bytes(b"of another time")

    def work(module, workspace, lock, poll, *_, **__):
        poll()
        raise UserError("far enough")

    monkeypatch.setattr(launch, "run_module", work)
    result = CliRunner().invoke(app, ["compress", "--model", __file__, "--output", str(tmp_path)])
    assert str(result.exception) == "far enough"
    assert result.stdout == ""


class _Closable(io.StringIO):
    """A terminal that can be closed."""

    gone = False

    def write(self, text):
        if self.gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("view", [LiveProgress, StatusLine])
def test_a_terminal_that_is_gone_does_not_hide_what_ended_a_command(view):
    terminal = _Closable()

    def work():
        with view(Console(file=terminal, force_terminal=True)):
            terminal.gone = True
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        work()
