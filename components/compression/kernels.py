"""The kernels of a folded classifier: which layers have one, and which of them a stage works on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import tf_keras as keras

from trainer_module.errors import UserError
from trainer_module.folding import FIXED_RANGE_ACTIVATIONS
from trainer_module.view_averaging import LAYERS as VIEW_LAYERS

if TYPE_CHECKING:
    from collections.abc import Sequence

# Such layers hold next to no bytes, and the network's first and last words.
SMALLEST_KERNEL = 256
# Layers without weights that leave every channel where it is, so that stages can look through them.
PASSING_LAYERS = (
    *VIEW_LAYERS,
    keras.layers.Activation,
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.Softmax,
    keras.layers.ZeroPadding2D,
)
_KNOWN_LAYERS = (
    *PASSING_LAYERS,
    keras.layers.Add,
    keras.layers.Concatenate,
    keras.layers.Conv2D,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.InputLayer,
)
# Layers that hand on values of their input, or, like softmax, have a range of their own in TFLite.
_SAME_RANGE_LAYERS = (
    *VIEW_LAYERS,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.InputLayer,
    keras.layers.MaxPooling2D,
    keras.layers.Softmax,
    keras.layers.ZeroPadding2D,
)
# What each stage can work on although it is called more than once: all calls of a layer share its weights, but each has
# a range of its own, and channels that flow elsewhere.
_MAY_BE_CALLED_AGAIN = {
    "prune": keras.layers.Layer,
    "qat": _SAME_RANGE_LAYERS,
    "cluster": _SAME_RANGE_LAYERS,
    "prune_channels": (),
}


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A layer that a stage leaves as it is.

    Attributes:
        layer: Its name.
        reason: Why.
    """

    layer: str
    reason: str


def is_depthwise(layer: keras.layers.Layer) -> bool:
    """Tells whether a layer is a depthwise convolution."""
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def has_kernel(layer: keras.layers.Layer) -> bool:
    """Tells whether a layer is a convolution or a dense layer."""
    return isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense)


def kernel(layer: keras.layers.Layer) -> keras.backend.variable:
    """Returns the kernel's variable of a layer that has one."""
    return layer.depthwise_kernel if is_depthwise(layer) else layer.kernel


def weight_count(layer: keras.layers.Layer) -> int:
    """Counts the weights of the kernel of a layer that has one."""
    return int(np.prod(kernel(layer).shape))


def step_axes(layer: keras.layers.Layer) -> tuple[int, ...] | None:
    """Returns the axes of an integer kernel's output channels, which have a step each; None for one step in all."""
    # TFLite's fully connected kernels take one scale in all when a weight has 8 bits.
    if isinstance(layer, keras.layers.Dense):
        return None
    return (2, 3) if is_depthwise(layer) else (kernel(layer).shape.rank - 1,)


def needs_range(layer: keras.layers.Layer) -> bool:
    """Tells whether TFLite needs a range for what a layer of a folded classifier answers, if that is to be integers."""
    if isinstance(layer, keras.layers.Activation):
        return keras.activations.serialize(layer.activation) not in FIXED_RANGE_ACTIVATIONS
    return not isinstance(layer, _SAME_RANGE_LAYERS)


def choose(model: keras.Model) -> tuple[list[keras.layers.Layer], list[Skipped]]:
    """Chooses the layers whose weights are worth pruning and clustering.

    Args:
        model: A folded classifier.

    Returns:
        The layers, and those left out with the reason.
    """
    chosen: list[keras.layers.Layer] = []
    skipped: list[Skipped] = []
    for layer in filter(has_kernel, model.layers):
        size = weight_count(layer)
        if is_depthwise(layer):
            # TFMOT neither prunes nor clusters them (tfmot#1132), and they hold few of the weights.
            skipped.append(Skipped(layer.name, "depthwise kernel"))
        elif size < SMALLEST_KERNEL:
            skipped.append(Skipped(layer.name, f"only {size} weights"))
        else:
            chosen.append(layer)
    return chosen, skipped


def require_known_layers(model: keras.Model, stages: Sequence[str]) -> None:
    """Refuses models that the stages with fine-tuning cannot rebuild.

    Args:
        model: A folded classifier.
        stages: Those that need it.

    Raises:
        UserError: Names a layer that no such stage supports, or says that there is nothing to work on; or see
            `require_single_calls`.
    """
    for layer in model.layers:
        groups = getattr(layer, "groups", 1)
        if type(layer) not in _KNOWN_LAYERS or (groups or 1) != 1 or getattr(layer, "depth_multiplier", 1) != 1:
            raise UserError(
                f"compression.stages: {', '.join(stages)} cannot work on layer {layer.name!r} ({type(layer).__name__}"
                " of this kind); leave those stages out (quantize takes any layer), or replace the layer"
            )
    if not any(map(has_kernel, model.layers)):
        raise UserError("compression.stages: the model has no convolution or dense layer to compress")
    require_single_calls(model, stages)


def require_single_calls(model: keras.Model, stages: Sequence[str]) -> None:
    """Refuses models in which a layer is called more than once, where a stage must know what flows where.

    Args:
        model: A functional model.
        stages: Those that work on it.

    Raises:
        UserError: Names such a layer.
    """
    for described in model.get_config()["layers"]:
        layer, calls = model.get_layer(described["name"]), len(described["inbound_nodes"])
        refusing = [
            stage for stage in stages if calls > 1 and not isinstance(layer, _MAY_BE_CALLED_AGAIN.get(stage, ()))
        ]
        if refusing:
            raise UserError(
                f"compression.stages: {', '.join(refusing)} cannot work on layer {layer.name!r}, which is called"
                f" {calls} times; give each call a layer of its own, or leave those stages out"
            )


def copy_of(model: keras.Model) -> keras.Model:
    """Returns a model of its own with the same layers and weights."""
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    return copied


def sparsity(values: np.ndarray) -> float:
    """Returns the share of zeros."""
    return float(np.mean(values == 0))
