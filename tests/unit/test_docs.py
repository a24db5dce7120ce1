"""What the documents say exists: commands, options, settings, files. tests/e2e/test_main_job.py runs the quick ones."""

import importlib.util
import itertools
import re
import shutil

import pytest
import typer

from pipeline.cli import app
from pipeline.config import load_settings
from pipeline.settings_reference import settings_reference
from pipeline.settings_tree import groups
from tests.documents import PAGES, ROOT, mentioned_code, mentioned_commands, shown_commands

COMMANDS = typer.main.get_command(app)
KEYS = {setting.key for group in groups() for setting in group.settings}
GROUPS = {group.key for group in groups()}
# Programs that are named, and installed by whoever uses them.
FOREIGN = {"curl", "docker", "kubectl", "fuser", "pip", "uv", "."}


def _options(words):
    return [word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)]


def _command(words):
    """Finds the command that the words call, inside groups of commands too, and what follows its name."""
    command, rest = COMMANDS, words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def _known_options(command):
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}


@pytest.mark.parametrize(("page", "words"), shown_commands(), ids=lambda value: str(value)[:60])
def test_every_shown_command_can_be_given(page, words):
    if words[0] == "trimline":
        command, rest = _command(words)
        if command is COMMANDS:
            # Its own options act at once.
            assert rest, page
            assert set(rest) <= _known_options(command), f"{page}: trimline has no such command"
            return
        context = command.make_context("trimline", list(rest))
        assignments = context.params.get("assignments") or ()
        load_settings(None, tuple(assignments))
    elif words[0] == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2])
    else:
        assert words[0] in FOREIGN or words[0].startswith(".venv/bin/") or shutil.which(words[0]), page


@pytest.mark.parametrize(("page", "words"), mentioned_commands(), ids=lambda value: str(value)[:60])
def test_every_command_in_the_text_and_its_options_exist(page, words):
    command, rest = _command(words)
    if command is COMMANDS and not _options(rest):
        # Several commands in one, as in `trimline run|ladder`, or a placeholder.
        names = re.split(r"[|,]", rest[0]) if rest else []
        assert all(name in COMMANDS.commands or name.isupper() for name in names), page
        return
    assert set(_options(rest)) <= _known_options(command), page
    for word, following in itertools.pairwise(rest):
        if word == "--set" and "=" in following:
            assert following.partition("=")[0] in KEYS, page


def test_every_setting_in_the_text_exists():
    heads = "|".join(sorted({key.split(".")[0] for key in KEYS if "." in key}))
    # Names of files and of fields in answers look alike.
    others = {"model.tflite", "model.json", "model.version"}
    found = {(page, text) for page, text in mentioned_code() if re.fullmatch(rf"(?:{heads})(?:\.[a-z_]+)+", text)}
    assert {(page, text) for page, text in found if text not in KEYS | GROUPS | others} == set()


def test_every_source_file_in_the_text_exists():
    pattern = re.compile(r"(?:pipeline|components|trainer_module|serving|tests|benchmarks)/[\w/]+(?:\.py|/)?")
    # docs/extending.md makes it.
    found = {(page, text) for page, text in mentioned_code() if pattern.fullmatch(text) and "size_note" not in text}
    assert {(page, text) for page, text in found if not (ROOT / text).exists()} == set()


def test_links_lead_somewhere():
    missing = [
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert missing == []


def test_the_settings_reference_is_up_to_date():
    page = ROOT / "docs" / "settings-reference.md"
    assert page.read_text(encoding="utf-8") == settings_reference(), "repeat make docs"


def test_the_settings_reference_has_every_setting_with_its_limits():
    page = settings_reference()
    assert [key for key in KEYS if f"| `{key}` |" not in page] == []
    assert "| `trainer.epochs` | `30` | whole number: 1 to 10000 |" in page
    assert '| `acceleration.precision` | `"float32"` | `float32`, `bfloat16`, `float16` |' in page
