"""The report: one self-contained page that says what was trained, what shipped, and why."""

from __future__ import annotations

from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)


def render_report(summary: dict[str, Any]) -> str:
    """Renders the page.

    Args:
        summary: The content of summary.json.

    Returns:
        HTML that needs no other file and no network.
    """
    _ENVIRONMENT.filters.update(percent=_percent, kilobytes=_kilobytes)
    return _ENVIRONMENT.get_template("report.html.j2").render(summary)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"  # noqa: RUF001 (a dash for no value)


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.1f} kB"
