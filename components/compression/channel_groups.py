"""Which channels of a network stand and fall together, and the network without some of them."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import tf_keras as keras

from components.compression import graph
from components.compression.kernels import has_kernel, is_depthwise, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclasses.dataclass(frozen=True)
class Groups:
    """Which channels stand and fall together.

    Attributes:
        output: Number of the group that each layer's output channels belong to, by the layer's name.
        sizes: Channels of each group.
        fixed: Groups that must stay whole: those of the input and of the classes.
        sources: What `graph.sources` says of the model.
        consumers: What `graph.consumers` says of it.
        kernels: The layers that have one, by name.
    """

    output: dict[str, int]
    sizes: dict[int, int]
    fixed: frozenset[int]
    sources: dict[str, list[str]]
    consumers: dict[str, list[str]]
    kernels: dict[str, keras.layers.Layer]

    @property
    def whole(self) -> dict[int, np.ndarray]:
        """Channels that stay if all do, by group."""
        return {group: np.arange(size) for group, size in self.sizes.items()}


def groups_of(model: keras.Model) -> Groups:
    """Finds the groups of a functional classifier that is of known layers once it is folded."""
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
                joined, former = output[name], output[other]
                output |= {key: joined for key, group in output.items() if group == former}
                if former in fixed:
                    fixed.add(joined)
    fixed |= {output[name] for name in model.output_names}
    kernels = {layer.name: layer for layer in model.layers if has_kernel(layer)}
    return Groups(output, sizes, frozenset(fixed), flow, graph.consumers(model), kernels)


def gone(groups: Groups, kept: dict[int, np.ndarray]) -> set[str]:
    """Names the layers that go as a whole: those without channels, and those around them that lead nowhere else.

    Args:
        groups: The groups of the network.
        kept: Channels that stay, as sorted indices by group. With none in some groups, the classes can be gone as well.
    """
    lost: set[str] = set()
    for name, sources in groups.sources.items():
        empty = name in groups.kernels and not len(kept[groups.output[name]])
        if empty or (sources and lost.issuperset(sources)):
            lost.add(name)
    for name, takers in reversed(groups.consumers.items()):
        if takers and lost.issuperset(takers):
            lost.add(name)
    return lost


@contextlib.contextmanager
def silenced(model: keras.Model, groups: Groups, kept: dict[int, np.ndarray]) -> Iterator[None]:
    """Makes zero what is not kept, which does as its removal but is made at once; then the model is as it was."""
    weights = model.get_weights()
    lost = gone(groups, kept)
    for layer in model.layers:
        group = groups.output[layer.name]
        stays = np.isin(np.arange(groups.sizes[group]), [] if layer.name in lost else kept[group])
        if layer.weights and not stays.all():
            # Depthwise kernels end with the multiplier of their channels.
            first, *others = layer.get_weights()
            first = first * (stays[:, np.newaxis] if is_depthwise(layer) else stays)
            layer.set_weights([first, *(array * stays for array in others)])
    try:
        yield
    finally:
        model.set_weights(weights)


def rebuilt(model: keras.Model, groups: Groups, kept: dict[int, np.ndarray]) -> keras.Model:
    """Returns a new network of what is kept, see `gone`, with the weights that it had."""
    config = model.get_config()
    graph.cut(config, gone(groups, kept))
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
