"""The Compression component."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from components.compression.executor import Executor
from components.compression.spec import CompressionReport, CompressionSpec

if TYPE_CHECKING:
    from tfx.types.channel import BaseChannel

    from components.compression.settings import CompressionSettings
    from trainer_module.settings import TrainingSettings


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
        settings: CompressionSettings,
        training: TrainingSettings,
        checkpoints: str,
        version: str,
    ) -> None:
        """Describes the component.

        Args:
            model: The Trainer's model.
            transformed_examples: Transform's examples; train fine-tunes and calibrates, validation measures.
            transform_graph: Transform's graph, for the names of the classes.
            settings: Stages, how far they go, and the budget.
            training: Settings of the training, which the stages that fine-tune follow.
            checkpoints: Directory, path or URI, where finished fine-tunings are kept, so that an execution that was
                killed goes on where it was; a subdirectory for each set of inputs and settings is made there.
            version: Version of this package: another version must not take a cached result of this one.
        """
        spec = CompressionSpec(
            model=model,
            transformed_examples=transformed_examples,
            transform_graph=transform_graph,
            settings=settings.model_dump_json(),
            training=training.model_dump_json(),
            checkpoints=checkpoints,
            version=version,
            saved_model=Channel(type=standard_artifacts.Model),
            tflite_model=Channel(type=standard_artifacts.Model),
            report=Channel(type=CompressionReport),
        )
        super().__init__(spec=spec)
