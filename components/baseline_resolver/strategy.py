"""Resolver strategy that finds the model released before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfx.dsl.components.common import resolver

from components.release_gate import properties

if TYPE_CHECKING:
    import ml_metadata as mlmd
    from tfx import types


class LatestReleasedStrategy(resolver.ResolverStrategy):
    """Resolves to the latest release other than the candidate: SavedModel and .tflite; to nothing on the first run.

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
            input_dict: `candidate`: the SavedModel to be judged; `model`, `tflite_model`: all models; `blessing`: all
                blessings.

        Returns:
            The inputs, with at most one artifact under each of `model`, `tflite_model` and `blessing`.
        """
        candidates = {artifact.id for artifact in input_dict.get("candidate", [])}
        models = {model.id: model for model in input_dict.get("model", [])}
        tflite_models = {model.id: model for model in input_dict.get("tflite_model", [])}
        releases = [
            blessing
            for blessing in input_dict.get("blessing", [])
            if blessing.get_int_custom_property(properties.RELEASED) == 1
            and _model_id(blessing) in models
            and _tflite_id(blessing) in tflite_models
            and _model_id(blessing) not in candidates
        ]
        latest = max(releases, key=lambda blessing: blessing.id, default=None)
        return {
            "candidate": input_dict.get("candidate", []),
            "model": [models[_model_id(latest)]] if latest else [],
            "tflite_model": [tflite_models[_tflite_id(latest)]] if latest else [],
            "blessing": [latest] if latest else [],
        }


def _model_id(blessing: types.Artifact) -> int:
    return blessing.get_int_custom_property(properties.SAVED_MODEL_ID)


def _tflite_id(blessing: types.Artifact) -> int:
    return blessing.get_int_custom_property(properties.TFLITE_MODEL_ID)
