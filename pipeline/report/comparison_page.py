"""The page of two runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.report import charts, variant_charts
from pipeline.report.chart import Chart
from pipeline.report.sections.training import shown_epochs
from pipeline.report.templates import environment, vega_scripts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.report.comparison import Comparison

_BYTES_PER_KB = 1000


def render_comparison(comparison: Comparison, names: tuple[str, str]) -> str:
    """Draws the page; it needs no other file.

    Args:
        comparison: The two runs.
        names: What to call them; they must differ.
    """
    template = environment().get_template("report/comparison.html.j2")
    return template.render(
        comparison=comparison, names=names, charts=list(_charts(comparison, names)), scripts=vega_scripts()
    )


def _charts(comparison: Comparison, names: tuple[str, str]) -> Iterator[Chart]:
    runs = list(zip(names, comparison.summaries, strict=True))
    variants = [row for name, summary in runs for row in _variants(name, summary)]
    if variants:
        caption = "Every variant of both runs: to the left is smaller, up is more accurate."
        yield Chart("variants", variant_charts.two_paretos(variants, names), caption)
    curves = {name: _accuracies(summary.get("model") or {}) for name, summary in runs}
    if any(curves.values()):
        spec = charts.training_curve(curves, "validation accuracy", ".1%", None)
        yield Chart("curves", spec, "Validation accuracy over the epochs.")


def _accuracies(model: Mapping[str, Any]) -> list[tuple[int, float | None]]:
    values = model.get("history", {}).get("val_accuracy", [])
    return [(epoch, values[epoch - 1]) for epoch in shown_epochs(len(values), model.get("best_epoch"))]


def _variants(run: str, summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shipped = (summary.get("shipped") or {}).get("name")
    for variant in summary.get("variants", ()):
        yield {
            "run": run,
            "name": variant["name"],
            "size": variant["deflated_bytes"] / _BYTES_PER_KB,
            "accuracy": variant["accuracy"],
            "latency": variant["latency_ms"],
            "state": "shipped" if variant["name"] == shipped else "not shipped",
        }
