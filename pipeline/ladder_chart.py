"""The picture of the ladder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

_PANELS = (
    ("params", "Parameters", "{:,.0f}", True),
    ("accuracy", "Test accuracy", "{:.1%}", False),
    ("train_s_per_epoch", "Training, s per epoch", "{:.2f}", False),
    ("inference_ms_per_step", "Inference, ms per step", "{:.2f}", False),
)


def draw(rungs: list[dict[str, Any]], path: Path) -> None:
    """Draws a bar for every rung in four panels, two by two: parameters, accuracy, training and inference time.

    Args:
        rungs: As in ladder.json, bottom first.
        path: PNG file to write.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True).flat
    names = [rung["name"] for rung in rungs]
    for axis, (key, title, form, logarithmic) in zip(axes, _PANELS, strict=True):
        bars = axis.barh(names, [rung[key] for rung in rungs], color=["#8a8f98"] * (len(rungs) - 1) + ["#1a7f37"])
        axis.bar_label(bars, [form.format(rung[key]) for rung in rungs], padding=3)
        axis.set_title(title)
        axis.margins(x=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if logarithmic:
            axis.set_xscale("log")
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)
