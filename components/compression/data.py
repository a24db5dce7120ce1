"""Labelled images in memory, and the choice of those that calibrate a quantised model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from trainer_module import cache_room
from trainer_module.errors import UserError
from trainer_module.input_pipeline import load_arrays, measure, relabel, relabelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trainer_module.input_pipeline import Records

# TensorFlow's guide to post-training quantisation asks for 100 to 500 samples.
REPRESENTATIVE_IMAGES = 256
# Enough to find as many calibration images of a rare class as of the others, and little enough for the memory.
_CALIBRATION_POOL = 16 * REPRESENTATIVE_IMAGES


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """One split.

    Attributes:
        images: uint8 RGB pixels [N, S, S, 3].
        labels: int64 class indices [N].
    """

    images: np.ndarray
    labels: np.ndarray

    def relabelled(self, classes: Sequence[int]) -> LabelledImages:
        """Returns the same images with other numbers for their classes; see `input_pipeline.relabelled`."""
        return LabelledImages(self.images, relabel(self.labels, classes))


@dataclasses.dataclass(frozen=True)
class Splits:
    """The images that compression works with.

    Attributes:
        calibration: Some training images, which set the ranges of integers and say what each layer can lose.
        validation: The images that decide.
        train: The whole training split, for the stages that fine-tune; None rules those out.
    """

    calibration: LabelledImages
    validation: LabelledImages
    train: Records | None = None

    def relabelled(self, classes: Sequence[int]) -> Splits:
        """Returns the same splits with other numbers for their classes; see `input_pipeline.relabelled`."""
        train = None if self.train is None else relabelled(self.train, classes)
        return Splits(self.calibration.relabelled(classes), self.validation.relabelled(classes), train)


def load_splits(train: Sequence[str], validation: Sequence[str], image_size: int, seed: int) -> Splits:
    """Loads transformed examples.

    Args:
        train: Glob patterns of the training split's files.
        validation: Those of the validation split.
        image_size: Side of the images, in pixels.
        seed: Of the choice of the calibration images.

    Returns:
        The images; of a validation split that takes more than half of the memory that the others leave, the first ones,
        as ingest has mixed them.
    """
    calibration = LabelledImages(*load_arrays(train, image_size, limit=_CALIBRATION_POOL, seed=seed))
    train_records = measure(train)
    # The other half is for what computes on them.
    held_out = LabelledImages(*load_arrays(validation, image_size, room=cache_room.free_memory() // 2))
    return Splits(calibration, held_out, train_records)


def choose_representative(train: LabelledImages, seed: int, count: int = REPRESENTATIVE_IMAGES) -> np.ndarray:
    """Chooses calibration images, as many of each class as the classes allow.

    Args:
        train: Images that the model was trained on.
        seed: Same seed and data, same images.
        count: Most images to choose.

    Returns:
        uint8 images [M, S, S, 3] with M = min(count, N).

    Raises:
        UserError: There is no image to choose from.
    """
    if not len(train.images):
        raise UserError(
            "compression.stages: quantize needs training images to calibrate with, and the train split is empty; "
            "give the train split at least one image per class"
        )
    chosen = list(_by_turns(train.labels, np.random.default_rng(seed)))[:count]
    return train.images[chosen]


def _by_turns(labels: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    shuffled = rng.permutation(len(labels))
    queues = [list(shuffled[labels[shuffled] == label]) for label in np.unique(labels)]
    while queues:
        for queue in queues:
            yield int(queue.pop())
        queues = [queue for queue in queues if queue]
