"""In which order a classifier answers the classes: its own, which need not be that of the photos' labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tf_keras as keras

    from components.compression.data import LabelledImages

_PREDICTION_BATCH = 256


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
        names = [line for line in file.read_text(encoding="utf-8").splitlines() if line]
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
    """Finds the order of a model that does not tell: the one of two in which it is right more often.

    Args:
        model: Answers float32 [N, S, S, 3] with probabilities [N, C].
        photos: Some, with labels in the order of `names`.
        names: Names of the classes, as Trimline's trainings order them.
        path: Of the model, for the message.

    Raises:
        UserError: In both orders it is right no more often than who always answers the most frequent class.
    """
    orders = {"alphabetical": ClassOrder(sorted(names), "alphabetical"), "frequency": ClassOrder([*names], "frequency")}
    if orders["alphabetical"].names == orders["frequency"].names:
        return orders["frequency"]
    known = photos.labels >= 0
    labels, answers = photos.labels[known], _answers(model, photos.images[known])
    right = {source: np.mean(np.take(order.of_labels(names), labels) == answers) for source, order in orders.items()}
    best = max(right, key=right.__getitem__)
    guessing = np.bincount(labels).max() / len(labels)
    if right[best] <= guessing:
        raise UserError(
            f"{path}: is right for {right['alphabetical']:.1%} of the photos if it answers the classes in alphabetical "
            f"order, for {right['frequency']:.1%} with the most frequent first, which is no better than guessing "
            f"({guessing:.1%}); give --labels with their names in the order of its answers"
        )
    return orders[best]


def _answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    batches = tf.data.Dataset.from_tensor_slices(images).batch(_PREDICTION_BATCH)
    return np.argmax(model.predict(batches.map(lambda some: tf.cast(some, tf.float32)), verbose=0), axis=1)
