"""The chart of what was made from what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from pipeline.report.vega import INK, SOFT, data_of, finish, tooltips, two_colours

if TYPE_CHECKING:
    from pipeline.report.lineage import Lineage, Node
    from pipeline.report.vega import Spec

_LAYER_HEIGHT = 44
# More nodes in a layer than this, and by what share of a layer's height every second one is lowered.
_CROWDED, _LOWERED = 5, 0.45


def lineage(graph: Lineage) -> Spec:
    """Draws components as squares and artifacts as circles, from above what was there first."""
    places = {node.key: (node.position, node.layer + _stagger(graph, node)) for node in graph.nodes}
    labels = {node.key: node.label for node in graph.nodes}
    nodes = [
        {"x": x, "y": y, "kind": node.kind, "label": node.label, "detail": node.detail}
        for node, (x, y) in zip(graph.nodes, places.values(), strict=True)
    ]
    edges = [
        dict(zip(("x", "y", "x2", "y2"), (*places[above], *places[below]), strict=True))
        | {"what": f"{labels[above]} → {labels[below]}"}
        for above, below in graph.edges
    ]
    depth = max((node.layer for node in graph.nodes), default=0)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(nice=False, zero=False, domain=[0, 1]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(reverse=True, nice=False, zero=False, domain=[-0.5, depth + 0.5]))
    lines = alt.Chart(data_of(edges)).mark_rule(color=SOFT, opacity=0.5, strokeWidth=1.5)
    points = alt.Chart(data_of(nodes)).encode(x=x, y=y, tooltip=tooltips(label="", kind="", detail=""))
    kinds = ["component", "artifact"]
    shape = alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds, range=["square", "circle"]))
    chart = alt.layer(
        lines.encode(x=x, y=y, x2="x2:Q", y2="y2:Q", tooltip="what:N"),
        points.mark_point(filled=True, size=110, opacity=1).encode(shape=shape, color=two_colours("kind", kinds)),
        points.mark_text(align="left", dx=9, color=INK).encode(text="label:N"),
    )
    return finish(chart, height=_LAYER_HEIGHT * (depth + 1))


def _stagger(graph: Lineage, node: Node) -> float:
    """Lowers every second node of a crowded layer, whose labels would run into each other."""
    layer = [other.key for other in graph.nodes if other.layer == node.layer]
    return _LOWERED * (layer.index(node.key) % 2) if len(layer) > _CROWDED else 0.0
