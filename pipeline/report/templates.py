"""What all pages are made with: the templates, and the scripts that draw the charts."""

from __future__ import annotations

import functools

import jinja2
import vl_convert

from pipeline.report import texts


@functools.cache
def environment() -> jinja2.Environment:
    """Returns where the templates of pages come from; what they show is escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=texts.percent, kilobytes=texts.kilobytes, number=texts.number)
    return made


@functools.cache
def vega_scripts() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one JavaScript module, which vl-convert carries; 0.9 MB."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
