"""The report's charts, as Vega-Lite. Colours are CSS variables of the page, so that they follow its theme and print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.report.lineage import Lineage, Node
    from pipeline.report.statistics import NumericFeature

_INK, _SOFT, _LINE, _ACCENT, _SECOND, _BAD = (
    f"var(--{name})" for name in ("ink", "soft", "line", "accent", "second", "bad")
)
# From fast to slow; each can be told from white and from black.
_LATENCY_RANGE = ("#0f9d76", "#e0a100", "#d1462f")
_LOG = alt.Scale(type="log", nice=False, padding=25)
_SHIPPED_LARGER = alt.condition("datum.state === 'shipped'", alt.value(320), alt.value(110))
_ROW_HEIGHT = 22
_LAYER_HEIGHT = 44
# More nodes in a layer than this, and by what share of a layer's height every second one is lowered.
_CROWDED, _LOWERED = 5, 0.45

Spec = dict[str, Any]


def class_balance(splits: Mapping[str, Mapping[str, int]], *, named: bool) -> Spec:
    """Draws the number of photos of each class as a bar, stacked by split.

    Args:
        splits: Photos by split and class.
        named: Whether every bar bears its class's name; if not, the bars are sorted by size only.
    """
    rows = [
        {"class": name, "split": split, "photos": count, "order": order}
        for order, (split, counts) in enumerate(splits.items())
        for name, count in counts.items()
    ]
    category = alt.Y("class:N", sort=None if named else "-x", title=None)
    if not named:
        category = category.axis(labels=False, ticks=False, title="classes, the largest first")
    chart = (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            x=alt.X("sum(photos):Q", title="photos", axis=alt.Axis(tickMinStep=1)),
            y=category,
            color=alt.Color(
                "split:N", title=None, scale=alt.Scale(range=[_ACCENT, _SECOND, _SOFT], domain=list(splits))
            ),
            order=alt.Order("order:Q"),
            tooltip=["class:N", "split:N", "photos:Q"],
        )
    )
    classes = len({row["class"] for row in rows})
    return _finish(chart, height=_ROW_HEIGHT * classes if named else 260)


def distribution(now: NumericFeature, before: NumericFeature | None) -> Spec:
    """Draws the histogram of a feature of the photos, and that of the run before as an outline."""
    bars = (
        alt.Chart(_data(_buckets(now)))
        .mark_bar(color=_ACCENT, opacity=0.8, stroke=_ACCENT)
        .encode(
            x=alt.X("low:Q", bin="binned", title=now.name, scale=alt.Scale(zero=False)),
            x2="high:Q",
            y=alt.Y("share:Q", title="share of photos", axis=alt.Axis(format="%")),
            tooltip=_tooltips(low="from", high="to", photos="photos:.0f"),
        )
    )
    if before is None:
        return _finish(bars, height=150)
    outline = (
        alt.Chart(_data(_buckets(before)))
        .mark_bar(filled=False, stroke=_SECOND, strokeWidth=2, strokeDash=[4, 2])
        .encode(
            x=alt.X("low:Q", bin="binned"),
            x2="high:Q",
            y="share:Q",
            tooltip=_tooltips(low="from", high="to", photos="photos before:.0f"),
        )
    )
    return _finish(bars + outline, height=150)


def training_curve(curves: Mapping[str, Sequence[float | None]], title: str, form: str, best: int | None) -> Spec:
    """Draws a metric over the epochs.

    Args:
        curves: Values of each epoch, by the name of the photos: "training", "validation".
        title: Name of the metric.
        form: D3 format of its values.
        best: The epoch whose weights were kept, from 1; None if that is not known.
    """
    rows = [
        {"photos": photos, "epoch": epoch, "value": value}
        for photos, values in curves.items()
        for epoch, value in enumerate(values, 1)
        if value is not None
    ]
    lines = (
        alt.Chart(_data(rows))
        .mark_line(point=alt.OverlayMarkDef(size=25, filled=True))
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(zero=False)),
            y=alt.Y("value:Q", title=title, axis=alt.Axis(format=form), scale=alt.Scale(zero=False)),
            color=_two_colours("photos", list(curves)),
            strokeDash=alt.StrokeDash("photos:N", legend=None, scale=alt.Scale(range=[[1, 0], [5, 3]])),
            tooltip=["photos:N", "epoch:Q", alt.Tooltip("value:Q", title=title, format=form)],
        )
    )
    if best is None:
        return _finish(lines, height=220)
    rule = (
        alt.Chart(_data([{"epoch": best, "kept": f"kept: epoch {best}"}]))
        .mark_rule(color=_INK, strokeDash=[2, 3])
        .encode(x="epoch:Q", tooltip="kept:N")
    )
    return _finish(rule + lines, height=220)


def probes(candidates: Sequence[Mapping[str, Any]]) -> Spec:
    """Draws the time of a training step of each candidate of the acceleration.

    Args:
        candidates: "name", "milliseconds" and whether it is "chosen".
    """
    return _bars(candidates, "milliseconds", "ms per training step", ".2f", highlight="chosen")


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
        alt.Chart(_data(on_frontier)).mark_line(interpolate="step-after", color=_SOFT).encode(x=x, y=y, order="size:Q")
    ]
    if floor is not None:
        parts.append(_limit({"accuracy": floor, "limit": f"budget: at least {floor:.2%}"}, y="accuracy:Q"))
    if most is not None:
        parts.append(_limit({"size": most, "limit": f"budget: at most {most:,.1f} kB"}, x="size:Q"))
    states, shapes = ("shipped", "in budget", "over budget"), ("diamond", "circle", "cross")
    points = alt.Chart(_data(variants)).encode(x=x, y=y)
    parts.append(
        points.mark_point(filled=True, opacity=1, stroke=_INK, strokeWidth=1).encode(
            color=alt.Color("latency:Q", title="latency, ms", scale=alt.Scale(range=_LATENCY_RANGE)),
            shape=alt.Shape("state:N", title=None, scale=alt.Scale(domain=states, range=shapes)),
            size=_SHIPPED_LARGER,
            tooltip=_tooltips(
                name="variant", size="kB:,.1f", accuracy="accuracy:.2%", latency="latency in ms:.3f", zeros="zeros:.0%",
                state="budget",
            ),
        )
    )  # fmt: skip
    parts.append(points.mark_text(align="left", dx=10, dy=-8, color=_INK).encode(text="label:N"))
    return _finish(alt.layer(*parts), height=360)


def layers(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Draws the share of zeros of each layer; its distinct weights stand beside the bar.

    Args:
        rows: "name", "zeros", "unique" and "weights", in the order of the network.
    """
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("name:N", sort=None, title=None),
        tooltip=_tooltips(name="layer", zeros="zeros:.1%", unique="distinct weights", weights="weights:,"),
    )
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    bars = base.mark_bar(color=_ACCENT).encode(
        x=alt.X("zeros:Q", title="zeros", axis=axis, scale=alt.Scale(domain=[0, 1.15]))
    )
    texts = base.mark_text(align="left", dx=5, color=_INK).encode(x="zeros:Q", text="note:N")
    return _finish(bars + texts, height=_ROW_HEIGHT * len(rows))


