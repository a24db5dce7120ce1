"""In which order a classifier answers the classes: its own, which need not be that of the photos' labels."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom

from pipeline.answers import require_probabilities
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tf_keras as keras

    from components.compression.data import LabelledImages

# Standard deviations: guessing is as often right once in twenty times.
_BEYOND_CHANCE = 1.645
# How probable what is seen may be by chance: of two orders' difference, and of the likeliest of many pairs of classes.
_ORDERS_ALIKE = 0.05
_PAIR_BY_CHANCE = 0.001


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

    An order does so if the model is right in it more often than by guessing and than in the other order, and no two
    classes have each other's names: it would be right more often, beyond chance, if those were exchanged. How often it
    is right does not matter; of models that are often wrong, some classes' most frequent answer is a wrong one.

    Args:
        model: Answers float32 [N, S, S, 3] with probabilities [N, C].
        photos: Some, with labels in the order of `names`.
        names: Names of the classes, as Trimline's trainings order them.
        path: Of the model, for the message.

    Raises:
        UserError: Neither order does, or the answers are no probabilities.
    """
    counts = _count_answers(model, photos, path)
    orders = (ClassOrder(sorted(names), "alphabetical"), ClassOrder([*names], "frequency"))
    tables = [counts[:, order.of_labels(names)] for order in orders]
    right = [np.trace(table) for table in tables]
    best = int(np.argmax(right))
    shares = (
        f"it is right for {right[0] / counts.sum():.1%} of the photos if they are in alphabetical order, for "
        f"{right[1] / counts.sum():.1%} with the most frequent first"
    )
    advice = "give --labels with their names in the order of its answers"
    if pair := _exchanged(tables[best]):
        one, other = (names[label] for label in pair)
        raise UserError(
            f"{path}: in which order it answers the classes cannot be told: {shares}, but there it takes {one!r} and "
            f"{other!r} for each other more often than for themselves; {advice}"
        )
    if not _is_beyond_guessing(tables[best]):
        raise UserError(
            f"{path}: does it take its pixels in 0 to 255? In which order it answers the classes cannot be told: "
            f"{shares}, no more often than by guessing; put a Rescaling layer in front if it wants others, or {advice}"
        )
    if orders[0].names != orders[1].names and not _tells_apart(*(tables[which] for which in (best, 1 - best))):
        raise UserError(f"{path}: in which order it answers the classes cannot be told: {shares}; {advice}")
    return orders[best]


def require_knowledge(
    model: keras.Model, photos: LabelledImages, order: ClassOrder, names: Sequence[str], path: Path
) -> None:
    """Refuses a model that is right no more often than by guessing, which no fine-tuning would make good.

    Args:
        model: Answers float32 [N, S, S, 3] with probabilities [N, C].
        photos: Some, with labels in the order of `names`.
        order: That of its answers.
        names: Names of the classes.
        path: Of the model, for the message.

    Raises:
        UserError: It is, or its answers are no probabilities.
    """
    table = _count_answers(model, photos, path)[:, order.of_labels(names)]
    if _is_beyond_guessing(table):
        return
    source = "--labels names" if order.source == "labels" else "it names"
    raise UserError(
        f"{path}: does it take its pixels in 0 to 255? It is right for {np.trace(table) / table.sum():.1%} of the "
        "photos, no more often than by guessing; put a Rescaling layer in front if it wants others, or see whether "
        f"{source} the classes in the order of its answers"
    )


def _count_answers(model: keras.Model, photos: LabelledImages, path: Path) -> np.ndarray:
    """Counts how often each class [C] of photos is answered with each [C] of the model's."""
    from components.compression.engine import float_answers

    known = photos.labels >= 0
    answers = float_answers(model, photos.images[known])
    require_probabilities(answers, path)
    counts = np.zeros((answers.shape[1],) * 2, int)
    np.add.at(counts, (photos.labels[known], np.argmax(answers, axis=1)), 1)
    return counts


def _is_beyond_guessing(table: np.ndarray) -> bool:
    """Tells whether the answers have to do with the labels.

    Guessing is to give the same answers to the photos in any other order: so the frequencies of the classes, and the
    model's liking for some of them, gain nothing, as in Cohen's kappa.

    Args:
        table: Number of photos by label and answer, [C, C].
    """
    count, labels, answers = table.sum(), table.sum(axis=1), table.sum(axis=0)
    mean = labels @ answers / count
    # Hoeffding 1951, A combinatorial central limit theorem, theorem 2.
    centred = np.eye(len(table)) - answers[:, None] / count - labels[None] / count + mean / count
    variance = labels @ centred**2 @ answers / max(count - 1, 1)
    return bool(np.trace(table) > mean + _BEYOND_CHANCE * np.sqrt(variance))


def _exchanged(table: np.ndarray) -> tuple[int, int] | None:
    """Finds two classes that are taken for each other more often than for themselves, and than errors explain.

    Args:
        table: Number of photos by label and answer, [C, C].
    """
    right = np.diag(table)
    own, each_other = right[:, None] + right[None], table + table.T
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    share = np.diag(shares)
    # In photos, and in shares of each class: that rare classes drown in a frequent one is another matter.
    fits_better = (each_other > own) & (shares + shares.T > share[:, None] + share[None])
    wrong = table.sum() - table[linear_sum_assignment(table, maximize=True)].sum()
    error = min(0.5, (wrong + 1) / (table.sum() + 2))
    by_chance = np.where(fits_better, binom.sf(each_other - 1, each_other + own, error), 1.0)
    worst = np.unravel_index(np.argmin(by_chance), table.shape)
    return (int(worst[0]), int(worst[1])) if by_chance[worst] < _PAIR_BY_CHANCE else None


def _tells_apart(table: np.ndarray, other: np.ndarray) -> bool:
    """Tells whether the model is right more often in one order than in another, beyond chance."""
    right, right_there = np.diag(table), np.diag(other)
    differ = (table != other).any(axis=0)
    only, only_there = right[differ].sum(), right_there[differ].sum()
    return bool(binom.sf(only - 1, only + only_there, 0.5) < _ORDERS_ALIKE)


def _composed(name: str) -> str:
    # As ingest names classes, whatever form the system has.
    return unicodedata.normalize("NFC", name)
