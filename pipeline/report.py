"""The report: one self-contained page that says what was trained, what shipped, and why."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import jinja2

from pipeline.ladder_table import HEADINGS, ladder_rows
from trainer_module.files import write_whole

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)


def write_report(workspace: Workspace) -> None:
    """Writes the page of the latest run, with the ladder if there is one.

    Args:
        workspace: Output directory; it has a summary.json.
    """
    summary = json.loads(workspace.summary_file.read_text(encoding="utf-8"))
    write_whole(
        workspace.report, _ENVIRONMENT.get_template("report.html.j2").render(summary, ladder=_ladder(workspace))
    )


def _ladder(workspace: Workspace) -> dict[str, Any] | None:
    """Returns ladder.json with its table as text and the picture as a data URI."""
    if not (workspace.ladder_file.exists() and workspace.ladder_picture.exists()):
        return None
    ladder = json.loads(workspace.ladder_file.read_text(encoding="utf-8"))
    picture = base64.b64encode(workspace.ladder_picture.read_bytes()).decode()
    return {
        **ladder,
        "headings": HEADINGS,
        "rows": ladder_rows(ladder["rungs"], ladder["lesson"]),
        "picture": f"data:image/png;base64,{picture}",
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"  # noqa: RUF001 (a dash for no value)


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.1f} kB"


_ENVIRONMENT.filters.update(percent=_percent, kilobytes=_kilobytes)
