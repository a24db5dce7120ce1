"""Structured pruning: whole channels are removed, so that what is left is a smaller plain network, fast anywhere."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from components.compression import graph
from components.compression.errors import VariantError
from components.compression.kernels import has_kernel, is_depthwise, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Vector units work on whole lanes, which XNNPACK's 8-bit kernels for AVX-512 make 16 outputs wide; below that, what is
# saved are bytes and inputs of the next layer. And each tap of a kernel takes the time of so many inputs besides those
# it has. Both from the latencies of `residual` with 24 choices of channels, 50 to 82 microseconds, which a time for
# each input, tap, lane and position explains to 0.5 (root mean square; 2026-11-25, an AMD EPYC with AVX-512 VNNI).
_LANE, _LEAST_LANE = 16, 8
_TAP_IN_INPUTS = 12
# Of a wide layer up to this part goes at once, not a lane: each step is a new network, whose harm must be estimated.
_LARGEST_STEP = 1 / 8
_GRADIENT_BATCH = 64
_SMALLEST_PROBABILITY = 1e-7


def remove_channels(
    model: keras.Model, share: float, images: np.ndarray, labels: np.ndarray
) -> tuple[keras.Model, dict[str, int]]:
    """Removes the channels that matter least to the loss, by vector lanes, until enough multiply-accumulates are gone.

    What a channel matters is the first-order Taylor estimate of what its removal adds to the loss (Molchanov et al.
    2019, "Importance estimation for neural network pruning", https://arxiv.org/abs/1906.10771), for the time that this
    saves on a processor. It is estimated anew after each removal, with batch normalisations that know what is left (Li
    et al. 2020, "EagleEye", https://arxiv.org/abs/2007.02491). Channels that an addition joins go together, so that
    shortcuts stay what they are.

    Args:
        model: A functional classifier that is of known layers once it is folded.
        share: Share of the multiply-accumulates to remove, in (0, 1).
        images: uint8 training images [M, S, S, 3], M > 0.
        labels: Their classes [M].

    Returns:
        The smaller model, and the channels that are left in each layer that lost some.

    Raises:
        VariantError: The network has too few channels for that.
    """
    most = (1 - share) * multiply_accumulates(model)
    smaller = model
    while multiply_accumulates(smaller) > most:
        smaller = _without_least_important(smaller, most, images, labels)
        if smaller is None:
            raise VariantError(
                f"the network has too few channels to save {share:.0%} of its multiply-accumulates; lower "
                "compression.channel_sparsity, or raise model.width"
            )
        _recalibrate(smaller, images)
    changed = {
        layer.name: layer.output_shape[-1]
        for layer in smaller.layers
        if has_kernel(layer) and layer.output_shape[-1] != model.get_layer(layer.name).output_shape[-1]
    }
    return smaller, changed


def multiply_accumulates(model: keras.Model) -> int:
    """Counts those of all convolutions and dense layers for one image."""
    return sum(_cost(layer) for layer in model.layers if has_kernel(layer))


@dataclasses.dataclass(frozen=True)
class _Groups:
    """Which channels stand and fall together.

    Attributes:
        output: Number of the group that each layer's output channels belong to, by the layer's name.
        sizes: Channels of each group.
        fixed: Groups that must stay whole: those of the input and of the classes.
        sources: What `graph.sources` says of the model.
    """

    output: dict[str, int]
    sizes: dict[int, int]
    fixed: frozenset[int]
    sources: dict[str, list[str]]


def _groups(model: keras.Model) -> _Groups:
    output: dict[str, int] = {}
    sizes: dict[int, int] = {}
    fixed: set[int] = set()
    flow = graph.sources(model)
    for name, sources in flow.items():
        layer = model.get_layer(name)
        if has_kernel(layer) and not is_depthwise(layer):
            output[name] = len(output)
            sizes[output[name]] = layer.output_shape[-1]
        elif not sources:
            output[name] = len(output)
            sizes[output[name]] = layer.output_shape[0][-1]
            fixed.add(output[name])
        else:
            output[name] = output[sources[0]]
            for other in sources[1:]:
                joined, gone = output[name], output[other]
                output |= {key: joined for key, group in output.items() if group == gone}
                if gone in fixed:
                    fixed.add(joined)
    fixed |= {output[name] for name in model.output_names}
    return _Groups(output, sizes, frozenset(fixed), flow)


def _importances(model: keras.Model, groups: _Groups, images: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """Sums the squared product of weights and gradients over everything that makes a channel; by group, [channels]."""
    layers = [layer for layer in model.layers if has_kernel(layer)]
    kernels = [kernel(layer) for layer in layers]

    @tf.function(reduce_retracing=True)
    def products(some_images: tf.Tensor, some_labels: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            probabilities = model(tf.cast(some_images, tf.float32), training=False)
            likely = tf.gather(probabilities, some_labels, batch_dims=1)
            loss = -tf.reduce_mean(tf.math.log(tf.maximum(likely, _SMALLEST_PROBABILITY)))
        return [weights * gradient for weights, gradient in zip(kernels, tape.gradient(loss, kernels), strict=True)]

    importances = {group: np.zeros(size) for group, size in groups.sizes.items()}
    for start in range(0, len(images), _GRADIENT_BATCH):
        some = slice(start, start + _GRADIENT_BATCH)
        for layer, product in zip(layers, products(images[some], labels[some]), strict=True):
            by_channel = product.numpy().reshape(-1, layer.output_shape[-1]).sum(axis=0)
            importances[groups.output[layer.name]] += np.square(by_channel)
    return importances


@dataclasses.dataclass(frozen=True)
class _Removal:
    """Channels that could go.

    Attributes:
        harm: What their going is estimated to add to the loss.
        saved: Share of the time that is saved.
        left: Multiply-accumulates that are left.
        kept: Channels that stay, as sorted indices by group.
    """

    harm: float
    saved: float
    left: float
    kept: dict[int, np.ndarray]


def _without_least_important(
    model: keras.Model, most: float, images: np.ndarray, labels: np.ndarray
) -> keras.Model | None:
    """Takes a step towards so many multiply-accumulates; None if every group is at its smallest."""
    groups = _groups(model)
    importances = _importances(model, groups, images, labels)
    # Eights save little time, so they wait until no sixteen can go.
    removals = list(_removals(model, groups, importances, _LANE))
    removals = removals or list(_removals(model, groups, importances, _LEAST_LANE))
    if not removals:
        return None
    # The last step takes no more than it needs.
    last = [removal for removal in removals if removal.left <= most]
    if last:
        return _rebuilt(model, groups, min(last, key=lambda removal: removal.harm).kept)
    return _rebuilt(model, groups, min(removals, key=lambda removal: removal.harm / removal.saved).kept)


def _removals(model: keras.Model, groups: _Groups, importances: dict[int, np.ndarray], lane: int) -> Iterator[_Removal]:
    whole = {group: np.arange(size) for group, size in groups.sizes.items()}
    time = _cost_of(model, groups, whole, _LANE, _TAP_IN_INPUTS)
    for group, size in groups.sizes.items():
        going = size % lane or max(lane, int(size * _LARGEST_STEP) // lane * lane)
        if group in groups.fixed or size <= going:
            continue
        order = np.argsort(importances[group], kind="stable")
        kept = whole | {group: np.sort(order[going:])}
        saved = 1 - _cost_of(model, groups, kept, _LANE, _TAP_IN_INPUTS) / time
        if saved > 0:
            yield _Removal(importances[group][order[:going]].sum(), saved, _cost_of(model, groups, kept), kept)


def _cost_of(
    model: keras.Model, groups: _Groups, kept: dict[int, np.ndarray], lane: int = 1, tap_in_inputs: int = 0
) -> float:
    """Counts multiply-accumulates: as they are, or as they take time with these lanes and taps."""
    total = 0.0
    for name, sources in groups.sources.items():
        layer = model.get_layer(name)
        if has_kernel(layer):
            share = -(-len(kept[groups.output[name]]) // lane) * lane / groups.sizes[groups.output[name]]
            if not is_depthwise(layer):
                source = groups.output[sources[0]]
                share *= (len(kept[source]) + tap_in_inputs) / groups.sizes[source]
            total += share * _cost(layer)
    return total


def _recalibrate(model: keras.Model, images: np.ndarray) -> None:
    """Gives batch normalisations the mean and variance of what reaches them now."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for batch, start in enumerate(range(0, len(images), _GRADIENT_BATCH)):
        for norm in norms:
            # With which the moving average is that of all batches so far.
            norm.momentum = batch / (batch + 1)
        model(tf.cast(images[start : start + _GRADIENT_BATCH], tf.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _cost(layer: keras.layers.Layer) -> int:
    """Multiply-accumulates: one application of the kernel for every position of the output."""
    positions = math.prod(layer.output_shape[1:-1])
    return positions * int(np.prod(kernel(layer).shape))


def _rebuilt(model: keras.Model, groups: _Groups, kept: dict[int, np.ndarray]) -> keras.Model:
    config = model.get_config()
    for layer in config["layers"]:
        for key in ("filters", "units"):
            if key in layer["config"] and layer["class_name"] != "DepthwiseConv2D":
                layer["config"][key] = len(kept[groups.output[layer["name"]]])
    smaller = keras.Model.from_config(config)
    for layer in smaller.layers:
        original = model.get_layer(layer.name)
        outgoing = kept[groups.output[layer.name]]
        if has_kernel(layer):
            source = groups.output[groups.sources[layer.name][0]]
            incoming = _positions(kept[source], groups.sizes[source], original)
            layer.set_weights(_sliced(original, incoming, outgoing))
        else:
            # Those of a batch normalisation; other layers have none.
            layer.set_weights([weights[outgoing] for weights in original.get_weights()])
    return smaller


def _positions(kept: np.ndarray, size: int, layer: keras.layers.Layer) -> np.ndarray:
    """Maps channels to the inputs of a layer, of which a flattened image has one for every position and channel."""
    inputs = kernel(layer).shape[-2]
    return (np.arange(0, inputs, size)[:, np.newaxis] + kept).ravel()


def _sliced(layer: keras.layers.Layer, incoming: np.ndarray, outgoing: np.ndarray) -> list[Any]:
    weights: Sequence[np.ndarray] = layer.get_weights()
    first = weights[0][:, :, outgoing] if is_depthwise(layer) else weights[0][..., incoming, :][..., outgoing]
    return [first, *(bias[outgoing] for bias in weights[1:])]
