"""The gates' report: every check, and what was measured."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from components.release_gate.engine import Check, refused_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.release_gate.results import Evaluation

REPORT_FILE = "gates.json"
_MOST_CLASSES_INDENTED = 100


def indentation(classes: int) -> int | None:
    """Returns the indentation of JSON with confusion matrices, which of 1,000 classes would take 100 MB with it."""
    return 2 if classes <= _MOST_CLASSES_INDENTED else None


def compose(
    checks: Sequence[Check], evaluations: Mapping[tuple[str, str], Evaluation | None], class_names: Sequence[str]
) -> dict[str, Any]:
    """Makes the report.

    Args:
        checks: All that was checked.
        evaluations: What was measured, by gate and artifact.
        class_names: Names of the classes, in the order of their indices.

    Returns:
        The content of gates.json; see docs/gate.md. Figures that are no numbers are null.
    """
    refusals = refused_by(checks)
    content = {
        "format_version": 1,
        "blessed": not refusals,
        "refused_by": refusals,
        "checks": [dataclasses.asdict(check) for check in checks],
        "evaluations": [
            {"gate": gate, "artifact": artifact, **_measured(evaluation, class_names)}
            for (gate, artifact), evaluation in evaluations.items()
            if evaluation
        ],
    }
    return _without_nan(content)


def _measured(evaluation: Evaluation, class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "metrics": evaluation.metrics,
        "slices": {
            kind: {name: dataclasses.asdict(result) for name, result in sorted(slices.items())}
            for kind, slices in evaluation.slices.items()
            if kind
        },
        "confusion_matrix": {
            "labels": list(class_names),
            **{model: _matrix(rows, len(class_names)) for model, rows in evaluation.confusion.items()},
        },
    }


def _matrix(rows: Mapping[int, Mapping[int, int]], classes: int) -> list[list[int]]:
    """Returns the numbers of photos, a row for each true class, a column for each answer."""
    return [[rows.get(true, {}).get(answer, 0) for answer in range(classes)] for true in range(classes)]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
