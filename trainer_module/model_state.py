"""All that the steps of a training change in a model."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tf_keras as keras


def random_generators(model: keras.Model) -> list[tf.random.Generator]:
    """Returns what its layers draw random numbers from, which Keras leaves out of a model's checkpoint."""
    return [layer._random_generator for layer in model.layers if hasattr(layer, "_random_generator")]


def create_variables(model: keras.Model) -> None:
    """Makes the variables of a compiled classifier's optimizer, loss and metrics, which would come at the first step.

    Keras would trace that step twice then: TensorFlow lets a function make variables only when it is first called.
    """
    labels, probabilities = tf.zeros([1], tf.int64), tf.zeros([1, model.output_shape[-1]])
    # Elsewhere a strategy could not update them: its own variables are of another kind, even with one replica.
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
        if not model.compiled_loss.built:
            model.compiled_loss.build(probabilities)
        if not model.compiled_metrics.built:
            model.compiled_metrics.build(probabilities, labels)


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """Lets a compiled model be trained for a try, and then restores its weights, optimizer and random generators."""
    create_variables(model)
    checkpoint = tf.train.Checkpoint(model=model, random=random_generators(model))
    with tempfile.TemporaryDirectory() as directory:
        before = checkpoint.write(f"{directory}/before")
        try:
            yield
        finally:
            checkpoint.read(before).assert_existing_objects_matched()
