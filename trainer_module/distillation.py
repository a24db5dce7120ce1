"""Knowledge distillation: a network learns the probabilities of a larger one along with the labels.

After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015 (https://arxiv.org/abs/1503.02531).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf
import tf_keras as keras

from trainer_module.settings import DistillationSettings
from trainer_module.sharpness import SharpnessAwareModel

if TYPE_CHECKING:
    from trainer_module.settings import TrainingSettings

# Keeps the logarithm finite, and its gradient too when float16 training scales the loss.
_SMALLEST_PROBABILITY = 1e-20


def teacher_settings(settings: TrainingSettings) -> TrainingSettings:
    """Returns the settings with which the teacher is trained: those of the student, but for network and epochs."""
    wanted = settings.trainer.distillation
    # It answers in every step of the student's, where averaging would multiply its time.
    model = {"architecture": wanted.teacher, "width": wanted.width, "flip_average": False, "shift_average": False}
    trainer = {"epochs": wanted.epochs or settings.trainer.epochs, "distillation": DistillationSettings()}
    return settings.model_copy(
        update={
            "model": settings.model.model_copy(update=model),
            "trainer": settings.trainer.model_copy(update=trainer),
        }
    )


def imitation_loss(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Measures how far the student's softened probabilities are from the teacher's.

    Args:
        teacher: Probabilities, float32 [N, C].
        student: Probabilities, float32 [N, C].
        temperature: T; divides the logits, which are the logarithms of the probabilities up to a constant.

    Returns:
        T^2 * KL(teacher_T || student_T) of every example, float32 [N]. The factor keeps the gradients' size whatever T.
    """
    wanted = _softened(teacher, temperature)
    found = _softened(student, temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(wanted) * (wanted - found), axis=-1)


def _softened(probabilities: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns the logarithms of the probabilities at the given temperature."""
    return tf.nn.log_softmax(tf.math.log(tf.maximum(probabilities, _SMALLEST_PROBABILITY)) / temperature)


class DistilledModel(SharpnessAwareModel):
    """A classifier that is trained on (1 - weight) * its compiled loss + weight * `imitation_loss`.

    It shares its layers with the student, and neither holds the teacher's weights as its own nor needs the teacher for
    anything but training. The reported "loss" is the compiled one alone, so that it compares with other trainings'.
    """

    def __init__(
        self, student: keras.Model, teacher: keras.Model, weight: float, temperature: float, rho: float = 0.0
    ) -> None:
        """Creates the model; compile it like any other.

        Args:
            student: Functional model from images to probabilities [N, C].
            teacher: Model from the same images to probabilities of the same classes.
            weight: Share of the loss that the imitation makes, 0 to 1.
            temperature: See `imitation_loss`.
            rho: See `SharpnessAwareModel`.
        """
        super().__init__(student, rho)

        # A function, because Keras takes every model among the attributes for a part of this one.
        def teach(images: tf.Tensor) -> tf.Tensor:
            return teacher(images, training=False)

        self._teach = teach
        self._weight = weight
        self._temperature = temperature

    def lesson(self, images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the teacher's probabilities [N, C]."""
        return (self._teach(images),)

    def objective(
        self, images: tf.Tensor, labels: tf.Tensor, sample_weights: tf.Tensor | None, lesson: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of labels and teacher, a float32 scalar, and the predictions [N, C]."""
        compiled, predicted = super().objective(images, labels, sample_weights, lesson)
        (taught,) = lesson
        imitation = tf.nn.compute_average_loss(
            imitation_loss(taught, predicted, self._temperature), sample_weight=sample_weights
        )
        return (1 - self._weight) * compiled + self._weight * imitation, predicted
