"""Sharpness-aware minimisation (SAM): steps that lower the worst loss near the weights, not the loss at them alone.

After Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021
(https://arxiv.org/abs/2010.01412). That the last epochs are enough: Zhou et al. 2025 (https://arxiv.org/abs/2410.10373).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tf_keras as keras

from trainer_module.progressive_resizing import ResizingModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer_module.settings import SamSettings


class SharpnessAwareModel(ResizingModel):
    """A classifier whose steps are sharpness-aware from `become_sharpness_aware` on.

    Not Keras' experimental SharpnessAwareMinimization, which looks for the worst direction with the network in
    inference, lets the shifted weights into the moving averages of batch normalisation, and knows no loss scaling.
    """

    def __init__(self, network: keras.Model, rho: float = 0.0) -> None:
        """Creates the model; compile it like any other.

        Args:
            network: Functional model from images to probabilities [N, C].
            rho: Euclidean distance between the weights and those at which the gradient is taken.
        """
        super().__init__(network)
        self._rho = rho
        self._is_sharpness_aware = False

    def become_sharpness_aware(self) -> None:
        """Makes all steps from now on sharpness-aware, also in the middle of `fit`."""
        if not self._is_sharpness_aware:
            self._is_sharpness_aware = True
            self.make_train_function(force=True)

    def lesson(self, images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns what `objective` needs to know of the images that does not depend on the weights: nothing."""
        del images
        return ()

    def objective(
        self, images: tf.Tensor, labels: tf.Tensor, sample_weights: tf.Tensor | None, lesson: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what a step lowers, a float32 scalar, and the predictions [N, C] on the way to it."""
        del lesson
        predicted = self(images, training=True)
        return self.compute_loss(images, labels, predicted, sample_weights), predicted

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Does one step on a batch of (images, labels) or (images, labels, sample weights); returns the metrics."""
        images, labels, sample_weights = keras.utils.unpack_x_y_sample_weight(data)
        batch = images, labels, sample_weights, self.lesson(images)
        gradients, predicted = self._gradients(batch)
        if self._is_sharpness_aware:
            gradients = self._gradients_nearby(gradients, batch)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self.compute_metrics(images, labels, predicted, sample_weights)

    def _gradients(self, batch: tuple[Any, Any, Any, Any]) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            loss, predicted = self.objective(*batch)
        computed = self.optimizer.compute_gradients(loss, self.trainable_variables, tape)
        return [gradient for gradient, _ in computed], predicted

    def _gradients_nearby(self, gradients: Sequence[tf.Tensor], batch: tuple[Any, Any, Any, Any]) -> list[tf.Tensor]:
        """Returns the gradients at the worst weights within rho, to first order; all variables stay as they are."""
        # The moving averages and the reported loss are those of the weights themselves.
        losses = [variable for metric in self.compiled_loss.metrics for variable in metric.variables]
        changing = [*self.trainable_variables, *self.non_trainable_variables, *losses]
        # Not subtracted again afterwards: what rounding leaves would let the replicas of a strategy drift apart.
        before = [tf.identity(variable) for variable in changing]
        norm = tf.linalg.global_norm(gradients)
        # An overflow under loss scaling, for which the optimizer leaves out the step.
        scale = tf.where(tf.math.is_finite(norm), tf.math.divide_no_nan(self._rho, norm), 0.0)
        for variable, gradient in zip(self.trainable_variables, gradients, strict=True):
            variable.assign_add(tf.math.multiply_no_nan(gradient, scale))
        nearby, _ = self._gradients(batch)
        for variable, value in zip(changing, before, strict=True):
            variable.assign(value)
        return nearby


class SharpnessAwareEpochs(keras.callbacks.Callback):
    """Makes the last epochs of a `SharpnessAwareModel`'s training sharpness-aware."""

    def __init__(self, settings: SamSettings, epochs: int) -> None:
        """Creates the callback.

        Args:
            settings: Says which share of the epochs.
            epochs: Of the whole training.
        """
        super().__init__()
        # At least the last one, however few there are.
        self._first = min(epochs - 1, round(epochs * (1 - settings.share)))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Switches, once the time has come."""
        del logs
        if epoch >= self._first:
            self.model.become_sharpness_aware()
