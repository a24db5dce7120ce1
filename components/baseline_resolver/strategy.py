"""Resolver strategy that finds the model released before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfx.components.evaluator import constants
from tfx.dsl.components.common import resolver

from components.release_gate.executor import RELEASED_PROPERTY

if TYPE_CHECKING:
    import ml_metadata as mlmd
    from tfx import types


class LatestReleasedStrategy(resolver.ResolverStrategy):
    """Resolves `model` to the latest released one other than `candidate`; to nothing on the first run.

    TFX's LatestBlessedModelStrategy does not do: it would take a model that a single gate blessed and another refused,
    and in a repeated run it would find the candidate itself, which changes the Evaluator's inputs and so defeats the
    cache.
    """

    def resolve_artifacts(
        self,
        store: mlmd.MetadataStore,  # noqa: ARG002 (the interface's)
        input_dict: dict[str, list[types.Artifact]],
    ) -> dict[str, list[types.Artifact]]:
        """Resolves the inputs.

        Args:
            store: Metadata store; everything needed is in the inputs already.
            input_dict: `candidate`: the model to be judged; `model`: all models; `blessing`: all blessings.

        Returns:
            The inputs, with at most one artifact under `model` and its blessing under `blessing`.
        """
        candidates = {artifact.id for artifact in input_dict.get("candidate", [])}
        released = {
            blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
            for blessing in input_dict.get("blessing", [])
            if blessing.get_int_custom_property(RELEASED_PROPERTY) == 1
        }
        earlier = [m for m in input_dict.get("model", []) if m.id in released and m.id not in candidates]
        latest = max(earlier, key=lambda model: released[model.id].id, default=None)
        return {
            "candidate": input_dict.get("candidate", []),
            "model": [latest] if latest else [],
            "blessing": [released[latest.id]] if latest else [],
        }
