"""What all charts are made of, as Vega-Lite. Colours are CSS variables of the page: they follow its theme and print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INK, SOFT, LINE, ACCENT, SECOND, BAD = (f"var(--{name})" for name in ("ink", "soft", "line", "accent", "second", "bad"))
ROW_HEIGHT = 22

Spec = dict[str, Any]

_CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "domainColor": LINE,
        "tickColor": LINE,
        "gridColor": LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 160,
    },
    "axisY": {"grid": False},
    "legend": {
        "labelColor": INK,
        "titleColor": INK,
        "orient": "top",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "symbolBaseFillColor": SOFT,
        "symbolBaseStrokeColor": SOFT,
    },
    "text": {"fontSize": 12},
}


def bars(rows: Sequence[Mapping[str, Any]], key: str, title: str, form: str, highlight: str) -> Spec:
    """Draws a bar for each row, its figure beside it.

    Args:
        rows: Each with "name", the figure, and whether it stands out.
        key: Name of the figure.
        title: What it is.
        form: D3 format of its values.
        highlight: Name of what says that a bar stands out.
    """
    base = alt.Chart(data_of(rows)).encode(
        y=alt.Y("name:N", sort=None, title=None),
        x=alt.X(f"{key}:Q", title=title, axis=alt.Axis(format="~s", tickCount=4)),
        tooltip=["name:N", alt.Tooltip(f"{key}:Q", title=title, format=form)],
    )
    colour = alt.condition(f"datum.{highlight}", alt.value(ACCENT), alt.value(SOFT))
    text = base.mark_text(align="left", dx=4, color=INK).encode(text=alt.Text(f"{key}:Q", format=form))
    return finish(base.mark_bar().encode(color=colour) + text, height=ROW_HEIGHT * len(rows))


def two_colours(field: str, domain: Sequence[str]) -> alt.Color:
    """Tells two kinds apart by colour, with a legend."""
    return alt.Color(f"{field}:N", title=None, scale=alt.Scale(domain=list(domain), range=[ACCENT, SECOND]))


def tooltips(**titles: str) -> list[alt.Tooltip]:
    """Makes tooltips of fields.

    Args:
        **titles: What to call a field, by its name; after a colon the D3 format, if it is a number.
    """
    tooltips = []
    for field, title in titles.items():
        name, _, form = title.partition(":")
        shown = alt.Tooltip(f"{field}:{'Q' if form else 'N'}", title=name or field)
        tooltips.append(shown.format(form) if form else shown)
    return tooltips


def data_of(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    """Puts rows into a chart."""
    return alt.Data(values=[dict(row) for row in rows])


def finish(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: float) -> Spec:
    """Returns the specification of a chart as wide as its place and `height` pixels high."""
    spec = chart.properties(width="container", height=height).to_dict()
    spec["config"] = _CONFIG
    return spec
