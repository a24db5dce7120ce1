"""How long pieces of work say how far they are: through a logger of their own, silent unless somebody keeps a file.

Whoever works calls `report` and need not know who watches, or whether anybody does. On a machine of its own the runner
keeps the latest reports in a file, which the command line reads; elsewhere nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

from trainer_module.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Node ids of those who report.
INGEST = "ImageExampleGen"
TRAINER = "Trainer"
COMPRESSION = "Compression"

_logger = logging.getLogger("trimline.progress")
_REPORT = "report"


def report(component: str, doing: str, **figures: Any) -> None:
    """Says what a component is doing now.

    Args:
        component: Its node id in the pipeline.
        doing: A few words, for example "fine-tuning pruned".
        **figures: JSON-ready values. Trainings tell "epoch", "epochs", "step" and "steps", all counted from 1, the
            running "metrics" by their names in Keras, and "epoch" and "metrics" of the last one that is "finished".
            Whoever found something that the user should know now tells it in "warnings", one line each.
    """
    _logger.debug("%s: %s", component, doing, extra={_REPORT: (component, {"doing": doing, **figures})})


@contextlib.contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Keeps the latest report of every component in a JSON file meanwhile.

    Args:
        path: The file; it is replaced as a whole, so a reader never sees half of it.
    """
    handler = _ProgressFile(path)
    _logger.addHandler(handler)
    _logger.setLevel(logging.DEBUG)
    # They come several times a second, which no log is for.
    _logger.propagate = False
    try:
        yield
    finally:
        _logger.removeHandler(handler)


class _ProgressFile(logging.Handler):
    """Writes {component: {"doing": ..., ...}}."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._latest: dict[str, Any] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Takes in a report and writes all."""
        component, content = getattr(record, _REPORT)
        self._latest[component] = content
        # Nobody's training ends because the disk has no room for its progress.
        with contextlib.suppress(OSError):
            write_whole(self._path, json.dumps(self._latest))
