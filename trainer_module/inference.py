"""How a trained network answers fastest, chosen by measurement on the device at hand."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from trainer_module.folding import fold_batch_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tf_keras as keras

_STEPS = 5
_ROUNDS = 5
# Reduced precision moves probabilities by a few hundredths; more means that the numerics do not hold.
_TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class Inference:
    """One way to answer.

    Attributes:
        precision: "float32", "bfloat16" or "float16".
        jit: Whether XLA compiles the step.
        folded: Whether batch normalisations and activations are part of the convolutions.
    """

    precision: str = "float32"
    jit: bool = False
    folded: bool = False


class Predictor:
    """A trained network that answers in one way."""

    def __init__(self, model: keras.Model, how: Inference) -> None:
        """Makes the predictor; the first batch of a size traces and compiles.

        Args:
            model: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C], computing in `how.precision`.
            how: The way to answer.
        """
        self.how = how
        self._seconds: list[float] = []
        answering = fold_batch_norm(model) if how.folded else model
        self._function = tf.function(lambda images: answering(images, training=False), jit_compile=how.jit)

    def predict(self, images: tf.Tensor) -> np.ndarray:
        """Returns the probabilities, float32 [N, C], of float32 pixels [N, S, S, 3]."""
        # Reading the result waits for the device to finish.
        return self._function(images).numpy()

    def measure(self, images: tf.Tensor) -> None:
        """Takes the time of some steps with one batch."""
        started = time.perf_counter()
        for _ in range(_STEPS):
            self.predict(images)
        self._seconds.append((time.perf_counter() - started) / _STEPS)

    @property
    def seconds_per_step(self) -> float:
        """Median of the measured times."""
        return statistics.median(self._seconds)


def measure_in_turns(predictors: Sequence[Predictor], images: tf.Tensor) -> None:
    """Times predictors in turns: what slows the machine down for a while then slows all of them.

    Args:
        predictors: Whom to time.
        images: One batch of float32 pixels [N, S, S, 3].
    """
    for predictor in predictors:
        predictor.predict(images)
    for _ in range(_ROUNDS):
        for predictor in predictors:
            predictor.measure(images)


def fastest(predictors: Sequence[Predictor], images: tf.Tensor) -> Predictor:
    """Picks the fastest predictor among those whose answers hold.

    Args:
        predictors: Timed predictors of one network; the first one's answers are those that count.
        images: One batch of float32 pixels [N, S, S, 3].

    Returns:
        The first predictor, or a faster one whose probabilities are close to the first one's.
    """
    expected = predictors[0].predict(images)
    holding = [other for other in predictors if np.abs(other.predict(images) - expected).max() <= _TOLERANCE]
    return min(holding, key=lambda predictor: predictor.seconds_per_step, default=predictors[0])
