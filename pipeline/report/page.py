"""The report's page: the sections in their order, drawn into one file that needs no other."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import TYPE_CHECKING, Any

import jinja2
import vl_convert

from pipeline.report import texts
from pipeline.report.sections import compression, data, evaluation, run, training, verdict

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

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(percent=texts.percent, kilobytes=texts.kilobytes, number=texts.number)


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
    template = _ENVIRONMENT.get_template("report/page.html.j2")
    return template.render(sections=sections, scripts=vega_scripts(), **verdict.verdict(facts))


@functools.cache
def vega_scripts() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one JavaScript module, which vl-convert carries; 0.9 MB."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _draw(facts: Facts, title: str, name: str, arrange: Callable[[Facts], dict[str, Any] | None]) -> _Section | None:
    try:
        context = arrange(facts)
        if context is None:
            return None
        html = _ENVIRONMENT.get_template(f"report/{name}.html.j2").render(context)
    except Exception as error:
        # Any: a report with a gap is worth more than none.
        _logger.exception("the report's section %s cannot be drawn", title)
        reason = f"{type(error).__name__}: {error}"
        html = _ENVIRONMENT.get_template("report/gap.html.j2").render(reason=reason)
    return _Section(name, title, html)
