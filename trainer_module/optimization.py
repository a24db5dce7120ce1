"""What a training minimises, and how: optimizer, schedule of the learning rate, loss, weights of the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
import tf_keras as keras

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer_module.settings import TrainerSettings

_MOMENTUM = 0.9
# Pulling these towards zero only undoes what batch normalisation and biases are there for.
_NOT_DECAYED = r"/(bias|gamma|beta)\b"


class _WarmingAverage:
    """Shortens the moving average of the weights at first, or it would keep the random initial weights for long.

    The decay after n steps is min(decay, (1 + n) / (10 + n)), as in `tf.train.ExponentialMovingAverage`.
    """

    iterations: tf.Variable
    _final_decay: float

    @property
    def ema_momentum(self) -> tf.Tensor:
        steps = tf.cast(self.iterations, tf.float32)
        return tf.minimum(self._final_decay, (1 + steps) / (10 + steps))

    @ema_momentum.setter
    def ema_momentum(self, decay: float) -> None:
        self._final_decay = decay


class _AdamW(_WarmingAverage, keras.optimizers.AdamW):
    pass


class _SGD(_WarmingAverage, keras.optimizers.SGD):
    pass


def optimizer(settings: TrainerSettings, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Makes the optimizer: AdamW or SGD with Nesterov momentum, decoupled weight decay of the kernels alone.

    Args:
        settings: Which one, its rate, decay and moving average of the weights.
        steps_per_epoch: Optimizer steps in an epoch, from which the length of the schedule follows.

    Returns:
        An optimizer with a linear warm-up and a cosine decay to zero. With `trainer.ema` it keeps the moving average,
        which its `finalize_variable_values` puts in place of the weights.
    """
    options = {
        "weight_decay": settings.weight_decay,
        "use_ema": settings.ema > 0,
        "ema_momentum": settings.ema,
    }
    schedule = _schedule(settings, steps_per_epoch)
    if settings.optimizer == "sgd":
        made = _SGD(schedule, momentum=_MOMENTUM, nesterov=True, **options)
    else:
        made = _AdamW(schedule, **options)
    made.exclude_from_weight_decay(var_names=[_NOT_DECAYED])
    return made


def _schedule(settings: TrainerSettings, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
    total = steps_per_epoch * settings.epochs
    warmup = int(settings.warmup_share * total)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else settings.learning_rate,
        max(1, total - warmup),
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def label_loss(label_smoothing: float, classes: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Makes the cross-entropy with smoothed labels, because the sparse loss of Keras knows no smoothing.

    Args:
        label_smoothing: Share of the probability that is spread over all classes.
        classes: Number of classes C.

    Returns:
        Function of integer labels [N] and probabilities [N, C] that gives the loss of every example, float32 [N].
    """

    def loss(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        one_hot = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes)
        return keras.losses.categorical_crossentropy(one_hot, probabilities, label_smoothing=label_smoothing)

    return loss


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Returns the weights with which every class counts the same, and an image counts 1 on average.

    Args:
        counts: Training images of each class, int64 [C].

    Returns:
        N / (C * n_c) for each class c, float32 [C].

    Raises:
        UserError: If a class has no image, so that no weight could make up for it.
    """
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        raise UserError(
            f"trainer.class_weights=balanced: {empty.size} of {counts.size} classes have no training image;"
            " add photos of them to the train split, or set trainer.class_weights=none"
        )
    return weights_of_present(counts)


def weights_of_present(counts: np.ndarray) -> np.ndarray:
    """Returns the weights with which every class that has an image counts the same; 0 for the others.

    Args:
        counts: Images of each class, int64 [C].

    Returns:
        N / (K * n_c) for each class c of the K that have images, float32 [C].
    """
    present = counts > 0
    weights = np.zeros(counts.shape, np.float32)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights
