"""Test-time augmentation inside the network: it answers for several views of a photo, and averages its answers.

The layers do nothing while the network is trained, whose augmentation flips and shifts photos already. They cost no
weights; the time of every answer grows with the number of views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tf_keras as keras

if TYPE_CHECKING:
    from trainer_module.settings import ModelSettings

_PACKAGE = "trimline"


@keras.utils.register_keras_serializable(_PACKAGE)
class WithMirrored(keras.layers.Layer):
    """Appends the mirror image of every image of a batch: [N, H, W, C] -> [2N, H, W, C]; [N, H, W, C] in training."""

    VIEWS = 2

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Applies the layer."""
        # A slice, because LiteRT's quantizer does not know what tf.reverse becomes.
        return inputs if training else tf.concat([inputs, inputs[:, :, ::-1]], axis=0)


@keras.utils.register_keras_serializable(_PACKAGE)
class WithShifted(keras.layers.Layer):
    """Appends every image shifted by a pixel, down and right, then up and left: [N, H, W, C] -> [3N, H, W, C].

    In training it is [N, H, W, C]. What a shift uncovers repeats the edge. One pixel along the diagonal moves the image
    against the grid of every later stride; with the mirror images these are the six views of Jordan 2024
    (https://arxiv.org/abs/2404.00498).
    """

    VIEWS = 3

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Applies the layer."""
        if training:
            return inputs
        padded = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        # Not padded[...], which takes more bytes of a .tflite.
        shifted = [tf.slice(padded, [0, start, start, 0], tf.shape(inputs)) for start in (0, 2)]
        return tf.concat([inputs, *shifted], axis=0)


@keras.utils.register_keras_serializable(_PACKAGE)
class AverageOfViews(keras.layers.Layer):
    """Averages what became of the views of each image: [V * N, C] -> [N, C]; [N, C] in training.

    Of logits this is the logarithm of the geometric mean of the probabilities, up to a constant.
    """

    def __init__(self, views: int, **kwargs: Any) -> None:
        """Takes the number V of views, and a layer's usual arguments."""
        super().__init__(**kwargs)
        self.views = views

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Applies the layer."""
        if training:
            return inputs
        return tf.reduce_mean(tf.reshape(inputs, [self.views, -1, inputs.shape[-1]]), axis=0)

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is rebuilt from."""
        return {**super().get_config(), "views": self.views}


LAYERS = (WithMirrored, WithShifted, AverageOfViews)


def with_views(image: keras.KerasTensor, settings: ModelSettings) -> tuple[keras.KerasTensor, int]:
    """Appends the views that the settings ask for.

    Args:
        image: Pixels [N, S, S, 3].
        settings: `shift_average` and `flip_average`.

    Returns:
        Pixels [V * N, S, S, 3], and V, which is 1 where nothing is averaged.
    """
    views = 1
    # float32, because bfloat16 cannot tell neighbouring pixel values above 128 apart.
    if settings.shift_average:
        image = WithShifted(name="shifted", dtype="float32")(image)
        views *= WithShifted.VIEWS
    if settings.flip_average:
        image = WithMirrored(name="mirrored", dtype="float32")(image)
        views *= WithMirrored.VIEWS
    return image, views
