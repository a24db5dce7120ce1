"""Ctrl-C and Tab, from a real terminal."""

import functools
import os
import pty
import re
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest

from pipeline.workspace import Workspace

TRIMLINE = Path(sys.executable).with_name("trimline")
# Loading TFX takes 10 s, and several times that on a busy machine.
PATIENCE = 180


def _spawn(command: str, *arguments: str, **options: Any) -> pexpect.spawn:
    """Starts a command in a terminal of its own, which Ctrl-C reaches even if these tests run in the background."""
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return pexpect.spawn(command, list(arguments), timeout=PATIENCE, encoding="utf-8", preexec_fn=heed, **options)


@pytest.mark.component  # Loads TFX.
def test_ctrl_c_ends_a_run_cleanly_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "out put"
    terminal = _spawn(str(TRIMLINE), "run", "--output", str(out), dimensions=(40, 120))
    terminal.expect("of 15 components")
    before = terminal.before
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    after = terminal.before
    assert terminal.exitstatus == 130
    assert "ImageExampleGen" in before
    said = re.sub(r"\s+", " ", after)
    assert "trimline: stopped; finished components, epochs and fine-tunings are kept; to go on: " in said
    assert f"trimline run --output '{out}'" in said.replace("\r", "")
    assert "Traceback" not in before + after
    # The cursor, hidden while the view changes, is back.
    assert after.rindex("\x1b[?25h") > after.rfind("\x1b[?25l")
    # The process that did the work has ended, or it would hold on to the lock.
    with Workspace(out).locked():
        pass


@pytest.mark.component  # Loads TFX.
def test_closing_the_terminal_ends_a_run_as_a_hang_up_does(tmp_path):
    workspace = Workspace(tmp_path / "out")
    process, terminal = pty.fork()
    if process == 0:
        # Under nohup it would be ignored.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        # What is not written at once, Python would try to write at its end.
        os.environ.pop("PYTHONUNBUFFERED", None)
        os.execv(TRIMLINE, ["trimline", "run", "--output", str(workspace.root)])  # noqa: S606
    deadline = time.monotonic() + PATIENCE
    shown = b""
    while b"starting" not in shown:
        readable, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert readable, f"it has not started: {shown}"
        shown += os.read(terminal, 1024)
    while not workspace.log_file.exists():
        assert time.monotonic() < deadline, "there is no log"
        time.sleep(0.05)
    os.close(terminal)
    deadline = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        assert time.monotonic() < deadline, "it goes on without its terminal"
        time.sleep(0.05)
    assert os.waitstatus_to_exitcode(ended[1]) == 129
    # The process that did the work has ended, or it would hold on to the lock.
    with workspace.locked():
        pass


def test_ctrl_c_ends_any_command_without_a_stack_trace(tmp_path):
    settings = tmp_path / "settings.yaml"
    os.mkfifo(settings)
    terminal = _spawn(str(TRIMLINE), "run", "--config", str(settings))
    # Opens as soon as the command does, which then waits for something to read.
    with settings.open("w"):
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert "trimline: stopped; to go on: trimline run" in terminal.before
    assert "Traceback" not in terminal.before


def test_tab_completes_commands_options_and_settings_in_bash(tmp_path):
    environment = os.environ | {"PATH": f"{TRIMLINE.parent}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "$ "}
    shell = _spawn("bash", "--norc", "-i", env=environment, cwd=str(tmp_path))
    # As docs/terminal.md says.
    shell.sendline('eval "$(trimline --show-completion)"; echo rea""dy')
    shell.expect("ready")
    for typed, completed in (
        ("lad", "ladder"),
        ("run --verb", "--verbose"),
        ("run --set trainer.ep", "trainer.epochs="),
    ):
        shell.send(f"trimline {typed}\t")
        shell.expect_exact(completed)
        # Clears the line.
        shell.send("\x15")
    shell.close(force=True)
