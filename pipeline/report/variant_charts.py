"""The charts of variants: what each costs and what it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from pipeline.report.vega import BAD, INK, SOFT, data_of, finish, tooltips, two_colours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.report.vega import Spec

# From fast to slow; each can be told from white and from black.
_LATENCY_RANGE = ("#0f9d76", "#e0a100", "#d1462f")
_LOG = alt.Scale(type="log", nice=False, padding=25)
_SHIPPED_LARGER = alt.condition("datum.state === 'shipped'", alt.value(320), alt.value(110))


def pareto(
    variants: Sequence[Mapping[str, Any]], frontier: Sequence[str], axis: str, most: float | None, floor: float | None
) -> Spec:
    """Draws size against accuracy, with latency as colour.

    Args:
        variants: "name", "size" in kB, "accuracy", "latency" in ms, "state", "zeros", "label".
        frontier: Names of the variants that none is better than in both.
        axis: What the size is.
        most: The budget's size in kB; None if there is no limit.
        floor: The budget's lowest accuracy; None if it is not known.
    """
    on_frontier = [variant for variant in variants if variant["name"] in frontier]
    x = alt.X("size:Q", title=axis, axis=alt.Axis(tickCount=5), scale=_LOG)
    y = alt.Y(
        "accuracy:Q", title="validation accuracy", axis=alt.Axis(format=".1%"), scale=alt.Scale(zero=False, padding=15)
    )
    parts: list[alt.Chart | alt.LayerChart] = [
        alt.Chart(data_of(on_frontier)).mark_line(interpolate="step-after", color=SOFT).encode(x=x, y=y, order="size:Q")
    ]
    if floor is not None:
        parts.append(_limit({"accuracy": floor, "limit": f"budget: at least {floor:.2%}"}, y="accuracy:Q"))
    if most is not None:
        parts.append(_limit({"size": most, "limit": f"budget: at most {most:,.1f} kB"}, x="size:Q"))
    states, shapes = ("shipped", "in budget", "over budget"), ("diamond", "circle", "cross")
    points = alt.Chart(data_of(variants)).encode(x=x, y=y)
    parts.append(
        points.mark_point(filled=True, opacity=1, stroke=INK, strokeWidth=1).encode(
            color=alt.Color("latency:Q", title="latency, ms", scale=alt.Scale(range=_LATENCY_RANGE)),
            shape=alt.Shape("state:N", title=None, scale=alt.Scale(domain=states, range=shapes)),
            size=_SHIPPED_LARGER,
            tooltip=tooltips(
                name="variant", size="kB:,.1f", accuracy="accuracy:.2%", latency="latency in ms:.3f", zeros="zeros:.0%",
                state="budget",
            ),
        )
    )  # fmt: skip
    parts.append(points.mark_text(align="left", dx=10, dy=-8, color=INK).encode(text="label:N"))
    return finish(alt.layer(*parts), height=360)


def two_paretos(variants: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> Spec:
    """Draws size against accuracy of the variants of two runs; what shipped is a diamond.

    Args:
        variants: "run", "name", "size" in kB, "accuracy", "latency" in ms, "state": "shipped" or "not shipped".
        runs: Names of the runs.
    """
    states, shapes = ("shipped", "not shipped"), ("diamond", "circle")
    x = alt.X("size:Q", title="deflated, kB", axis=alt.Axis(tickCount=5), scale=_LOG)
    y = alt.Y("accuracy:Q", title="validation accuracy", axis=alt.Axis(format=".1%"), scale=alt.Scale(zero=False))
    points = alt.Chart(data_of(variants)).mark_point(filled=True, opacity=0.85, stroke=INK, strokeWidth=1)
    chart = points.encode(
        x=x,
        y=y,
        color=two_colours("run", runs),
        shape=alt.Shape("state:N", title=None, scale=alt.Scale(domain=states, range=shapes)),
        size=_SHIPPED_LARGER,
        tooltip=tooltips(
            run="run", name="variant", size="kB:,.1f", accuracy="accuracy:.2%", latency="latency in ms:.3f"
        ),
    )
    return finish(chart, height=320)


def _limit(row: Mapping[str, Any], **place: str) -> alt.LayerChart:
    base = alt.Chart(data_of([row])).encode(**place, tooltip="limit:N")
    rule = base.mark_rule(color=BAD, strokeDash=[6, 4])
    if "y" in place:
        return rule + base.mark_text(align="left", dx=4, dy=10, color=BAD).encode(x=alt.value(0), text="limit:N")
    return rule + base.mark_text(align="left", dx=4, dy=4, color=BAD).encode(y=alt.value(0), text="limit:N")
