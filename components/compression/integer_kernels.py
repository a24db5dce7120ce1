"""Kernels of whole multiples of a step, as an integer model holds them, that can be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from components.compression.narrow_kernels import integer_range

if TYPE_CHECKING:
    from collections.abc import Sequence

# Full-integer .tflite files hold weights as int8 with -128 left out.
_STORED_LIMIT = 127
_SEARCHED_STEPS = np.linspace(0.3, 1.0, 36)
_SMALLEST_STEP = 1e-8
# What weights so much smaller than the kernel's largest add to an output is less than its 8 bits can tell.
_SILENT_SHARE = 1e-6
# Of a kernel that has no weights: small enough for outputs that are always 0 and have the smallest range there is, and
# large enough for its biases.
_STEP_WITHOUT_WEIGHTS = 1e-6
# Neighbouring steps differ by 9 %, so one is never off by more than half of that.
_LOG_GRID = np.log(2) / 8


class SteppedKernel(keras.layers.Layer):
    """A kernel of multiples of a learned step; a step for each output channel, one in all for dense layers."""

    def __init__(self, values: np.ndarray, axes: tuple[int, ...] | None, bits: int) -> None:
        """Creates the kernel.

        Args:
            values: Float kernel to start from; where it is zero it stays zero.
            axes: Axes of the output channels; None for one step in all.
            bits: Bits of a weight; which integers they hold tells `narrow_kernels.integer_range`.
        """
        super().__init__(name="kernel")
        self._range = integer_range(bits)
        self._start = values
        self._shape = _step_shape(values, axes)
        self._mask = tf.constant(values != 0, tf.float32)

    def build(self, input_shape: Any = None) -> None:
        """Makes the variables."""
        del input_shape
        self.kernel = self.add_weight("kernel", self._start.shape, initializer=constant(self._start))
        start = np.log(best_steps(self._start, self._shape, self._range))
        # The logarithm, because Adam's updates have the size of the learning rate, whatever the size of the step.
        self.log_step = self.add_weight("log_step", self._shape, initializer=constant(start))
        self.built = True

    def step(self) -> tf.Tensor:
        """Returns the step of each channel, or the one in all, in the shape of the kernel's channels."""
        # Of few values, which deflate: in a network of 1,700 channels their steps take 13 kB otherwise.
        return tf.exp(_straight_through_round(self.log_step / _LOG_GRID) * _LOG_GRID)

    def trained(self) -> tf.Tensor:
        """Returns the rounded kernel, differentiable by weights and steps."""
        step = self.step()
        ratio = tf.clip_by_value(self.kernel / step, *self._range)
        return _straight_through_round(ratio) * step * self._mask

    def exported(self, scale: float) -> tf.Tensor:
        """Returns the rounded kernel times a scale, as the operation that tells the converter the steps."""
        step = self.step()
        integers = tf.round(tf.clip_by_value(self.kernel / step, *self._range)) * self._mask
        return _as_stored(integers * step * scale, step * scale)


class ClusteredKernel(keras.layers.Layer):
    """A kernel whose weights share few values; the values are trained, which weight has which is not."""

    def __init__(self, values: np.ndarray, axes: tuple[int, ...] | None) -> None:
        """Creates the kernel.

        Args:
            values: Float kernel with its clusters.
            axes: Axes of the output channels; None for a dense layer.
        """
        super().__init__(name="kernel")
        self._centres, indices = np.unique(values, return_inverse=True)
        self._indices = tf.constant(indices.reshape(values.shape), tf.int32)
        # A centre at zero stands for pruned weights.
        self._mask = tf.constant(self._centres != 0, tf.float32)
        self._shape = _step_shape(values, axes)

    def build(self, input_shape: Any = None) -> None:
        """Makes the variable."""
        del input_shape
        self.centres = self.add_weight("centres", self._centres.shape, initializer=constant(self._centres))
        self.built = True

    def _rounded(self) -> tuple[tf.Tensor, tf.Tensor]:
        # One step in all: the integers of the file are then as few as the clusters.
        step = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(self.centres)) / _STORED_LIMIT, _SMALLEST_STEP))
        return _straight_through_round(self.centres / step) * step * self._mask, step

    def trained(self) -> tf.Tensor:
        """Returns the rounded kernel, differentiable by the centres."""
        return tf.gather(self._rounded()[0], self._indices)

    def exported(self, scale: float) -> tf.Tensor:
        """Returns the rounded kernel times a scale, as the operation that tells the converter the step."""
        centres, step = self._rounded()
        return _as_stored(tf.gather(centres, self._indices) * scale, tf.fill(self._shape, step * scale))


