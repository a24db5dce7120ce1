"""The family of networks, each built from one description."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import tf_keras as keras

if TYPE_CHECKING:
    from trainer_module.settings import ModelSettings

_CHANNEL_MULTIPLE = 8
# Keras' default of 0.99 needs some 500 steps to forget the initial variance of 1, which a small data set does not take.
_BATCH_NORM_MOMENTUM = 0.9
# He initialisation for 3x3 kernels with one input channel; Keras counts all channels as fan-in and starts too small.
_DEPTHWISE_STDDEV = (2 / 9) ** 0.5


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a network is made of.

    Attributes:
        block: Kind of block: "conv" (3x3 convolution), "separable" (3x3 depthwise, then pointwise convolution)
            or "residual" (two separable layers and a shortcut).
        widths: Output channels of each stage, before the width multiplier; each stage halves the resolution,
            the first one only where the input is large enough.
        depth: Blocks in a stage.
        head: "flatten" (Flatten and a hidden dense layer) or "pool" (global average pooling).
        hidden: Units of the hidden dense layer; 0 for none.
    """

    block: Literal["conv", "separable", "residual"]
    widths: tuple[int, ...]
    depth: int
    head: Literal["flatten", "pool"]
    hidden: int = 0


# At the lesson's scale (150 pixels, 6 classes) these have 7.47, 5.68 and 0.73 million parameters; the lesson's own
# networks have 7.48, 5.87 and 0.68 million.
_LESSON_WIDTHS = (32, 64, 128, 256, 584)

ARCHITECTURES = {
    "naive": Architecture("conv", _LESSON_WIDTHS, 2, "flatten", 128),
    "pooling": Architecture("conv", _LESSON_WIDTHS, 2, "pool", 128),
    "separable": Architecture("separable", _LESSON_WIDTHS, 2, "pool", 128),
    "lean": Architecture("residual", (32, 64, 128), 1, "pool"),
}


def build_model(settings: ModelSettings, image_size: int, classes: int) -> keras.Model:
    """Builds an untrained classifier.

    Args:
        settings: Architecture, width multiplier and dropout.
        image_size: Side S of the input, in pixels.
        classes: Number of classes C.

    Returns:
        Model from float32 pixels [N, S, S, 3] in [0, 255] to float32 probabilities [N, C]. Under a mixed-precision
        policy only the layers between compute in the lower precision.
    """
    architecture = ARCHITECTURES[settings.architecture]
    widths = [scale_channels(width, settings.width) for width in architecture.widths]
    image = keras.Input([image_size, image_size, 3], name="image")
    # In float32, because bfloat16 cannot tell neighbouring pixel values above 128 apart.
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale", dtype="float32")(image)
    x = _conv_bn_relu(x, widths[0], strides=_stem_stride(image_size), name="stem")
    for stage, width in enumerate(widths):
        for block in range(architecture.depth):
            strides = 2 if block == 0 and stage > 0 else 1
            x = _BLOCKS[architecture.block](x, width, strides, f"stage{stage}_block{block}")
    x = _head(x, architecture, settings)
    logits = keras.layers.Dense(classes, name="logits")(x)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(image, probabilities, name=settings.architecture)


def scale_channels(channels: int, width: float) -> int:
    """Applies the width multiplier, rounded to a multiple of 8 because vector units work on whole lanes."""
    return max(_CHANNEL_MULTIPLE, round(channels * width / _CHANNEL_MULTIPLE) * _CHANNEL_MULTIPLE)


def _stem_stride(image_size: int) -> int:
    # Small images carry their detail in single pixels; large ones cost too much at full resolution.
    return 1 if image_size < 64 else 2


def _head(x: keras.KerasTensor, architecture: Architecture, settings: ModelSettings) -> keras.KerasTensor:
    if architecture.head == "flatten":
        x = keras.layers.Flatten(name="flatten")(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if architecture.hidden:
        units = scale_channels(architecture.hidden, settings.width)
        x = keras.layers.Dense(units, activation="relu", name="hidden")(x)
    return keras.layers.Dropout(settings.dropout, name="dropout")(x)


def _conv_bn_relu(
    x: keras.KerasTensor, width: int, *, kernel: int = 3, strides: int = 1, name: str, activation: bool = True
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        width,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = keras.layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if activation else x


def _depthwise_bn_relu(x: keras.KerasTensor, *, strides: int, name: str) -> keras.KerasTensor:
    x = keras.layers.DepthwiseConv2D(
        3,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=keras.initializers.RandomNormal(stddev=_DEPTHWISE_STDDEV),
        name=f"{name}_depthwise",
    )(x)
    x = keras.layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, name=f"{name}_depthwise_bn")(x)
    return keras.layers.ReLU(name=f"{name}_depthwise_relu")(x)


def _conv_block(x: keras.KerasTensor, width: int, strides: int, name: str) -> keras.KerasTensor:
    return _conv_bn_relu(x, width, strides=strides, name=name)


def _separable_block(x: keras.KerasTensor, width: int, strides: int, name: str) -> keras.KerasTensor:
    # Not SeparableConv2D: the quantisation and pruning registries of TFMOT know only its two halves (tfmot#655, #823).
    x = _depthwise_bn_relu(x, strides=strides, name=name)
    return _conv_bn_relu(x, width, kernel=1, name=f"{name}_pointwise")


def _residual_block(x: keras.KerasTensor, width: int, strides: int, name: str) -> keras.KerasTensor:
    shortcut = x
    if strides > 1 or x.shape[-1] != width:
        shortcut = _conv_bn_relu(x, width, kernel=1, strides=strides, name=f"{name}_shortcut", activation=False)
    x = _separable_block(x, width, strides, f"{name}_first")
    x = _depthwise_bn_relu(x, strides=1, name=f"{name}_second")
    x = _conv_bn_relu(x, width, kernel=1, name=f"{name}_second_pointwise", activation=False)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


_BLOCKS = {"conv": _conv_block, "separable": _separable_block, "residual": _residual_block}
