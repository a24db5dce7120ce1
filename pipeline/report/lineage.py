"""What was made from what in a run, laid out as a graph."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.metadata import Flow, OutputArtifact

# Each sweep brings nodes nearer to those that they hang on; more change nothing for graphs of this size.
_SWEEPS = 4


@dataclasses.dataclass(frozen=True)
class Node:
    """A component or an artifact.

    Attributes:
        key: Tells it from all others.
        kind: "component" or "artifact".
        label: For people: "Trainer", "Model 6". The number is the artifact's id in the metadata store.
        detail: State of a component, place of an artifact.
        layer: How many steps it is from the start.
        position: Where it stands in its layer, from 0 to 1; with as much room to its right as the others have.
    """

    key: str
    kind: str
    label: str
    detail: str
    layer: int
    position: float


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The graph of a run.

    Attributes:
        nodes: Components and artifacts, in the order of their layers.
        edges: Pairs of keys: what was there first, what came of it.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class _Thing:
    """A node that has no place yet."""

    kind: str
    label: str
    detail: str


def draw_lineage(flows: Sequence[Flow]) -> Lineage:
    """Lays the graph out in layers, each below what its nodes depend on.

    Args:
        flows: What each component read and made.

    Returns:
        The graph; a model of an earlier run stands among the first, because no component of this run made it.
    """
    things: dict[str, _Thing] = {}
    edges: list[tuple[str, str]] = []
    for flow in flows:
        component = f"component {flow.component.execution_id}"
        things[component] = _Thing("component", flow.component.name, flow.component.state)
        for artifact in (*flow.inputs, *flow.outputs):
            label = f"{artifact.type.rpartition('.')[2]} {artifact.id}"
            things[_key(artifact)] = _Thing("artifact", label, artifact.uri)
        edges += [(_key(artifact), component) for artifact in flow.inputs]
        edges += [(component, _key(artifact)) for artifact in flow.outputs]
    layers = _layers(things, edges)
    positions = _positions(layers, edges)
    nodes = tuple(
        Node(key, things[key].kind, things[key].label, things[key].detail, index, positions[key])
        for index, layer in enumerate(layers)
        for key in sorted(layer, key=positions.__getitem__)
    )
    return Lineage(nodes, tuple(edges))


def _key(artifact: OutputArtifact) -> str:
    return f"artifact {artifact.id}"


def _layers(things: Mapping[str, _Thing], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Puts each node into the first layer below all that it depends on."""
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(things, ()))
    for before, after in edges:
        sorter.add(after, before)
    sorter.prepare()
    layers = []
    while sorter.is_active():
        layer = sorted(sorter.get_ready())
        sorter.done(*layer)
        layers.append(layer)
    return layers


def _positions(layers: Sequence[Sequence[str]], edges: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Puts each node near the middle of its neighbours (the barycentre heuristic of Sugiyama, 1981)."""
    above, below = defaultdict(list), defaultdict(list)
    for before, after in edges:
        above[after].append(before)
        below[before].append(after)
    positions = {key: place for layer in layers for key, place in _spread(layer).items()}
    for sweep in range(_SWEEPS):
        neighbours, order = (above, layers) if sweep % 2 == 0 else (below, list(reversed(layers)))
        for layer in order:
            means = {key: _mean([positions[other] for other in neighbours[key]], positions[key]) for key in layer}
            positions |= _spread(sorted(layer, key=means.__getitem__))
    return positions


def _spread(layer: Sequence[str]) -> dict[str, float]:
    # A little to the left of the middle, because labels stand to the right.
    return {key: (index + 0.4) / len(layer) for index, key in enumerate(layer)}


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
