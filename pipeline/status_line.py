"""A line at the bottom of a terminal that says what is being done."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console


class StatusLine:
    """Base of views that have such a line; where there is no terminal, it is not shown."""

    def __init__(self, console: Console) -> None:
        """Creates the view; use it as a context manager.

        Args:
            console: Where to write.
        """
        self._console = console
        self._status = console.status("preparing the photos")

    def __enter__(self) -> Self:
        """Starts the status line."""
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the status line."""
        if self._console.is_terminal:
            # As in `LiveProgress`: the terminal may have been closed.
            with contextlib.suppress(OSError):
                self._status.stop()
