"""The run itself: gates, mistakes, ladder, what was made from what, how long it took, with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.release_gate.engine import FIDELITY
from pipeline.config import PipelineSettings
from pipeline.ladder_table import HEADINGS, ladder_rows
from pipeline.report import charts, lineage_chart
from pipeline.report.chart import Chart
from pipeline.report.comparison import flat_settings
from pipeline.report.evaluations import confusions, find_evaluation
from pipeline.report.sections.training import how_text

if TYPE_CHECKING:
    from pipeline.report.facts import Facts

_RUNGS = (
    ("params", "parameters", ",.0f"),
    ("accuracy", "test accuracy", ".1%"),
    ("train_s_per_epoch", "training, s per epoch", ".2f"),
    ("inference_ms_per_step", "inference, ms per step", ".2f"),
)


def mistakes(facts: Facts) -> dict[str, Any] | None:
    """Arranges the photos that the shipped model gets wrong; None if nothing was evaluated."""
    if not facts.summary["shipped"]:
        return None
    measured = find_evaluation(facts.summary, FIDELITY, "tflite")
    classes = measured["slices"].get("class", {}).values() if measured else ()
    return {
        "mistakes": facts.mistakes,
        "wrong_count": sum(confusion.photos for confusion in confusions(measured)) if measured else 0,
        "lost": facts.lost,
        "lost_count": sum(each["only_baseline_right"] or 0 for each in classes),
        "gained_count": sum(each["only_candidate_right"] or 0 for each in classes),
        "evaluated": measured is not None,
        "missing": facts.missing.get("mistakes"),
    }


def gates(facts: Facts) -> dict[str, Any] | None:
    """Arranges what was checked; None if the run did not get to the gates."""
    judged = facts.summary["gates"]
    if not judged:
        return None
    checks = judged["checks"]
    # Hundreds of classes that passed are of no interest one by one.
    shown = [check for check in checks if check["verdict"] == "refused" or check["slice"] is None]
    return {"gates": judged, "checks": shown, "others": len(checks) - len(shown)}


def ladder(facts: Facts) -> dict[str, Any] | None:
    """Arranges the ladder; None if it was not climbed in this directory."""
    climbed = facts.ladder
    if not climbed:
        reason = facts.missing.get("ladder")
        return {"missing": reason} if reason else None
    rungs = climbed["rungs"]
    last = rungs[-1]
    rows = [{"name": rung["name"], "last": rung is last, **{key: rung[key] for key, _, _ in _RUNGS}} for rung in rungs]
    return {
        "missing": None,
        "ladder": climbed,
        "headings": HEADINGS,
        "rows": ladder_rows(rungs, climbed["lesson"]),
        "last": last,
        "how": how_text(last["execution"]),
        "charts": [
            Chart(f"ladder-{key}", charts.rungs(rows, key, title, form), f"{title.capitalize()} of each rung.")
            for key, title, form in _RUNGS
        ],
    }


def lineage(facts: Facts) -> dict[str, Any] | None:
    """Arranges what was made from what; None if nothing is known of it."""
    graph = facts.lineage
    if not graph:
        reason = facts.missing.get("lineage")
        return {"charts": [], "artifacts": [], "missing": reason} if reason else None
    caption = (
        "Squares are components, circles are artifacts with their ids in metadata.db; everything is made from what "
        "stands above it."
    )
    made_by = {made: maker for maker, made in graph.edges if maker.startswith("component")}
    labels = {node.key: node.label for node in graph.nodes}
    artifacts = [
        {"label": node.label, "uri": node.detail, "maker": labels[made_by[node.key]] if node.key in made_by else ""}
        for node in graph.nodes
        if node.kind == "artifact"
    ]
    return {
        "charts": [Chart("lineage", lineage_chart.lineage(graph), caption, wide=True)],
        "artifacts": artifacts,
        "missing": None,
    }


def components(facts: Facts) -> dict[str, Any] | None:
    """Arranges the components with their times; None if nothing is known of them."""
    return {"components": facts.components} if facts.components else None


def settings(facts: Facts) -> dict[str, Any] | None:
    """Arranges every setting; None if they are not known."""
    used = facts.summary["settings"]
    if not used:
        return None
    defaults = dict(flat_settings(PipelineSettings().model_dump(mode="json")))
    rows = [(key, value, key in defaults and defaults[key] != value) for key, value in flat_settings(used)]
    return {"rows": rows, "changed": [row for row in rows if row[2]]}
