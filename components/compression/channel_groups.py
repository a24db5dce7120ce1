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
        output: Numbers of the groups that each layer's output channels consist of, in their order, by the layer's
            name: several where outputs have been concatenated.
        sizes: Channels of each group.
        fixed: Groups that must stay whole: those of the input, of the classes, and of what is joined otherwise than
            channel by channel.
        sources: What `graph.sources` says of the model.
        consumers: What `graph.consumers` says of it.
        kernels: The layers that have one, by name.
    """

    output: dict[str, tuple[int, ...]]
    sizes: dict[int, int]
    fixed: frozenset[int]
    sources: dict[str, list[str]]
    consumers: dict[str, list[str]]
    kernels: dict[str, keras.layers.Layer]

    @property
    def whole(self) -> dict[int, np.ndarray]:
        """Channels that stay if all do, by group."""
        return {group: np.arange(size) for group, size in self.sizes.items()}

    def channels(self, name: str) -> int:
        """Counts the output channels of a layer."""
        return sum(self.sizes[group] for group in self.output[name])

    def staying(self, name: str, kept: dict[int, np.ndarray]) -> np.ndarray:
        """Returns which output channels of a layer stay, as sorted indices.

        Args:
            name: Of the layer.
            kept: Channels that stay, as sorted indices by group.
        """
        return np.concatenate([kept[group] + part.start for group, part in self.parts(name)])

    def parts(self, name: str) -> Iterator[tuple[int, slice]]:
        """Yields the groups that a layer's output channels consist of, each with where its channels are."""
        start = 0
        for group in self.output[name]:
            yield group, slice(start, start + self.sizes[group])
            start += self.sizes[group]


def groups_of(model: keras.Model) -> Groups:
    """Finds the groups of a functional classifier that is of known layers once it is folded."""
    output: dict[str, tuple[int, ...]] = {}
    sizes: dict[int, int] = {}
    fixed: set[int] = set()
    flow = graph.sources(model)
    for name, sources in flow.items():
        layer = model.get_layer(name)
        if has_kernel(layer) and not is_depthwise(layer):
            output[name] = (len(sizes),)
            sizes[len(sizes)] = layer.output_shape[-1]
        elif not sources:
            output[name] = (len(sizes),)
            fixed.add(len(sizes))
            sizes[len(sizes)] = layer.output_shape[0][-1]
        elif _joins_channels(layer):
            output[name] = tuple(group for source in sources for group in output[source])
        else:
            output[name] = output[sources[0]]
            for other in sources[1:]:
                _unite(output, sizes, fixed, output[name], output[other])
            if isinstance(layer, keras.layers.Concatenate):
                fixed.update(output[name])
    fixed |= {group for name in model.output_names for group in output[name]}
    kernels = {layer.name: layer for layer in model.layers if has_kernel(layer)}
    return Groups(output, sizes, frozenset(fixed), flow, graph.consumers(model), kernels)


def _joins_channels(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Concatenate) and layer.axis in (-1, len(layer.output_shape) - 1)


def _unite(
    output: dict[str, tuple[int, ...]],
    sizes: dict[int, int],
    fixed: set[int],
    one: tuple[int, ...],
    other: tuple[int, ...],
) -> None:
    """Makes channels that are added to each other belong to the same groups, in place."""
    if one == other:
        return
    alike = [sizes[group] for group in one] == [sizes[group] for group in other]
    if not alike or len({*one, *other}) < len(one) + len(other):
        fixed.update(one, other)
        return
    joined = dict(zip(other, one, strict=True))
    for name, groups in output.items():
        output[name] = tuple(joined.get(group, group) for group in groups)
    fixed |= {group for former, group in joined.items() if former in fixed}


def gone(groups: Groups, kept: dict[int, np.ndarray]) -> set[str]:
    """Names the layers that go as a whole: those without channels, and those around them that lead nowhere else.

    Args:
        groups: The groups of the network.
        kept: Channels that stay, as sorted indices by group. With none in some groups, the classes can be gone as well.
    """
    lost: set[str] = set()
    for name, sources in groups.sources.items():
        empty = name in groups.kernels and not len(groups.staying(name, kept))
        if empty or (sources and lost.issuperset(sources)):
            lost.add(name)
    for name, takers in reversed(groups.consumers.items()):
        if takers and lost.issuperset(takers):
            lost.add(name)
    return lost


def settled(groups: Groups, kept: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Returns what is kept without the channels of layers that are gone, which nothing can join any more."""
    lost = gone(groups, kept)
    makers = [name for name, layer in groups.kernels.items() if name not in lost and not is_depthwise(layer)]
    made = {group for name in makers for group in groups.output[name]}
    return {group: kept[group] if group in made | groups.fixed else kept[group][:0] for group in kept}


@contextlib.contextmanager
def silenced(model: keras.Model, groups: Groups, kept: dict[int, np.ndarray]) -> Iterator[None]:
    """Makes zero what is not kept, which does as its removal but is made at once; then the model is as it was."""
    weights = model.get_weights()
    lost = gone(groups, kept)
    for layer in model.layers:
        stays = np.zeros(groups.channels(layer.name), bool)
        if layer.name not in lost:
            stays[groups.staying(layer.name, kept)] = True
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
                layer["config"][key] = len(groups.staying(layer["name"], kept))
    smaller = keras.Model.from_config(config)
    for layer in smaller.layers:
        original = model.get_layer(layer.name)
        outgoing = groups.staying(layer.name, kept)
        if has_kernel(layer):
            source = groups.sources[layer.name][0]
            incoming = _positions(groups.staying(source, kept), groups.channels(source), original)
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
