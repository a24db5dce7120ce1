"""What the shipped model answers to the test photos: which classes it takes for which, and how sure that is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from components.release_gate.engine import FIDELITY
from pipeline.report import charts
from pipeline.report.chart import Chart
from pipeline.report.evaluations import class_figures, confusion_cells, confusions, find_evaluation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.report.evaluations import ClassFigures, Confusion
    from pipeline.report.facts import Facts

_CLASSES_IN_MATRIX = 30
_NUMBERED_CLASSES = 20
_CLASSES_IN_CHART = 40
_LISTED_CONFUSIONS = 20


def evaluation(facts: Facts) -> dict[str, Any] | None:
    """Arranges what the fidelity gate measured on the .tflite; None if it measured nothing."""
    measured = find_evaluation(facts.summary, FIDELITY, "tflite")
    figures = class_figures(measured) if measured else []
    if not (measured and figures):
        return None
    mixed_up = confusions(measured)
    return {
        "metrics": measured["metrics"],
        "figures": figures,
        "confusions": mixed_up[:_LISTED_CONFUSIONS],
        "confused": len(mixed_up),
        "slices": [
            (kind, name, result)
            for kind in ("size", "brightness")
            for name, result in measured["slices"].get(kind, {}).items()
        ],
        "charts": [_matrix(measured, figures, mixed_up), _accuracies(figures)],
    }


def _matrix(measured: Mapping[str, Any], figures: Sequence[ClassFigures], mixed_up: Sequence[Confusion]) -> Chart:
    names = [each.name for each in figures]
    caption = "Test photos by true class and answer. The fuller the colour, the larger the share of the class."
    if len(names) > _CLASSES_IN_MATRIX:
        names = _most_confused(names, mixed_up)
        caption += f" The {len(names)} classes with the most mistakes, of {len(figures)}."
    spec = charts.confusion(confusion_cells(measured, names), names, numbers=len(names) <= _NUMBERED_CLASSES)
    return Chart("confusion", spec, caption, wide=True)


def _most_confused(names: Sequence[str], mixed_up: Sequence[Confusion]) -> list[str]:
    mistakes: Counter[str] = Counter()
    for confusion in mixed_up:
        mistakes[confusion.true] += confusion.photos
        mistakes[confusion.answer] += confusion.photos
    worst = sorted(names, key=lambda name: (-mistakes[name], name))[:_CLASSES_IN_MATRIX]
    return sorted(worst)


def _accuracies(figures: Sequence[ClassFigures]) -> Chart:
    worst = sorted(figures, key=lambda each: (1.0 if each.recall is None else each.recall, each.name))
    rows = []
    for each in worst[:_CLASSES_IN_CHART]:
        interval = each.recall_interval
        if interval:
            rows.append(
                {
                    "name": each.name,
                    "accuracy": each.recall,
                    "lower": interval.lower,
                    "upper": interval.upper,
                    "parent": each.parent_recall,
                    "photos": each.photos,
                }
            )
    some = f" The {_CLASSES_IN_CHART} lowest of {len(figures)}." if len(figures) > _CLASSES_IN_CHART else ""
    caption = f"Accuracy of each class with its exact 95 % interval; the tick is the float model.{some}"
    return Chart("class-accuracies", charts.class_accuracies(rows), caption)