def confusion(cells: Sequence[Mapping[str, Any]], names: Sequence[str], *, numbers: bool) -> Spec:
    """Draws a confusion matrix: a row for each true class, a column for each answer.

    Args:
        cells: "true", "answer", "photos", "share" of the row, and whether it is "right"; empty cells are left out.
        names: The classes, in order.
        numbers: Whether the numbers stand in the cells.
    """
    base = alt.Chart(_data(cells)).encode(
        x=alt.X(
            "answer:N",
            sort=list(names),
            title="answer",
            scale=alt.Scale(domain=list(names)),
            axis=alt.Axis(orient="top", labelAngle=0 if numbers else 270),
        ),
        y=alt.Y("true:N", sort=list(names), title="true class", scale=alt.Scale(domain=list(names))),
        tooltip=_tooltips(true="true class", answer="answer", photos="photos", share="of the class:.1%"),
    )
    rectangles = base.mark_rect().encode(
        color=alt.Color("right:N", title=None, scale=alt.Scale(domain=["right", "wrong"], range=[_ACCENT, _BAD])),
        opacity=alt.Opacity("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.15, 0.6])),
    )
    texts = base.mark_text(color=_INK).encode(text="photos:Q")
    chart = alt.layer(rectangles, texts) if numbers else rectangles
    return _finish(chart, height=max(180, min(620, 26 * len(names) + 40)))


def class_accuracies(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Draws the accuracy of each class with its interval, and that of the float model as a tick.

    Args:
        rows: "name", "accuracy", "lower", "upper", "parent", "photos".
    """
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("name:N", sort=None, title=None),
        tooltip=_tooltips(
            name="class", photos="test photos", accuracy="accuracy:.1%", lower="from:.1%", upper="to:.1%",
            parent="float model:.1%",
        ),
    )  # fmt: skip
    x = alt.X("lower:Q", title="test accuracy", axis=alt.Axis(format="%", tickCount=6), scale=alt.Scale(domain=[0, 1]))
    return _finish(
        base.mark_rule(color=_ACCENT, strokeWidth=2).encode(x=x, x2="upper:Q")
        + base.mark_tick(color=_SECOND, thickness=3, size=14).encode(x="parent:Q")
        + base.mark_point(color=_ACCENT, filled=True, size=70, opacity=1).encode(x="accuracy:Q"),
        height=_ROW_HEIGHT * len(rows),
    )


def rungs(rows: Sequence[Mapping[str, Any]], key: str, title: str, form: str) -> Spec:
    """Draws one figure of each rung of the ladder.

    Args:
        rows: The rungs, with "name", the figure, and whether it is the "last".
        key: Name of the figure.
        title: What it is.
        form: D3 format of its values.
    """
    return _bars(rows, key, title, form, highlight="last")


def two_paretos(variants: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> Spec:
    """Draws size against accuracy of the variants of two runs; what shipped is a diamond.

    Args:
        variants: "run", "name", "size" in kB, "accuracy", "latency" in ms, "state": "shipped" or "not shipped".
        runs: Names of the runs.
    """
    states, shapes = ("shipped", "not shipped"), ("diamond", "circle")
    x = alt.X("size:Q", title="deflated, kB", axis=alt.Axis(tickCount=5), scale=_LOG)
    y = alt.Y("accuracy:Q", title="validation accuracy", axis=alt.Axis(format=".1%"), scale=alt.Scale(zero=False))
    points = alt.Chart(_data(variants)).mark_point(filled=True, opacity=0.85, stroke=_INK, strokeWidth=1)
    chart = points.encode(
        x=x,
        y=y,
        color=_two_colours("run", runs),
        shape=alt.Shape("state:N", title=None, scale=alt.Scale(domain=states, range=shapes)),
        size=_SHIPPED_LARGER,
        tooltip=_tooltips(
            run="run", name="variant", size="kB:,.1f", accuracy="accuracy:.2%", latency="latency in ms:.3f"
        ),
    )
    return _finish(chart, height=320)


def lineage(graph: Lineage) -> Spec:
    """Draws components as squares and artifacts as circles, from above what was there first."""
    places = {node.key: (node.position, node.layer + _stagger(graph, node)) for node in graph.nodes}
    labels = {node.key: node.label for node in graph.nodes}
    nodes = [
        {"x": x, "y": y, "kind": node.kind, "label": node.label, "detail": node.detail}
        for node, (x, y) in zip(graph.nodes, places.values(), strict=True)
    ]
    edges = [
        dict(zip(("x", "y", "x2", "y2"), (*places[above], *places[below]), strict=True))
        | {"what": f"{labels[above]} → {labels[below]}"}
        for above, below in graph.edges
    ]
    depth = max((node.layer for node in graph.nodes), default=0)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(nice=False, zero=False, domain=[0, 1]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(reverse=True, nice=False, zero=False, domain=[-0.5, depth + 0.5]))
    lines = alt.Chart(_data(edges)).mark_rule(color=_SOFT, opacity=0.5, strokeWidth=1.5)
    points = alt.Chart(_data(nodes)).encode(x=x, y=y, tooltip=_tooltips(label="", kind="", detail=""))
    kinds = ["component", "artifact"]
    shape = alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds, range=["square", "circle"]))
    chart = alt.layer(
        lines.encode(x=x, y=y, x2="x2:Q", y2="y2:Q", tooltip="what:N"),
        points.mark_point(filled=True, size=110, opacity=1).encode(shape=shape, color=_two_colours("kind", kinds)),
        points.mark_text(align="left", dx=9, color=_INK).encode(text="label:N"),
    )
    return _finish(chart, height=_LAYER_HEIGHT * (depth + 1))


def _stagger(graph: Lineage, node: Node) -> float:
    """Lowers every second node of a crowded layer, whose labels would run into each other."""
    layer = [other.key for other in graph.nodes if other.layer == node.layer]
    return _LOWERED * (layer.index(node.key) % 2) if len(layer) > _CROWDED else 0.0


def _bars(rows: Sequence[Mapping[str, Any]], key: str, title: str, form: str, highlight: str) -> Spec:
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("name:N", sort=None, title=None),
        x=alt.X(f"{key}:Q", title=title, axis=alt.Axis(format="~s", tickCount=4)),
        tooltip=["name:N", alt.Tooltip(f"{key}:Q", title=title, format=form)],
    )
    colour = alt.condition(f"datum.{highlight}", alt.value(_ACCENT), alt.value(_SOFT))
    text = base.mark_text(align="left", dx=4, color=_INK).encode(text=alt.Text(f"{key}:Q", format=form))
    return _finish(base.mark_bar().encode(color=colour) + text, height=_ROW_HEIGHT * len(rows))


def _limit(row: Mapping[str, Any], **place: str) -> alt.LayerChart:
    base = alt.Chart(_data([row])).encode(**place, tooltip="limit:N")
    rule = base.mark_rule(color=_BAD, strokeDash=[6, 4])
    if "y" in place:
        return rule + base.mark_text(align="left", dx=4, dy=10, color=_BAD).encode(x=alt.value(0), text="limit:N")
    return rule + base.mark_text(align="left", dx=4, dy=4, color=_BAD).encode(y=alt.value(0), text="limit:N")


def _two_colours(field: str, domain: Sequence[str]) -> alt.Color:
    return alt.Color(f"{field}:N", title=None, scale=alt.Scale(domain=list(domain), range=[_ACCENT, _SECOND]))


def _tooltips(**titles: str) -> list[alt.Tooltip]:
    """Makes tooltips of fields: the title, then after a colon the D3 format of a number."""
    tooltips = []
    for field, title in titles.items():
        name, _, form = title.partition(":")
        shown = alt.Tooltip(f"{field}:{'Q' if form else 'N'}", title=name or field)
        tooltips.append(shown.format(form) if form else shown)
    return tooltips


def _buckets(feature: NumericFeature) -> list[dict[str, float]]:
    return [
        {"low": low, "high": high, "photos": photos, "share": photos / feature.photos if feature.photos else 0.0}
        for low, high, photos in feature.histogram
    ]


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.Data(values=[dict(row) for row in rows])


def _finish(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: float) -> Spec:
    spec = chart.properties(width="container", height=height).to_dict()
    spec["config"] = _CONFIG
    return spec


_CONFIG = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "domainColor": _LINE,
        "tickColor": _LINE,
        "gridColor": _LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 160,
    },
    "axisY": {"grid": False},
    "legend": {
        "labelColor": _INK,
        "titleColor": _INK,
        "orient": "top",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "symbolBaseFillColor": _SOFT,
        "symbolBaseStrokeColor": _SOFT,
    },
    "text": {"fontSize": 12},
}
