"""Structured pruning: whole channels are removed, so that what is left is a smaller plain network, fast anywhere."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
import tf_keras as keras

from components.compression.channel_groups import Groups, gone, groups_of, rebuilt, settled, silenced
from components.compression.errors import VariantError
from components.compression.kernels import has_kernel, is_depthwise, kernel, weight_count
from components.compression.sensitivity import SMALLEST_PROBABILITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Vector units work on whole lanes, which XNNPACK's 8-bit kernels for AVX-512 make 16 outputs wide; below that, what is
# saved are bytes and inputs of the next layer. And each tap of a kernel takes the time of so many inputs besides those
# it has. Both from the latencies of `residual` with 24 choices of channels, 50 to 82 microseconds, which a time for
# each input, tap, lane and position explains to 0.5 (root mean square; 2026-11-25, an AMD EPYC with AVX-512 VNNI).
_LANE, _LEAST_LANE = 16, 8
_TAP_IN_INPUTS = 12
# Of a wide layer up to this part goes at once, not a lane: each step is a new network, whose harm must be estimated.
_LARGEST_STEP = 1 / 8
_BATCH = 64
# The estimate is of small changes. To halve the channels of a shortcut, it promised 0.34 more of loss, which became
# 0.76, and to remove a whole block 0.33, which became 0.28 (the network of benchmarks/cifar10.yaml). For 40 % of its
# multiply-accumulates, measuring all of some 14 removals took 1.8 times as long, and the loss became 1.31 instead of
# 1.29.
_MEASURED = 8


def remove_channels(
    model: keras.Model, share: float, images: np.ndarray, labels: np.ndarray
) -> tuple[keras.Model, dict[str, int]]:
    """Removes the channels that matter least to the loss, by vector lanes, until enough multiply-accumulates are gone.

    What a channel matters is the first-order Taylor estimate of what its removal adds to the loss (Molchanov et al.
    2019, "Importance estimation for neural network pruning", https://arxiv.org/abs/1906.10771), for the time that this
    saves on a processor. Of the removals that it finds best, the one is made that is best by the loss itself, with
    batch normalisations that know what is left (Li et al. 2020, "EagleEye", https://arxiv.org/abs/2007.02491); then all
    is estimated anew. Channels that an addition joins go together, so that shortcuts stay what they are. Where all
    channels of a layer can go because a shortcut leads around it, its whole branch can.

    Args:
        model: A functional classifier that is of known layers once it is folded.
        share: Share of the multiply-accumulates to remove, in (0, 1).
        images: uint8 training images [M, S, S, 3], M > 0.
        labels: Their classes [M].

    Returns:
        The smaller model, and the channels that are left in each layer that lost some, 0 if it is gone.

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
    left = {layer.name: layer.output_shape[-1] for layer in smaller.layers}
    return smaller, {
        layer.name: left.get(layer.name, 0)
        for layer in model.layers
        if has_kernel(layer) and left.get(layer.name) != layer.output_shape[-1]
    }


def multiply_accumulates(model: keras.Model) -> int:
    """Counts those of all convolutions and dense layers for one image."""
    return sum(_cost(layer) for layer in model.layers if has_kernel(layer))


def _importances(model: keras.Model, groups: Groups, images: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """Sums the squared product of weights and gradients over everything that makes a channel; by group, [channels]."""
    layers = [layer for layer in model.layers if has_kernel(layer)]
    kernels = [kernel(layer) for layer in layers]

    @tf.function(reduce_retracing=True)
    def products(some_images: tf.Tensor, some_labels: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            probabilities = model(tf.cast(some_images, tf.float32), training=False)
            likely = tf.gather(probabilities, some_labels, batch_dims=1)
            loss = -tf.reduce_mean(tf.math.log(tf.maximum(likely, SMALLEST_PROBABILITY)))
        return [weights * gradient for weights, gradient in zip(kernels, tape.gradient(loss, kernels), strict=True)]

    importances = {group: np.zeros(size) for group, size in groups.sizes.items()}
    for start in range(0, len(images), _BATCH):
        some = slice(start, start + _BATCH)
        for layer, product in zip(layers, products(images[some], labels[some]), strict=True):
            by_channel = product.numpy().reshape(-1, layer.output_shape[-1]).sum(axis=0)
            for group, part in groups.parts(layer.name):
                importances[group] += np.square(by_channel[part])
    return importances


@dataclasses.dataclass(frozen=True)
class _Removal:
    """Channels that could go.

    Attributes:
        harm: What their going is estimated to add to the loss.
        saved: Share of the time that is saved, as far as it is needed.
        kept: Channels that stay, as sorted indices by group.
    """

    harm: float
    saved: float
    kept: dict[int, np.ndarray]


def _without_least_important(
    model: keras.Model, most: float, images: np.ndarray, labels: np.ndarray
) -> keras.Model | None:
    """Takes a step towards so many multiply-accumulates; None if every group is at its smallest."""
    groups = groups_of(model)
    importances = _importances(model, groups, images, labels)
    # Eights save little time, so they wait until no sixteen can go.
    removals = list(_removals(groups, importances, most, _LANE))
    removals = removals or list(_removals(groups, importances, most, _LEAST_LANE))
    if not removals:
        return None
    likely = sorted(removals, key=lambda removal: removal.harm / removal.saved)[:_MEASURED]
    added = _added_losses(model, groups, likely, images, labels)
    best = min(zip(added, likely, strict=True), key=lambda pair: pair[0] / pair[1].saved)[1]
    smaller = rebuilt(model, groups, best.kept)
    _recalibration(smaller)(images)
    return smaller


def _added_losses(
    model: keras.Model, groups: Groups, removals: list[_Removal], images: np.ndarray, labels: np.ndarray
) -> list[float]:
    """Measures what each removal adds to the loss, with batch normalisations that know what is left."""
    recalibrate = _recalibration(model)

    @tf.function(reduce_retracing=True)
    def of_batch(some_images: tf.Tensor, some_labels: tf.Tensor) -> tf.Tensor:
        probabilities = model(tf.cast(some_images, tf.float32), training=False)
        return tf.reduce_sum(keras.losses.sparse_categorical_crossentropy(some_labels, probabilities))

    def loss() -> float:
        starts = range(0, len(images), _BATCH)
        return sum(float(of_batch(images[at : at + _BATCH], labels[at : at + _BATCH])) for at in starts) / len(images)

    before, added = loss(), []
    for removal in removals:
        with silenced(model, groups, removal.kept):
            recalibrate(images)
            added.append(loss() - before)
    return added


def _removals(groups: Groups, importances: dict[int, np.ndarray], most: float, lane: int) -> Iterator[_Removal]:
    needed_layers = {name for name in groups.kernels if not groups.fixed.isdisjoint(groups.output[name])}
    time, now = _cost_of(groups, groups.whole, _LANE, _TAP_IN_INPUTS), _cost_of(groups, groups.whole)
    for group, size in groups.sizes.items():
        step = size % lane or max(lane, int(size * _LARGEST_STEP) // lane * lane)
        order = np.argsort(importances[group], kind="stable")
        for going in sorted({min(step, size), size}) if group not in groups.fixed else ():
            kept = settled(groups, groups.whole | {group: np.sort(order[going:])})
            saved = 1 - _cost_of(groups, kept, _LANE, _TAP_IN_INPUTS) / time
            if saved > 0 and gone(groups, kept).isdisjoint(needed_layers):
                needed = min(1.0, (now - most) / (now - _cost_of(groups, kept)))
                yield _Removal(importances[group][order[:going]].sum(), saved * needed, kept)


def _cost_of(groups: Groups, kept: dict[int, np.ndarray], lane: int = 1, tap_in_inputs: int = 0) -> float:
    """Counts multiply-accumulates: as they are, or as they take time with these lanes and taps."""
    total = 0.0
    lost = gone(groups, kept)
    for name, layer in groups.kernels.items():
        if name in lost:
            continue
        share = -(-len(groups.staying(name, kept)) // lane) * lane / groups.channels(name)
        if not is_depthwise(layer):
            source = groups.sources[name][0]
            share *= (len(groups.staying(source, kept)) + tap_in_inputs) / groups.channels(source)
        total += share * _cost(layer)
    return total


def _recalibration(model: keras.Model) -> Callable[[np.ndarray], None]:
    """Returns what gives batch normalisations the mean and variance of what reaches them for images [M, S, S, 3]."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]

    @tf.function(reduce_retracing=True)
    def update(some_images: tf.Tensor, momentum: tf.Tensor) -> None:
        # As a tensor while the graph is made, so that one graph serves all batches.
        for norm in norms:
            norm.momentum = momentum
        model(tf.cast(some_images, tf.float32), training=True)
        for norm, own in zip(norms, momenta, strict=True):
            norm.momentum = own

    def recalibrate(images: np.ndarray) -> None:
        for batch, start in enumerate(range(0, len(images), _BATCH) if norms else ()):
            # With this momentum the moving average is that of all batches so far.
            update(images[start : start + _BATCH], tf.constant(batch / (batch + 1)))

    return recalibrate


def _cost(layer: keras.layers.Layer) -> int:
    """Multiply-accumulates: one application of the kernel for every position of the output."""
    positions = math.prod(layer.output_shape[1:-1])
    return positions * weight_count(layer)
