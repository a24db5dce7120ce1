"""How much each layer can lose, measured before anything is fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from sklearn.cluster import KMeans

from components.compression.integer_kernels import rounded
from components.compression.kernels import has_kernel, kernel, step_axes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import tf_keras as keras

LEVELS = (0.0, 0.25, 0.5, 0.65, 0.8, 0.9, 0.95)
WIDTHS = (8, 4, 3, 2)
# Keeps logarithms finite.
SMALLEST_PROBABILITY = 1e-7
_BATCH = 128
_HALVINGS = 40


class Probe:
    """A model whose kernels are tried out with other values; traced once for all of them.

    Attributes:
        kernels: The kernels as they are, by layer name.
    """

    def __init__(self, model: keras.Model, images: np.ndarray) -> None:
        """Traces the model.

        Args:
            model: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C]; its kernels change in between.
            images: uint8 images [M, S, S, 3], M > 0.
        """
        self.kernels = {layer.name: kernel(layer).numpy() for layer in filter(has_kernel, model.layers)}
        self._model = model
        self._images = images
        self._call = tf.function(lambda pixels: model(tf.cast(pixels, tf.float32), training=False))

    def answers(self, changed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the probabilities [M, C] with some kernels, by layer name, changed."""
        self._assign(changed)
        batches = range(0, len(self._images), _BATCH)
        found = np.concatenate([self._call(self._images[start : start + _BATCH]).numpy() for start in batches])
        self._assign({name: self.kernels[name] for name in changed})
        return found

    def pruning_harm(self, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Measures what pruning one layer alone, without fine-tuning, does to the answers.

        Args:
            layers: Names of the layers.

        Returns:
            Mean KL divergence from the intact model's answers in nats at each of `LEVELS`, made to rise, by layer name.
        """
        intact = self.answers({})
        harm = {}
        for name in layers:
            pruned = (without_smallest(self.kernels[name], level) for level in LEVELS)
            harm[name] = np.maximum.accumulate([divergence(intact, self.answers({name: values})) for values in pruned])
        return harm

    def rounding_harm(self, layers: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        """Measures what rounding the weights of one layer alone, without fine-tuning, does to the answers.

        Args:
            layers: Bits of a weight that are to be tried, falling, by layer name.

        Returns:
            Mean KL divergence from the intact model's answers in nats, made to rise, by layer name and bits.
        """
        intact = self.answers({})
        harm = {}
        for name, widths in layers.items():
            found = (self.answers({name: self.with_few_bits(name, bits)}) for bits in widths)
            rising = np.maximum.accumulate([divergence(intact, answers) for answers in found])
            harm[name] = dict(zip(widths, rising.tolist(), strict=True))
        return harm

    def with_few_bits(self, name: str, bits: int) -> np.ndarray:
        """Returns the kernel of a layer with weights of so many bits, and the steps that a file has."""
        return rounded(self.kernels[name], step_axes(self._model.get_layer(name)), bits)

    def _assign(self, kernels: Mapping[str, np.ndarray]) -> None:
        for name, values in kernels.items():
            kernel(self._model.get_layer(name)).assign(values)


def equal_harm(harm: Mapping[str, np.ndarray], sizes: Mapping[str, int], target: float) -> dict[str, float]:
    """Shares a sparsity out so that every layer is harmed alike.

    Args:
        harm: What `pruning_harm` measured.
        sizes: Weights of each layer.
        target: Share of zeros among all weights of these layers, 0 to below 1.

    Returns:
        Sparsity of each layer; together they have the target, up to the largest of `LEVELS` for each.
    """
    if target >= LEVELS[-1]:
        return dict.fromkeys(harm, target)
    total = sum(sizes[name] for name in harm)

    def shares(allowed: float) -> dict[str, float]:
        return {name: float(np.interp(allowed, _strictly_rising(rising), LEVELS)) for name, rising in harm.items()}

    low, high = 0.0, max(float(rising[-1]) for rising in harm.values()) + 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = sum(share * sizes[name] for name, share in shares(middle).items()) / total
        low, high = (middle, high) if reached < target else (low, middle)
    return shares(high)


def least_harmful_bits(
    harm: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], mean: float
) -> dict[str, int]:
    """Shares bits out: that layer goes to its next width that is harmed least for the bits that this saves.

    Args:
        harm: What `rounding_harm` measured.
        sizes: Weights of each layer.
        mean: Most bits of a weight, on average over these layers.

    Returns:
        Bits of each layer, among those that were measured: the fewest of each where even these are more than `mean`.
    """
    bits = {name: max(widths) for name, widths in harm.items()}
    excess = sum((bits[name] - mean) * sizes[name] for name in harm)
    while excess > 0:
        fewer = {
            name: max(width for width in widths if width < bits[name])
            for name, widths in harm.items()
            if bits[name] > min(widths)
        }
        if not fewer:
            break
        more_harm = {name: harm[name][width] - harm[name][bits[name]] for name, width in fewer.items()}
        saved = {name: (bits[name] - width) * sizes[name] for name, width in fewer.items()}
        # The last step takes no more than it needs.
        last = [name for name in fewer if saved[name] >= excess]
        name = (
            min(last, key=more_harm.__getitem__) if last else min(fewer, key=lambda name: more_harm[name] / saved[name])
        )
        bits[name] = fewer[name]
        excess -= saved[name]
    return bits


def divergence(wanted: np.ndarray, found: np.ndarray) -> float:
    """Returns the mean KL divergence KL(wanted || found) of probabilities [N, C] in nats."""
    wanted, found = np.maximum(wanted, SMALLEST_PROBABILITY), np.maximum(found, SMALLEST_PROBABILITY)
    return float(np.mean(np.sum(wanted * np.log(wanted / found), axis=1)))


def without_smallest(values: np.ndarray, share: float) -> np.ndarray:
    """Returns a kernel whose smallest weights, so many of them, are zero."""
    going = round(share * values.size)
    result = values.copy()
    result.ravel()[np.argsort(np.abs(values), axis=None, kind="stable")[:going]] = 0
    return result


def with_few_values(values: np.ndarray, clusters: int) -> np.ndarray:
    """Returns a kernel whose weights are moved to the centres of so many clusters; zeros stay zeros."""
    result = values.copy()
    alive = values[values != 0].reshape(-1, 1)
    means = KMeans(min(clusters, len(alive)), n_init=1, random_state=0).fit(alive)
    result[values != 0] = means.cluster_centers_[means.labels_, 0]
    return result


def _strictly_rising(harm: np.ndarray) -> np.ndarray:
    # Interpolation needs one level for each harm.
    return harm + np.arange(len(harm)) * 1e-9
