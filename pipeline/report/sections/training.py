"""The training: its curves, and how its steps were executed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pipeline.report import charts
from pipeline.report.chart import Chart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.report.facts import Facts

# Balanced accuracy is there with class weights alone.
_METRICS = (
    ("accuracy", "accuracy", ".1%"),
    ("balanced_accuracy", "balanced accuracy", ".1%"),
    ("loss", "loss", ".3f"),
)
# More are thinned out, so that thousands of epochs can be looked at.
_SHOWN_EPOCHS = 400


def training(facts: Facts) -> dict[str, Any] | None:
    """Arranges curves and epochs; None if nothing was trained."""
    model = facts.summary["model"]
    if not model:
        return None
    teacher = model.get("teacher")
    return {
        "model": model,
        "acceleration": facts.summary["acceleration"],
        "charts": [*_curves(model, "student"), *(_curves(teacher, "teacher") if teacher else ())],
        "teacher": teacher,
        "epochs": _epochs(model),
    }


def acceleration(facts: Facts) -> dict[str, Any] | None:
    """Arranges the candidates of the acceleration; None if nothing was trained."""
    choice = facts.summary["acceleration"]
    if not choice:
        return None
    rows = [
        {
            "name": how_text(probe["candidate"]),
            "milliseconds": None if probe["seconds_per_step"] is None else 1000 * probe["seconds_per_step"],
            "loss": probe["loss"],
            "outcome": probe["outcome"],
            "chosen": probe["candidate"] == choice["chosen"],
        }
        for probe in choice.get("probes", ())
    ]
    timed = [row for row in rows if row["milliseconds"] is not None]
    caption = "Time of a training step of each candidate that was timed; the chosen one stands out."
    return {
        "choice": choice,
        "chosen": how_text(choice["chosen"]),
        "rows": rows,
        "charts": [Chart("probes", charts.probes(timed), caption)] if timed else [],
    }


def how_text(how: Mapping[str, Any]) -> str:
    """Says how steps are executed, for example "bfloat16, XLA, 8 steps a call"."""
    steps = how["steps_per_execution"]
    parts = [how["precision"], "XLA" if how["jit"] else "no XLA", f"{steps} step{'s' if steps > 1 else ''} a call"]
    return ", ".join(parts)


def _curves(model: Mapping[str, Any], who: str) -> Iterator[Chart]:
    history, best = model["history"], model.get("best_epoch")
    whose = "" if who == "student" else " of the teacher"
    for key, title, form in _METRICS:
        if key == "balanced_accuracy" and key not in history:
            continue
        curves = {
            photos: [(epoch, history[name][epoch - 1]) for epoch in shown_epochs(len(history.get(name, ())), best)]
            for photos, name in (("training", key), ("validation", f"val_{key}"))
        }
        spec = charts.training_curve(curves, title, form, best)
        yield Chart(f"{who}-{key}", spec, f"{title.capitalize()}{whose} over the epochs.")


def shown_epochs(epochs: int, best: int | None) -> list[int]:
    """Returns the epochs that are shown, from 1: evenly spread where there are very many; the best one always."""
    step = math.ceil(epochs / _SHOWN_EPOCHS) or 1
    kept = {best} if best and best <= epochs else set()
    return sorted({*range(1, epochs + 1, step), *kept})


def _epochs(model: Mapping[str, Any]) -> list[tuple[int, list[float | None]]]:
    """Returns loss, accuracy, validation loss and validation accuracy of each epoch that is shown."""
    history = model["history"]
    columns = [history.get(name, []) for name in ("loss", "accuracy", "val_loss", "val_accuracy")]
    shown = shown_epochs(max(map(len, columns)), model.get("best_epoch"))
    return [(epoch, [column[epoch - 1] if epoch <= len(column) else None for column in columns]) for epoch in shown]
