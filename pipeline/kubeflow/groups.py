"""Which settings of kubeflow.resources are whose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.kubeflow.settings import GroupSettings, ResourcesSettings

_GROUPS = {
    "Trainer": "trainer",
    "Compression": "compression",
    "Evaluator": "gates",
    "PushedBaseline": "gates",
    "BaselineModels": "gates",
    "ServingValidator": "gates",
    "ReleaseGate": "gates",
    "Pusher": "push",
}


def group_of(node: str, resources: ResourcesSettings) -> GroupSettings:
    """Returns what the pods of a node get: that of the group that its name begins with; `data` for all others."""
    names = (group for prefix, group in _GROUPS.items() if node.startswith(prefix))
    return getattr(resources, next(names, "data"))
