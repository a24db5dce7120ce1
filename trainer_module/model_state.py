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


def build_optimizer(model: keras.Model) -> None:
    """Makes the variables of a compiled model's optimizer, which would come at the first step only."""
    # Elsewhere a strategy could not update them: its own variables are of another kind, even with one replica.
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """Lets a compiled model be trained for a try, and then restores its weights, optimizer and random generators."""
    build_optimizer(model)
    checkpoint = tf.train.Checkpoint(model=model, random=random_generators(model))
    with tempfile.TemporaryDirectory() as directory:
        before = checkpoint.write(f"{directory}/before")
        try:
            yield
        finally:
            checkpoint.read(before).assert_existing_objects_matched()
