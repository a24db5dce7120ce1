"""What makes the same work come to the same numbers, whatever the process did before."""

from __future__ import annotations

import zlib

import tensorflow as tf
import tf_keras as keras

_SEEDS = 2**32


def make_repeatable(seed: int | None, work: str = "") -> None:
    """Sets the random state of Python, NumPy and TensorFlow, and lets threads add up in one order.

    A component may follow others in its process, or be the only one there because theirs came from the cache or an
    earlier run. So each piece of work that draws random numbers begins with this, and depends on none before it.

    Args:
        seed: Of the run; None leaves everything as it is.
        work: Name of the piece of work: another name, other numbers.
    """
    if seed is not None:
        keras.utils.set_random_seed((seed + zlib.crc32(work.encode())) % _SEEDS)
        # Otherwise threads add up gradients in whatever order they finish.
        tf.config.experimental.enable_op_determinism()
