"""Quantisation-aware fine-tuning: the network is trained with the very numbers that its integer version will hold.

TFMOT knows 8 bits only, and ranges of its own for every channel, in which the shared values of a clustered kernel get
lost. Here a weight has 2, 3, 4 or 8 bits, and a kernel a learned step for each channel, that of a dense layer one in
all (Esser et al. 2020, "Learned step size quantization", https://arxiv.org/abs/1902.08153), or it keeps its clusters,
whose centres are trained. Zeros stay zeros either way.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from components.compression import graph
from components.compression.integer_kernels import ClusteredKernel, SteppedKernel, constant
from components.compression.kernels import (
    copy_of,
    has_kernel,
    is_depthwise,
    kernel,
    needs_range,
    step_axes,
    weight_count,
)
from components.compression.narrow_kernels import WIDE_BITS, stored_bits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of outputs that are always 0, as those of a kernel without weights.
_SMALLEST_RANGE = 1e-6
_CALIBRATION_BATCH = 64


def fake_quantized(
    model: keras.Model, bits: int | Mapping[str, int], calibration: np.ndarray, clustered: Sequence[str] = ()
) -> keras.Model:
    """Rebuilds a classifier for quantisation-aware training.

    Called with training=True it is differentiable; with training=False it holds the operations from which TensorFlow's
    converter takes all scales.

    Args:
        model: A folded classifier of known layers (see `kernels.require_known_layers`).
        bits: Bits of a weight, or those of each kernel by layer name; depthwise kernels keep 8, because a few weights
            must serve a whole channel. Of 2 for all, kernels that no file stores in 2 have 4.
        calibration: uint8 images [M, S, S, 3], M > 0, that set the ranges of the activations.
        clustered: Names of layers whose kernel keeps the values that it shares among its weights.

    Returns:
        A new model of the same input and output.
    """
    ranges = _output_ranges(model, calibration)
    scales = _absorbed_scales(model)

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in scales:
            return PixelScale(scales[layer.name].factor, name=layer.name)
        if has_kernel(layer):
            values = _kernel_values(layer, _bits(layer, bits), layer.name in clustered)
            source = next((s for s in scales.values() if s.consumer == layer.name), None)
            return IntegerLayer(layer, values, ranges.get(layer.name), source.factor if source else 1.0)
        copied = type(layer).from_config(layer.get_config())
        return RoundedOutput(copied, ranges[layer.name]) if layer.name in ranges else copied

    return keras.models.clone_model(model, clone_function=rebuild)


def bits_in_file(layer: keras.layers.Layer, bits: int) -> int:
    """Returns the bits that a weight of a layer takes in a .tflite file, if it needs so many."""
    return stored_bits(bits, weight_count(layer), dense=isinstance(layer, keras.layers.Dense))


def float_weights(quantized: keras.Model, model: keras.Model) -> keras.Model:
    """Returns the float model of which a fake-quantised one is the integer version.

    Args:
        quantized: What `fake_quantized` made, trained.
        model: What it was made of.

    Returns:
        A model built like `model`, with the weights that the integer version stands for.
    """
    result = copy_of(model)
    for layer in quantized.layers:
        if isinstance(layer, IntegerLayer):
            target = result.get_layer(layer.name)
            kernel(target).assign(layer.values.exported(1.0))
            if layer.bias is not None:
                target.bias.assign(layer.bias)
    return result


class IntegerLayer(keras.layers.Layer):
    """A convolution or dense layer with a rounded kernel and output."""

    def __init__(
        self,
        layer: keras.layers.Layer,
        values: SteppedKernel | ClusteredKernel,
        output_range: tuple[float, float] | None,
        input_scale: float,
    ) -> None:
        """Creates the layer.

        Args:
            layer: Built Conv2D, DepthwiseConv2D or Dense, whose operation and bias it has.
            values: The kernel.
            output_range: Of the activation's results; None where TFLite needs none.
            input_scale: What a `PixelScale` before it multiplies with, which becomes part of the kernel when exported.
        """
        super().__init__(name=layer.name)
        self.values = values
        self._layer_kind = type(layer)
        self._strides = getattr(layer, "strides", (1, 1))
        self._dilations = getattr(layer, "dilation_rate", (1, 1))
        self._padding = getattr(layer, "padding", "valid").upper()
        self._activation = layer.activation
        self._bias_start = layer.bias.numpy() if layer.use_bias else None
        self._range = output_range
        self._input_scale = input_scale

    def build(self, input_shape: Any) -> None:
        """Makes the variables."""
        self.values.build()
        start = self._bias_start
        self.bias = None if start is None else self.add_weight("bias", start.shape, initializer=constant(start))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Applies the layer."""
        weights = self.values.trained() if training else self.values.exported(self._input_scale)
        result = self._apply(inputs, weights)
        if self.bias is not None:
            result = tf.nn.bias_add(result, self.bias)
        return _rounded(self._activation(result), self._range)

    def _apply(self, inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        if issubclass(self._layer_kind, keras.layers.Dense):
            return tf.linalg.matmul(inputs, weights)
        if issubclass(self._layer_kind, keras.layers.DepthwiseConv2D):
            strides = [1, *self._strides, 1]
            return tf.nn.depthwise_conv2d(inputs, weights, strides, self._padding, dilations=self._dilations)
        return tf.nn.conv2d(inputs, weights, self._strides, self._padding, dilations=self._dilations)


class RoundedOutput(keras.layers.Layer):
    """Any other layer, with its output rounded to 8 bits."""

    def __init__(self, layer: keras.layers.Layer, output_range: tuple[float, float]) -> None:
        """Creates the layer.

        Args:
            layer: What computes the output.
            output_range: Of the output.
        """
        super().__init__(name=layer.name)
        self._layer = layer
        self._range = output_range

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Applies the layer."""
        del training
        return _rounded(self._layer(inputs), self._range)


class PixelScale(keras.layers.Layer):
    """Multiplies pixels by a constant in training; when exported the constant is part of the next kernel instead."""

    def __init__(self, scale: float, name: str) -> None:
        """Creates the layer.

        Args:
            scale: The constant.
            name: Name of the layer.
        """
        super().__init__(name=name)
        self._scale = scale

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Applies the layer."""
        return inputs * self._scale if training else _rounded(inputs, (0.0, 255.0))


def _bits(layer: keras.layers.Layer, bits: int | Mapping[str, int]) -> int:
    if is_depthwise(layer):
        return WIDE_BITS
    if not isinstance(bits, int):
        return bits.get(layer.name, WIDE_BITS)
    # Where a file takes more for a weight anyway, it need not do with less.
    return bits_in_file(layer, bits) if bits == 2 else bits


def _kernel_values(layer: keras.layers.Layer, bits: int, clustered: bool) -> SteppedKernel | ClusteredKernel:
    axes, values = step_axes(layer), kernel(layer).numpy()
    return ClusteredKernel(values, axes) if clustered else SteppedKernel(values, axes, bits)


def _output_ranges(model: keras.Model, images: np.ndarray) -> dict[str, tuple[float, float]]:
    """Measures the least and largest output of every layer that needs a range of its own."""
    takers = graph.consumers(model)
    needing = [
        layer for layer in model.layers if needs_range(layer) and not _feeds_only_relu(model, layer, takers[layer.name])
    ]
    probe = tf.function(keras.Model(model.input, [layer.output for layer in needing]), reduce_retracing=True)
    lows, highs = np.full(len(needing), np.inf), np.full(len(needing), -np.inf)
    for start in range(0, len(images), _CALIBRATION_BATCH):
        outputs = probe(tf.cast(images[start : start + _CALIBRATION_BATCH], tf.float32), training=False)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        lows = np.minimum(lows, [float(tf.reduce_min(output)) for output in outputs])
        highs = np.maximum(highs, [float(tf.reduce_max(output)) for output in outputs])
    # Zero must be among the values, or padding could not be represented.
    found = {
        layer.name: (min(0.0, float(low)), max(float(high), _SMALLEST_RANGE))
        for layer, low, high in zip(needing, lows, highs, strict=True)
    }
    return _shared_when_joined(model, found)


def _shared_when_joined(model: keras.Model, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Gives whatever is concatenated one range, because TFLite can join only what has one scale, or rounds it twice."""
    shared = dict(ranges)
    # Backwards, because the range of what has joined before must be that of what joins it.
    for name, taken in reversed(graph.sources(model).items()):
        if isinstance(model.get_layer(name), keras.layers.Concatenate):
            shared |= {source: shared[name] for source in taken if source in shared}
    return shared


def _feeds_only_relu(model: keras.Model, layer: keras.layers.Layer, takers: Sequence[str]) -> bool:
    """Tells whether TFLite fuses what follows into the layer, so that only the fused result is rounded."""
    return (
        isinstance(layer, keras.layers.Add)
        and len(takers) == 1
        and isinstance(model.get_layer(takers[0]), keras.layers.ReLU)
    )


@dataclasses.dataclass(frozen=True)
class _Scale:
    """A factor of the pixels, and the layer that can take it over."""

    factor: float
    consumer: str


def _absorbed_scales(model: keras.Model) -> Mapping[str, _Scale]:
    """Finds pure scalings of the input that the one convolution after them can take over, by their names."""
    found = {}
    for name, takers in graph.consumers(model).items():
        layer = model.get_layer(name)
        scales = isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.scale) == 0 and not np.any(layer.offset)
        if scales and len(takers) == 1 and has_kernel(model.get_layer(takers[0])):
            found[name] = _Scale(float(layer.scale), takers[0])
    return found


def _rounded(values: tf.Tensor, limits: tuple[float, float] | None) -> tf.Tensor:
    return values if limits is None else tf.quantization.fake_quant_with_min_max_args(values, *limits)
