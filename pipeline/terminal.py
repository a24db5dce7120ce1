"""How much a command says, and where: `--quiet`, `--verbose` and `--json`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipeline.progress import LiveProgress, PlainProgress
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import RenderableType


class Terminal:
    """What the user wants to see of a command.

    Attributes:
        console: For everything on the way to the result: standard output, or standard error if that is for JSON.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, as_json: bool = False) -> None:
        """Decides.

        Args:
            quiet: Nothing on the way to the result, and the result only as JSON. Errors are always told.
            verbose: The log of the libraries too, on standard error.
            as_json: The result is one JSON document on standard output, where nothing else is written.

        Raises:
            UserError: If both less and more are wanted.
        """
        if quiet and verbose:
            raise UserError("--quiet and --verbose: give one of them")
        # Names of classes and paths may look like emoji codes, which `print` leaves alone in texts, not in tables.
        self.console = Console(stderr=as_json, quiet=quiet, emoji=False)
        self._verbose = verbose
        self._as_json = as_json

    def progress(self) -> LiveProgress | PlainProgress:
        """Returns the view of a run: one that changes in place where that is possible, else a line for each event."""
        live = self.console.is_terminal and not self.console.quiet and not self._verbose
        return LiveProgress(self.console) if live else PlainProgress(self.console)

    def following(self, log: Path, poll: Callable[[], None]) -> Callable[[], None]:
        """Returns what polls and, if the user wants it, writes on standard error what is new in a log."""
        if not self._verbose:
            return poll
        position = 0

        def follow() -> None:
            nonlocal position
            with log.open("rb") as stream:
                stream.seek(position)
                sys.stderr.buffer.write(stream.read())
                position = stream.tell()
            sys.stderr.flush()
            poll()

        return follow

    def result(self, document: Any, *pictures: RenderableType) -> None:
        """Writes the result.

        Args:
            document: JSON-ready values, for programs.
            *pictures: The same for people.
        """
        if self._as_json:
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
            return
        for picture in pictures:
            self.console.print(picture, highlight=False, markup=False, soft_wrap=isinstance(picture, str))
