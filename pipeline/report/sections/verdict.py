"""The first screen: shipped or not, why, and the figures that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.release_gate.engine import FIDELITY
from pipeline.report.evaluations import find_evaluation, photos_in
from pipeline.report.texts import interval_text, kilobytes, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.report.facts import Facts


def verdict(facts: Facts) -> dict[str, Any]:
    """Says what became of the run.

    Returns:
        `headline`, `good` (None for a run that was only stopped), `reasons`, and `tiles` of title, figure and note.
    """
    summary = facts.summary
    good, headline = _headline(facts)
    return {
        "headline": headline,
        "good": good,
        "reasons": list(_reasons(facts)),
        "tiles": list(_tiles(facts)) if summary["shipped"] else [],
        "run": summary["run"],
        "pushed": summary["pushed"],
    }


def _headline(facts: Facts) -> tuple[bool | None, str]:
    status = facts.summary["status"]
    if status == "pushed":
        return True, f"Shipped: {facts.summary['shipped']['name']}"
    if status == "refused":
        return False, "Not shipped"
    if facts.trouble or any(component.state == "failed" for component in facts.components):
        return False, "The run failed"
    return None, "The run stopped before the gates had decided"


def _reasons(facts: Facts) -> Iterator[str]:
    gates = facts.summary["gates"]
    if facts.summary["status"] == "pushed":
        yield "Every gate agreed: " + _agreed(facts)
        return
    if facts.trouble:
        yield facts.trouble
    if not gates:
        return
    refused = [check for check in gates["checks"] if check["verdict"] == "refused"]
    yield f"Refused by the {' and the '.join(gates['refused_by'])} gate. Nothing was pushed."
    for check in refused[:3]:
        about = "" if check["slice"] is None else f", class {check['slice']}"
        yield f"{check['artifact']}, {check['rule']}{about}: {check['reason']}"
    if len(refused) > 3:
        yield f"{len(refused) - 3} more rules refused; see Gates."


def _agreed(facts: Facts) -> str:
    shipped, gates = facts.summary["shipped"], facts.summary["gates"]
    passed = sum(check["verdict"] == "passed" for check in gates["checks"])
    return (
        f"{passed} {'check' if passed == 1 else 'checks'} passed. Of {len(facts.summary['variants'])} variants, "
        f"{shipped['name']} is the smallest inside the budget, and of equally small ones the most accurate."
    )


def _tiles(facts: Facts) -> Iterator[tuple[str, str, str]]:
    summary = facts.summary
    shipped = summary["shipped"]
    variant = next(v for v in summary["variants"] if v["name"] == shipped["name"])
    photos = photos_in(find_evaluation(summary, FIDELITY, "tflite"))
    yield "Test accuracy", percent(shipped["accuracy"]), interval_text(shipped["accuracy"], photos)
    yield "File", kilobytes(shipped["bytes"]), f"{kilobytes(shipped['deflated_bytes'])} deflated"
    yield "Latency", f"{shipped['latency_ms']:.3f} ms", "one photo, one thread, median"
    naive = variant["times_smaller_than_naive"]
    yield "Smaller than naive", f"{naive:,.0f} times", _naive_note(summary)
    yield "Float model", percent(summary["model"]["accuracy"]), f"{summary['model']['params']:,} parameters"
    yield "Answers as it does", percent(variant["agreement"]), "of the validation photos"


def _naive_note(summary: Mapping[str, Any]) -> str:
    naive = summary["compression"]["naive"]
    return f"{kilobytes(naive['bytes'])}, {naive['params']:,} parameters"
