"""The family of networks, each built from its description."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import tf_keras as keras

from trainer_module.architectures import ARCHITECTURES, Architecture, Stage, require_input_size, scale_channels
from trainer_module.view_averaging import AverageOfViews, with_views

if TYPE_CHECKING:
    from trainer_module.settings import ModelSettings

# Keras' default of 0.99 needs some 500 steps to forget the initial variance of 1, which a small data set does not take.
_BATCH_NORM_MOMENTUM = 0.9
# He initialisation for 3x3 kernels with one input channel; Keras counts all channels as fan-in and starts too small.
_DEPTHWISE_STDDEV = (2 / 9) ** 0.5


def build_model(settings: ModelSettings, image_size: int, classes: int) -> keras.Model:
    """Builds an untrained classifier.

    Args:
        settings: Architecture, width multiplier, dropout, and which views are averaged.
        image_size: Side S of the input, in pixels.
        classes: Number of classes C.

    Returns:
        Model from float32 pixels [N, S, S, 3] in [0, 255] to float32 probabilities [N, C]. Under a mixed-precision
        policy only the layers between compute in the lower precision.

    Raises:
        UserError: If the input is smaller than the network's stride.
    """
    require_input_size(settings.architecture, image_size)
    architecture = ARCHITECTURES[settings.architecture]
    image = keras.Input([image_size, image_size, 3], name="image")
    x, views = with_views(image, settings)
    # In float32, because bfloat16 cannot tell neighbouring pixel values above 128 apart. Without an offset, because a
    # pure scale disappears into the stem's weights when the network is quantised.
    x = keras.layers.Rescaling(1 / 255, name="rescale", dtype="float32")(x)
    x = _stem(x, scale_channels(architecture.stem, settings.width), architecture.stem_halvings(image_size))
    for number, stage in enumerate(architecture.stages):
        x = _stage(x, stage, scale_channels(stage.width, settings.width), f"stage{number}")
    x = _head(x, architecture, settings)
    logits = keras.layers.Dense(classes, name="logits")(x)
    if views > 1:
        logits = AverageOfViews(views, name="view_average")(logits)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(image, probabilities, name=settings.architecture)


def _stem(x: keras.KerasTensor, width: int, halvings: int) -> keras.KerasTensor:
    x = _conv_bn_relu(x, width, strides=2 if halvings else 1, name="stem")
    for number in range(1, halvings):
        x = _conv_bn_relu(x, width, strides=2, name=f"stem{number}")
    return x


def _stage(x: keras.KerasTensor, stage: Stage, width: int, name: str) -> keras.KerasTensor:
    for number in range(stage.depth):
        strides = stage.stride if number == 0 else 1
        x = _BLOCKS[stage.block](x, width, strides, stage.expansion, f"{name}_block{number}")
    return x


def _head(x: keras.KerasTensor, architecture: Architecture, settings: ModelSettings) -> keras.KerasTensor:
    if architecture.stages[-1].block in _LINEAR_BLOCKS:
        # Or the last convolution could do nothing that pooling and the dense layer do not: all are linear.
        x = keras.layers.ReLU(name="features_relu")(x)
    if architecture.head == "flatten":
        x = keras.layers.Flatten(name="flatten")(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if architecture.hidden:
        units = scale_channels(architecture.hidden, settings.width)
        x = keras.layers.Dense(units, activation="relu", name="hidden")(x)
    return keras.layers.Dropout(settings.dropout, name="dropout")(x)


def _conv_bn_relu(
    x: keras.KerasTensor, width: int, *, kernel: int = 3, strides: int = 1, name: str
) -> keras.KerasTensor:
    return keras.layers.ReLU(name=f"{name}_relu")(_conv_bn(x, width, kernel=kernel, strides=strides, name=name))


def _conv_bn(
    x: keras.KerasTensor, width: int, *, kernel: int = 3, strides: int = 1, gamma: str = "ones", name: str
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
    return keras.layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, gamma_initializer=gamma, name=f"{name}_bn")(x)


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


def _conv_block(x: keras.KerasTensor, width: int, strides: int, expansion: int, name: str) -> keras.KerasTensor:
    del expansion
    return _conv_bn_relu(x, width, strides=strides, name=name)


def _separable_block(x: keras.KerasTensor, width: int, strides: int, expansion: int, name: str) -> keras.KerasTensor:
    del expansion
    # Not SeparableConv2D: the quantisation and pruning registries of TFMOT know only its two halves (tfmot#655, #823).
    x = _depthwise_bn_relu(x, strides=strides, name=name)
    return _conv_bn_relu(x, width, kernel=1, name=f"{name}_pointwise")


def _inverted_block(x: keras.KerasTensor, width: int, strides: int, expansion: int, name: str) -> keras.KerasTensor:
    inner = _conv_bn_relu(x, expansion * x.shape[-1], kernel=1, name=f"{name}_expand")
    inner = _depthwise_bn_relu(inner, strides=strides, name=name)
    return _project(x, inner, width, name)


def _fused_block(x: keras.KerasTensor, width: int, strides: int, expansion: int, name: str) -> keras.KerasTensor:
    inner = _conv_bn_relu(x, expansion * x.shape[-1], strides=strides, name=f"{name}_expand")
    return _project(x, inner, width, name)


def _residual_block(x: keras.KerasTensor, width: int, strides: int, expansion: int, name: str) -> keras.KerasTensor:
    del expansion
    inner = _conv_bn_relu(x, width, strides=strides, name=f"{name}_first")
    if inner.shape == x.shape:
        added = _add(x, _conv_bn(inner, width, gamma="zeros", name=f"{name}_second"), name)
    else:
        shortcut = _conv_bn(x, width, kernel=1, strides=strides, name=f"{name}_shortcut")
        added = _add(shortcut, _conv_bn(inner, width, name=f"{name}_second"), name)
    return keras.layers.ReLU(name=f"{name}_relu")(added)


def _dense_block(x: keras.KerasTensor, width: int, strides: int, expansion: int, name: str) -> keras.KerasTensor:
    del expansion
    if strides > 1:
        x = keras.layers.AveragePooling2D(strides, padding="same", name=f"{name}_transition_pool")(x)
        x = _conv_bn_relu(x, x.shape[-1] // 2, kernel=1, name=f"{name}_transition")
    return keras.layers.Concatenate(name=f"{name}_join")([x, _conv_bn_relu(x, width, name=name)])


def _project(shortcut: keras.KerasTensor, inner: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    # Without an activation: a ReLU would lose what the few channels carry (arXiv:1801.04381, section 3.2).
    project = functools.partial(_conv_bn, inner, width, kernel=1, name=f"{name}_project")
    if shortcut.shape[1:] != (*inner.shape[1:3], width):
        return project()
    return _add(shortcut, project(gamma="zeros"), name)


def _add(shortcut: keras.KerasTensor, branch: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Adds a branch to its shortcut.

    Where both have one shape the branch's last gamma is zero, so that the block starts as the identity, which steadies
    the first steps of a deep network (arXiv:1706.02677, section 5.1).
    """
    return keras.layers.Add(name=f"{name}_add")([shortcut, branch])


_BLOCKS = {
    "conv": _conv_block,
    "separable": _separable_block,
    "inverted": _inverted_block,
    "fused": _fused_block,
    "residual": _residual_block,
    "dense": _dense_block,
}
# Those that end with a convolution or an addition, and no activation.
_LINEAR_BLOCKS = frozenset({"inverted", "fused"})
