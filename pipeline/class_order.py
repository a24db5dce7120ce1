"""In which order a classifier answers the classes: its own, which need not be that of the photos' labels."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from components.compression.engine import float_answers
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tf_keras as keras

    from components.compression.data import LabelledImages

# Of models that are often wrong, some classes' most frequent answer is a wrong one.
_LEAST_OF_BEST = 0.8


@dataclasses.dataclass(frozen=True)
class ClassOrder:
    """The order of a model's answers.

    Attributes:
        names: Names of the classes, in this order.
        source: Where it is from: "labels" (the user's file), "model", "alphabetical", or "frequency", as trainings of
            Trimline's have it: the most frequent class first.
    """

    names: list[str]
    source: str

    def of_labels(self, names: Sequence[str]) -> list[int]:
        """Returns the model's class of each label.

        Args:
            names: Names of the same classes, in the order of the labels.
        """
        return [self.names.index(name) for name in names]


def read_labels(file: Path) -> list[str]:
    """Reads the names of classes, one a line.

    Args:
        file: UTF-8 text, such as the labels.txt of a pushed model.

    Raises:
        UserError: It cannot be read, or names a class twice.
    """
    try:
        # With the mark that some editors write before the text, or without.
        names = [_composed(line) for line in file.read_text(encoding="utf-8-sig").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise UserError(f"{file}: cannot be read ({reason}); give --labels a file with a class's name a line") from None
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{file}: names the class {twice!r} twice; each class has a line of its own")
    return names


def require_same_classes(known: Sequence[str], names: Sequence[str], source: Path) -> None:
    """Refuses classes that are not those of the photos, in whatever order.

    Args:
        known: Names that the model or the user gives.
        names: Names of the photos' classes.
        source: What gives them, for the message.

    Raises:
        UserError: They differ.
    """
    if len(known) != len(names):
        raise UserError(f"{source}: names {len(known)} classes, but the photos have {len(names)}; give photos of these")
    if unknown := sorted(set(names) - set(known)):
        missing = sorted(set(known) - set(names))
        raise UserError(
            f"{source}: knows the class {missing[0]!r} where the photos have {unknown[0]!r}; name the folders alike"
        )


def find_order(model: keras.Model, photos: LabelledImages, names: Sequence[str], path: Path) -> ClassOrder:
    """Finds the order of a model that does not tell: the one of two that explains its answers.

    An order does so if the model is right nearly as often in it as it could be in any, and more often than who always
    answers the most frequent class. It could be as often as the photos of each class get their most frequent answer.

    Args:
        model: Answers float32 [N, S, S, 3] with probabilities [N, C].
        photos: Some, with labels in the order of `names`.
        names: Names of the classes, as Trimline's trainings order them.
        path: Of the model, for the message.

    Raises:
        UserError: Neither order does.
    """
    known = photos.labels >= 0
    labels, answers = photos.labels[known], np.argmax(float_answers(model, photos.images[known]), axis=1)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (labels, answers), 1)
    wanted = max(_LEAST_OF_BEST * counts.max(axis=1).sum(), counts.sum(axis=1).max() + 1)
    orders = (ClassOrder(sorted(names), "alphabetical"), ClassOrder([*names], "frequency"))
    right = [counts[np.arange(len(names)), order.of_labels(names)].sum() for order in orders]
    best = int(np.argmax(right))
    if right[best] < wanted:
        shares = [count / len(labels) for count in right]
        raise UserError(
            f"{path}: in which order it answers the classes cannot be told: it is right for {shares[0]:.1%} of the "
            f"photos if they are in alphabetical order, for {shares[1]:.1%} with the most frequent first; give "
            "--labels with their names in the order of its answers"
        )
    return orders[best]


def _composed(name: str) -> str:
    # As ingest names classes, whatever form the system has.
    return unicodedata.normalize("NFC", name)
