"""The charts of photos, training, layers and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from pipeline.report.vega import (
    ACCENT,
    BAD,
    INK,
    ROW_HEIGHT,
    SECOND,
    SOFT,
    bars,
    data_of,
    finish,
    tooltips,
    two_colours,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.report.statistics import NumericFeature
    from pipeline.report.vega import Spec


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
        alt.Chart(data_of(rows))
        .mark_bar()
        .encode(
            x=alt.X("sum(photos):Q", title="photos", axis=alt.Axis(tickMinStep=1)),
            y=category,
            color=alt.Color("split:N", title=None, scale=alt.Scale(range=[ACCENT, SECOND, SOFT], domain=list(splits))),
            order=alt.Order("order:Q"),
            tooltip=["class:N", "split:N", "photos:Q"],
        )
    )
    classes = len({row["class"] for row in rows})
    return finish(chart, height=ROW_HEIGHT * classes if named else 260)


def distribution(now: NumericFeature, before: NumericFeature | None) -> Spec:
    """Draws the histogram of a feature of the photos, and that of the run before as an outline."""
    bars = (
        alt.Chart(data_of(_buckets(now)))
        .mark_bar(color=ACCENT, opacity=0.8, stroke=ACCENT)
        .encode(
            x=alt.X("low:Q", bin="binned", title=now.name, scale=alt.Scale(zero=False)),
            x2="high:Q",
            y=alt.Y("share:Q", title="share of photos", axis=alt.Axis(format="%")),
            tooltip=tooltips(low="from", high="to", photos="photos:.0f"),
        )
    )
    if before is None:
        return finish(bars, height=150)
    outline = (
        alt.Chart(data_of(_buckets(before)))
        .mark_bar(filled=False, stroke=SECOND, strokeWidth=2, strokeDash=[4, 2])
        .encode(
            x=alt.X("low:Q", bin="binned"),
            x2="high:Q",
            y="share:Q",
            tooltip=tooltips(low="from", high="to", photos="photos before:.0f"),
        )
    )
    return finish(bars + outline, height=150)


def training_curve(
    curves: Mapping[str, Sequence[tuple[int, float | None]]], title: str, form: str, best: int | None
) -> Spec:
    """Draws a metric over the epochs.

    Args:
        curves: Epochs, from 1, with their values; by a name, for example "training" and "validation".
        title: Name of the metric.
        form: D3 format of its values.
        best: The epoch whose weights were kept, from 1; None if that is not known.
    """
    rows = [
        {"photos": photos, "epoch": epoch, "value": value}
        for photos, values in curves.items()
        for epoch, value in values
        if value is not None
    ]
    lines = (
        alt.Chart(data_of(rows))
        .mark_line(point=alt.OverlayMarkDef(size=25, filled=True))
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(zero=False)),
            y=alt.Y("value:Q", title=title, axis=alt.Axis(format=form), scale=alt.Scale(zero=False)),
            color=two_colours("photos", list(curves)),
            strokeDash=alt.StrokeDash("photos:N", legend=None, scale=alt.Scale(range=[[1, 0], [5, 3]])),
            tooltip=["photos:N", "epoch:Q", alt.Tooltip("value:Q", title=title, format=form)],
        )
    )
    if best is None:
        return finish(lines, height=220)
    rule = (
        alt.Chart(data_of([{"epoch": best, "kept": f"kept: epoch {best}"}]))
        .mark_rule(color=INK, strokeDash=[2, 3])
        .encode(x="epoch:Q", tooltip="kept:N")
    )
    return finish(rule + lines, height=220)


def probes(candidates: Sequence[Mapping[str, Any]]) -> Spec:
    """Draws the time of a training step of each candidate of the acceleration.

    Args:
        candidates: "name", "milliseconds" and whether it is "chosen".
    """
    return bars(candidates, "milliseconds", "ms per training step", ".2f", highlight="chosen")


def layers(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Draws the share of zeros of each layer; its distinct weights stand beside the bar.

    Args:
        rows: "name", "zeros", "unique" and "weights", in the order of the network.
    """
    base = alt.Chart(data_of(rows)).encode(
        y=alt.Y("name:N", sort=None, title=None),
        tooltip=tooltips(name="layer", zeros="zeros:.1%", unique="distinct weights", weights="weights:,"),
    )
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    bars = base.mark_bar(color=ACCENT).encode(
        x=alt.X("zeros:Q", title="zeros", axis=axis, scale=alt.Scale(domain=[0, 1.15]))
    )
    texts = base.mark_text(align="left", dx=5, color=INK).encode(x="zeros:Q", text="note:N")
    return finish(bars + texts, height=ROW_HEIGHT * len(rows))


def confusion(cells: Sequence[Mapping[str, Any]], names: Sequence[str], *, numbers: bool) -> Spec:
    """Draws a confusion matrix: a row for each true class, a column for each answer.

    Args:
        cells: "true", "answer", "photos", "share" of the row, and whether it is "right"; empty cells are left out.
        names: The classes, in order.
        numbers: Whether the numbers stand in the cells.
    """
    base = alt.Chart(data_of(cells)).encode(
        x=alt.X(
            "answer:N",
            sort=list(names),
            title="answer",
            scale=alt.Scale(domain=list(names)),
            axis=alt.Axis(orient="top", labelAngle=0 if numbers else 270),
        ),
        y=alt.Y("true:N", sort=list(names), title="true class", scale=alt.Scale(domain=list(names))),
        tooltip=tooltips(true="true class", answer="answer", photos="photos", share="of the class:.1%"),
    )
    rectangles = base.mark_rect().encode(
        color=alt.Color("right:N", title=None, scale=alt.Scale(domain=["right", "wrong"], range=[ACCENT, BAD])),
        opacity=alt.Opacity("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.15, 0.6])),
    )
    texts = base.mark_text(color=INK).encode(text="photos:Q")
    chart = alt.layer(rectangles, texts) if numbers else rectangles
    return finish(chart, height=max(180, min(620, 26 * len(names) + 40)))


def class_accuracies(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Draws the accuracy of each class with its interval, and that of the float model as a tick.

    Args:
        rows: "name", "accuracy", "lower", "upper", "parent", "photos".
    """
    base = alt.Chart(data_of(rows)).encode(
        y=alt.Y("name:N", sort=None, title=None),
        tooltip=tooltips(
            name="class", photos="test photos", accuracy="accuracy:.1%", lower="from:.1%", upper="to:.1%",
            parent="float model:.1%",
        ),
    )  # fmt: skip
    x = alt.X("lower:Q", title="test accuracy", axis=alt.Axis(format="%", tickCount=6), scale=alt.Scale(domain=[0, 1]))
    return finish(
        base.mark_rule(color=ACCENT, strokeWidth=2).encode(x=x, x2="upper:Q")
        + base.mark_tick(color=SECOND, thickness=3, size=14).encode(x="parent:Q")
        + base.mark_point(color=ACCENT, filled=True, size=70, opacity=1).encode(x="accuracy:Q"),
        height=ROW_HEIGHT * len(rows),
    )


def rungs(rows: Sequence[Mapping[str, Any]], key: str, title: str, form: str) -> Spec:
    """Draws one figure of each rung of the ladder.

    Args:
        rows: The rungs, with "name", the figure, and whether it is the "last".
        key: Name of the figure.
        title: What it is.
        form: D3 format of its values.
    """
    return bars(rows, key, title, form, highlight="last")


def _buckets(feature: NumericFeature) -> list[dict[str, float]]:
    return [
        {"low": low, "high": high, "photos": photos, "share": photos / feature.photos if feature.photos else 0.0}
        for low, high, photos in feature.histogram
    ]
