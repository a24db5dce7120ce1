"""Figures that follow from what the Evaluators measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from components.release_gate.paired import Interval, share_interval
from components.release_gate.results import BASELINE, CANDIDATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """How a model does on one class.

    Attributes:
        name: Name of the class.
        photos: Test photos of the class.
        right: How many of them are answered with it.
        answered: How many photos of all classes are answered with it.
        parent_right: How many of its photos the float model gets right; None if that was not measured.
    """

    name: str
    photos: int
    right: int
    answered: int
    parent_right: int | None

    @property
    def recall(self) -> float | None:
        """Share of the class's photos that are answered rightly: its accuracy."""
        return self.right / self.photos if self.photos else None

    @property
    def precision(self) -> float | None:
        """Share of the answers with this class that are right."""
        return self.right / self.answered if self.answered else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        both = self.photos + self.answered
        return 2 * self.right / both if both else None

    @property
    def recall_interval(self) -> Interval | None:
        """Exact interval of the recall."""
        return share_interval(self.right, self.photos) if self.photos else None

    @property
    def precision_interval(self) -> Interval | None:
        """Exact interval of the precision."""
        return share_interval(self.right, self.answered) if self.answered else None

    @property
    def parent_recall(self) -> float | None:
        """Recall of the float model."""
        return None if self.parent_right is None or not self.photos else self.parent_right / self.photos


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Photos of one class that are answered with another.

    Attributes:
        true: Name of the class.
        answer: Name of the answer.
        photos: How many.
        share: Of all photos of the class.
    """

    true: str
    answer: str
    photos: int
    share: float


def find_evaluation(summary: Mapping[str, Any], gate: str, artifact: str) -> Mapping[str, Any] | None:
    """Returns what a gate measured on an artifact; None if it measured nothing."""
    for measured in (summary["gates"] or {}).get("evaluations", ()):
        if (measured["gate"], measured["artifact"]) == (gate, artifact):
            return measured
    return None


def photos_in(measured: Mapping[str, Any] | None) -> int:
    """Returns the number of photos that an evaluation is about."""
    return sum(figures["photos"] for figures in measured["slices"].get("class", {}).values()) if measured else 0


def class_figures(measured: Mapping[str, Any]) -> list[ClassFigures]:
    """Returns the figures of every class, in the order of the names."""
    labels, matrix = measured["confusion_matrix"]["labels"], measured["confusion_matrix"].get(CANDIDATE)
    parent = measured["confusion_matrix"].get(BASELINE)
    if matrix is None:
        return []
    answered = [sum(column) for column in zip(*matrix, strict=True)]
    figures = [
        ClassFigures(name, sum(matrix[i]), matrix[i][i], answered[i], parent[i][i] if parent else None)
        for i, name in enumerate(labels)
    ]
    return sorted(figures, key=lambda each: each.name)


def confusions(measured: Mapping[str, Any]) -> list[Confusion]:
    """Returns which classes are taken for which, the most frequent first."""
    labels, matrix = measured["confusion_matrix"]["labels"], measured["confusion_matrix"].get(CANDIDATE, [])
    found = [
        Confusion(labels[true], labels[answer], photos, photos / sum(row))
        for true, row in enumerate(matrix)
        for answer, photos in enumerate(row)
        if photos and true != answer
    ]
    return sorted(found, key=lambda confusion: (-confusion.photos, confusion.true, confusion.answer))


def confusion_cells(measured: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the cells of the confusion matrix of some classes that are not empty."""
    labels, matrix = measured["confusion_matrix"]["labels"], measured["confusion_matrix"].get(CANDIDATE, [])
    index = {name: position for position, name in enumerate(labels)}
    return [
        {
            "true": true,
            "answer": answer,
            "photos": photos,
            "share": photos / sum(matrix[index[true]]),
            "right": "right" if true == answer else "wrong",
        }
        for true in names
        for answer in names
        if (photos := matrix[index[true]][index[answer]])
    ]
