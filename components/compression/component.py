"""The Compression component."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from components.compression.executor import Executor
from components.compression.spec import CompressionReport, CompressionSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tfx.types.channel import BaseChannel


class Compression(base_component.BaseComponent):
    """Makes small variants of a trained model, measures each on its bytes and outputs the smallest inside the budget.

    Outputs: `saved_model` (Model, float, for TensorFlow Serving), `tflite_model` (Model, the edge bundle) and `report`
    (CompressionReport).
    """

    SPEC_CLASS = CompressionSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: BaseChannel,
        transformed_examples: BaseChannel,
        transform_graph: BaseChannel,
        *,
        stages: Sequence[str],
        max_accuracy_drop: float,
        version: str,
        max_bytes: int | None = None,
        max_latency_ms: float | None = None,
        seed: int | None = None,
        fold_batch_norm: bool = True,
    ) -> None:
        """Describes the component.

        Args:
            model: The Trainer's model.
            transformed_examples: Transform's examples; train calibrates, validation measures.
            transform_graph: Transform's graph, for the names of the classes.
            stages: Keys of `engine.STAGES`; with none, only the float32 variant is made.
            max_accuracy_drop: How far the validation accuracy may be below the float model's, as a share.
            version: Version of this package: another version must not take a cached result of this one.
            max_bytes: Largest .tflite file.
            max_latency_ms: Longest median time for one image on one thread.
            seed: Makes the choice of the calibration images repeatable.
            fold_batch_norm: Whether `saved_model` has its batch normalisations folded into its convolutions.
        """
        limits = {
            "max_bytes": max_bytes,
            "max_latency_ms": None if max_latency_ms is None else float(max_latency_ms),
            "seed": seed,
        }
        spec = CompressionSpec(
            model=model,
            transformed_examples=transformed_examples,
            transform_graph=transform_graph,
            stages=json.dumps(list(stages)),
            max_accuracy_drop=float(max_accuracy_drop),
            version=version,
            fold_batch_norm=int(fold_batch_norm),
            **{name: value for name, value in limits.items() if value is not None},
            saved_model=Channel(type=standard_artifacts.Model),
            tflite_model=Channel(type=standard_artifacts.Model),
            report=Channel(type=CompressionReport),
        )
        super().__init__(spec=spec)
