"""The report's page: the sections in their order, drawn into one file that needs no other."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from pipeline.report.sections import compression, data, evaluation, run, training, verdict
from pipeline.report.templates import environment, vega_scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.report.facts import Facts

_logger = logging.getLogger(__name__)

# Title, template, and what arranges the facts for it.
_SECTIONS: tuple[tuple[str, str, Callable[[Facts], dict[str, Any] | None]], ...] = (
    ("Photos", "data", data.data),
    ("Training", "training", training.training),
    ("Acceleration", "acceleration", training.acceleration),
    ("Compression", "compression", compression.compression),
    ("Layers", "layers", compression.layers),
    ("Test photos", "evaluation", evaluation.evaluation),
    ("Mistakes", "mistakes", run.mistakes),
    ("Gates", "gates", run.gates),
    ("Ladder", "ladder", run.ladder),
    ("Lineage", "lineage", run.lineage),
    ("Components", "components", run.components),
    ("Settings", "settings", run.settings),
)


@dataclasses.dataclass(frozen=True)
class _Section:
    """A drawn section; `html` is escaped already."""

    key: str
    title: str
    html: str


def render(facts: Facts) -> str:
    """Draws the page.

    A section that cannot be drawn is replaced by the reason.

    Args:
        facts: Of the run.

    Returns:
        The HTML, which holds scripts, styles and pictures itself.
    """
    sections = [section for section in (_draw(facts, *each) for each in _SECTIONS) if section]
    template = environment().get_template("report/page.html.j2")
    return template.render(sections=sections, scripts=vega_scripts(), **verdict.verdict(facts))


def _draw(facts: Facts, title: str, name: str, arrange: Callable[[Facts], dict[str, Any] | None]) -> _Section | None:
    try:
        context = arrange(facts)
        if context is None:
            return None
        html = environment().get_template(f"report/{name}.html.j2").render(context)
    except Exception as error:
        # Any: a report with a gap is worth more than none.
        _logger.exception("the report's section %s cannot be drawn", title)
        reason = f"{type(error).__name__}: {error}"
        html = environment().get_template("report/gap.html.j2").render(reason=reason)
    return _Section(name, title, html)
