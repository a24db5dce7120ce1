"""Test-time augmentation inside the network: it answers for a photo and for its mirror image, and averages both.

The two layers do nothing while the network is trained, whose augmentation mirrors photos already. They cost no weights;
the time of every answer doubles.
"""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

_PACKAGE = "trimline"


@keras.utils.register_keras_serializable(_PACKAGE)
class WithMirrored(keras.layers.Layer):
    """Appends the mirror image of every image of a batch: [N, H, W, C] -> [2N, H, W, C]; [N, H, W, C] in training."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Applies the layer."""
        # A slice, because LiteRT's quantizer does not know what tf.reverse becomes.
        return inputs if training else tf.concat([inputs, inputs[:, :, ::-1]], axis=0)


@keras.utils.register_keras_serializable(_PACKAGE)
class AverageOfMirrored(keras.layers.Layer):
    """Averages what became of images and of their mirror images: [2N, C] -> [N, C]; [N, C] in training.

    Of logits this is the logarithm of the geometric mean of both probabilities, up to a constant.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Applies the layer."""
        if training:
            return inputs
        return tf.reduce_mean(tf.reshape(inputs, [2, -1, inputs.shape[-1]]), axis=0)
