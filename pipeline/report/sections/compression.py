"""The compression: every variant's size and accuracy, the budget, and what lies in each layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pipeline.report import charts, variant_charts
from pipeline.report.chart import Chart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.report.facts import Facts

_BYTES_PER_KB = 1000


def compression(facts: Facts) -> dict[str, Any] | None:
    """Arranges the variants; None if nothing was compressed."""
    summary = facts.summary
    if not summary["variants"]:
        return None
    return {
        "variants": summary["variants"],
        "shipped": summary["shipped"]["name"],
        "dropped": summary["dropped_variants"],
        "done": _deeds(summary["compression"]["done"]),
        "skipped": summary["compression"]["skipped"],
        "charts": [_pareto(summary)],
    }


def _deeds(done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Puts what each stage noted of itself into rows of text; whoever adds a stage notes what they like."""
    return [
        {"stage": stage, "what": what.replace("_", " "), "value": _text(value)}
        for stage, note in done.items()
        for what, value in note.items()
    ]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{layer} {_text(own)}" for layer, own in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def layers(facts: Facts) -> dict[str, Any] | None:
    """Arranges the layers of the shipped variant; None if nothing was compressed."""
    summary = facts.summary
    if not summary["variants"]:
        return None
    shipped = _shipped(summary)
    rows = [
        {
            "name": layer["name"],
            "zeros": layer["sparsity"],
            "unique": layer["unique_weights"],
            "weights": math.prod(layer["shape"]),
            "shape": " x ".join(map(str, layer["shape"])),
            "note": f"{layer['unique_weights']:,} distinct",
        }
        for layer in shipped["layers"]
    ]
    caption = f"Zeros among the weights of each layer of {shipped['name']}, with the number of its distinct weights."
    return {"rows": rows, "charts": [Chart("layers", charts.layers(rows), caption)]}


def _pareto(summary: Mapping[str, Any]) -> Chart:
    budget = summary["compression"]["budget"]
    # What the budget limits is drawn; without a limit, what the selection looks at.
    size = "bytes" if budget["max_bytes"] is not None and budget["size"] == "file" else "deflated_bytes"
    rows = [_row(variant, summary, size) for variant in summary["variants"]]
    frontier = pareto_frontier([(row["name"], row["size"], row["accuracy"]) for row in rows])
    for row in rows:
        row["label"] = row["name"] if row["name"] in frontier or row["state"] == "shipped" else ""
    parent = summary["model"]["validation_accuracy"]
    spec = variant_charts.pareto(
        rows,
        frontier,
        axis="file, kB" if size == "bytes" else "deflated, kB",
        most=None if budget["max_bytes"] is None else budget["max_bytes"] / _BYTES_PER_KB,
        # What is drawn is the accuracy, and the budget may be about the balanced one.
        floor=None if parent is None or budget.get("balanced") else parent - budget["max_accuracy_drop"],
    )
    caption = (
        "Every variant: to the left is smaller, up is more accurate. The line joins those that no other one beats in "
        "both, the dashed lines are the budget."
    )
    return Chart("pareto", spec, caption)


def pareto_frontier(variants: Sequence[tuple[str, float, float]]) -> list[str]:
    """Returns the names of the variants that none is better than in both, from the smallest.

    Args:
        variants: Name, size, accuracy.
    """
    frontier, best = [], -math.inf
    for name, _, accuracy in sorted(variants, key=lambda variant: (variant[1], -variant[2])):
        if accuracy > best:
            frontier.append(name)
            best = accuracy
    return frontier


def _row(variant: Mapping[str, Any], summary: Mapping[str, Any], size: str) -> dict[str, Any]:
    within = "in budget" if variant["within_budget"] else "over budget"
    return {
        "name": variant["name"],
        "size": variant[size] / _BYTES_PER_KB,
        "accuracy": variant["accuracy"],
        "latency": variant["latency_ms"],
        "zeros": variant["sparsity"],
        "state": "shipped" if variant["name"] == summary["shipped"]["name"] else within,
    }


def _shipped(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(variant for variant in summary["variants"] if variant["name"] == summary["shipped"]["name"])
