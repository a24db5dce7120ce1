"""The component that tries out what would be pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel_utils, standard_artifacts

from components.serving_validator.executor import Executor
from components.serving_validator.spec import ServingValidatorSpec

if TYPE_CHECKING:
    from tfx import types


class ServingValidator(base_component.BaseComponent):
    """Does what TFX's InfraValidator does, without the container platform that it needs.

    Each artifact is loaded in a fresh process, by the code that serves it, and answers a few requests. The answers must
    be those by which the Evaluator judged.
    """

    SPEC_CLASS = ServingValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        saved_model: types.BaseChannel,
        tflite_model: types.BaseChannel,
        saved_model_evaluation: types.BaseChannel,
        tflite_evaluation: types.BaseChannel,
        split: str,
        version: str,
    ) -> None:
        """Creates the component.

        Args:
            examples: Where the photos of the requests are found.
            saved_model: The SavedModel.
            tflite_model: The .tflite bundle.
            saved_model_evaluation: What the Evaluator measured of the SavedModel.
            tflite_evaluation: What the Evaluator measured of the .tflite.
            split: The split that was evaluated.
            version: Version of this package.
        """
        spec = ServingValidatorSpec(
            examples=examples,
            saved_model=saved_model,
            tflite_model=tflite_model,
            saved_model_evaluation=saved_model_evaluation,
            tflite_evaluation=tflite_evaluation,
            split=split,
            version=version,
            blessing=channel_utils.as_channel([standard_artifacts.InfraBlessing()]),
        )
        super().__init__(spec=spec)
