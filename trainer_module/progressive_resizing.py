"""Progressive resizing: the first epochs see smaller images, whose steps take less time.

After Howard, "Training Imagenet in 3 hours for USD 25; and CIFAR10 for USD 0.26", 2018
(https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html), with the schedule of `training_sizes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tf_keras as keras

if TYPE_CHECKING:
    from collections.abc import Sequence


class ResizingModel(keras.Model):
    """A classifier that can be trained on smaller images than it answers for.

    It shares its layers with the network that it is made of. The network must end in global pooling: then no weight
    belongs to a position.
    """

    def __init__(self, network: keras.Model) -> None:
        """Creates the model; compile it like any other.

        Args:
            network: Functional model from images [N, S, S, 3] to probabilities [N, C].
        """
        super().__init__(network.input, network.output, name=network.name)
        self._training_size: int | None = None

    def train_at(self, size: int) -> None:
        """Lets all steps from now on see images of this side in pixels, also in the middle of `fit`."""
        size_before = self._training_size or self.input_shape[1]
        self._training_size = size
        if size != size_before:
            self.make_train_function(force=True)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Returns the probabilities [N, C] of images [N, S, S, 3], which are resized first if this is training."""
        size = self._training_size
        if training and size not in {None, inputs.shape[1]}:
            inputs = tf.image.resize(inputs, [size, size])
        return super().call(inputs, training=training, mask=mask)


class ProgressiveSizes(keras.callbacks.Callback):
    """Gives each epoch of a `ResizingModel`'s training its size."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """Creates the callback.

        Args:
            sizes: Side of the training images in pixels, for each epoch of the whole training.
        """
        super().__init__()
        self._sizes = sizes

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Switches, once the time has come."""
        del logs
        self.model.train_at(self._sizes[epoch])