def best_steps(values: np.ndarray, shape: Sequence[int], limits: tuple[int, int]) -> np.ndarray:
    """Finds the steps with which rounding a kernel does the least harm.

    Args:
        values: Float kernel.
        shape: Of the steps: the kernel's along its channels, 1 elsewhere.
        limits: Least and greatest integer.

    Returns:
        Steps with the least squared error among shares of the largest magnitude, float32 of the given shape.
    """
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    largest = largest_weights(values, axes) / limits[1]
    if not largest.any():
        return np.full(shape, _STEP_WITHOUT_WEIGHTS, np.float32)
    largest = np.maximum(largest, _SMALLEST_STEP)
    best, least = largest, np.full(shape, np.inf)
    for share in _SEARCHED_STEPS:
        step = share * largest
        rounded = np.clip(np.rint(values / step), *limits) * step
        error = np.square(rounded - values).sum(axis=axes, keepdims=True)
        best, least = np.where(error < least, step, best), np.minimum(error, least)
    return best.astype(np.float32)


def largest_weights(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Finds the magnitude that the step of each channel follows.

    That of a channel without weights is the whole kernel's. Any step is exact for zeros, but biases are stored in
    multiples of their channel's step, and of a tiny one 32 bits do not hold enough.

    Args:
        values: Float kernel.
        axes: All axes but those of the channels.

    Returns:
        The largest magnitude along these axes, which have size 1; 0 only in a kernel of zeros.
    """
    largest = np.abs(values).max(axis=axes, keepdims=True)
    of_all = largest.max()
    return np.where(largest > _SILENT_SHARE * of_all, largest, of_all)


def rounded(values: np.ndarray, axes: tuple[int, ...] | None, bits: int) -> np.ndarray:
    """Rounds a kernel to whole multiples of the best step for each output channel, or of the best one in all.

    Args:
        values: Float kernel.
        axes: Axes of the output channels; None for one step in all.
        bits: Bits of a weight.

    Returns:
        The rounded kernel.
    """
    limits = integer_range(bits)
    steps = best_steps(values, _step_shape(values, axes), limits)
    return np.clip(np.rint(values / steps), *limits) * steps


def constant(values: np.ndarray) -> keras.initializers.Initializer:
    """Returns an initializer that gives a variable these values."""
    return lambda shape, dtype=None: tf.reshape(tf.constant(values, dtype), shape)


def _step_shape(values: np.ndarray, axes: tuple[int, ...] | None) -> list[int]:
    return [size if axes is not None and axis in axes else 1 for axis, size in enumerate(values.shape)]


def _straight_through_round(values: tf.Tensor) -> tf.Tensor:
    return values + tf.stop_gradient(tf.round(values) - values)


def _as_stored(values: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Marks values that are multiples of their steps, one in all or one a channel, for the converter."""
    highest = tf.reshape(steps, [-1]) * _STORED_LIMIT
    if highest.shape[0] == 1:
        return tf.quantization.fake_quant_with_min_max_vars(values, -highest[0], highest[0], narrow_range=True)
    # The operation takes the last axis for the channels'; depthwise kernels [3, 3, C, 1] have another one behind it.
    channels_last = values if values.shape[-1] == highest.shape[0] else tf.squeeze(values, -1)
    marked = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        channels_last, -highest, highest, narrow_range=True
    )
    return tf.reshape(marked, values.shape)
