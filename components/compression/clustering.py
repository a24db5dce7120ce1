"""Weight clustering: the weights of a layer share few values, by TFMOT; zeros stay zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as sparse_clustering

from components.compression.errors import VariantError
from components.compression.kernels import Skipped, copy_of, kernel, sparsity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.compression.fine_tuning import FineTuner


# Zero is one of them, and TFMOT wants two more.
_FEWEST_BESIDE_ZERO = 3


def clusterable(layers: Sequence[keras.layers.Layer], clusters: int) -> tuple[list[keras.layers.Layer], list[Skipped]]:
    """Leaves out the layers that have no more distinct weights than clusters.

    There is nothing to gain there, and k-means++ fails on fewer points than clusters.

    Args:
        layers: Layers with a kernel.
        clusters: Values that a layer may have.

    Returns:
        The layers that remain, and those left out with the reason.
    """
    kept: list[keras.layers.Layer] = []
    skipped: list[Skipped] = []
    for layer in layers:
        values = kernel(layer).numpy()
        distinct = len(np.unique(values[values != 0]))
        if distinct > clusters:
            kept.append(layer)
        else:
            skipped.append(Skipped(layer.name, f"only {distinct} distinct weights"))
    return kept, skipped


def cluster(model: keras.Model, layers: Sequence[str], clusters: int, tuner: FineTuner, name: str) -> keras.Model:
    """Clusters a model and fine-tunes the clusters' centres.

    One set of values for a whole kernel, not for each channel: so many distinct bytes are in the file, which is what
    deflation profits from.

    Args:
        model: A folded classifier; it stays as it is.
        layers: Names of the layers to cluster.
        clusters: Values that a layer may have, zero among them where it is sparse.
        tuner: Trains it.
        name: Of this work.

    Returns:
        The clustered model.

    Raises:
        VariantError: A layer has more values or fewer zeros than it should, or the fine-tuning failed.
    """
    if not layers:
        raise VariantError(f"no layer has more than {clusters} distinct weights")
    sparse = any((kernel(model.get_layer(layer)).numpy() == 0).any() for layer in layers)
    if sparse and clusters < _FEWEST_BESIDE_ZERO:
        raise VariantError(f"compression.clusters={clusters}: a pruned layer needs at least {_FEWEST_BESIDE_ZERO}")
    clustered = copy_of(model)
    tuner.once(name, clustered, lambda: _tune(clustered, layers, clusters, tuner))
    for layer in layers:
        values = kernel(clustered.get_layer(layer)).numpy()
        zeros = sparsity(kernel(model.get_layer(layer)).numpy())
        if len(np.unique(values)) > clusters:
            raise VariantError(f"layer {layer} has {len(np.unique(values))} distinct weights, not {clusters}")
        if sparsity(values) < zeros:
            raise VariantError(f"layer {layer} had {zeros:.1%} zeros and has {sparsity(values):.1%} after clustering")
    return clustered


def _tune(clustered: keras.Model, layers: Sequence[str], clusters: int, tuner: FineTuner) -> None:
    def wrap(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name not in layers:
            return layer
        return sparse_clustering.cluster_weights(
            layer,
            number_of_clusters=clusters,
            cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=bool((kernel(layer).numpy() == 0).any()),
        )

    # TFMOT takes the kernels of the layers that it wraps away from them, so it gets a copy.
    wrapped = keras.models.clone_model(copy_of(clustered), clone_function=wrap)
    tuner.fit(wrapped)
    for layer in tfmot.clustering.keras.strip_clustering(wrapped).layers:
        by_name = {weight.name.split("/")[-1]: weight for weight in layer.weights}
        for weight in clustered.get_layer(layer.name).weights:
            weight.assign(by_name[weight.name.split("/")[-1]])
