"""Inputs and outputs of ServingValidator."""

from __future__ import annotations

from typing import ClassVar

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class ServingValidatorSpec(ComponentSpec):
    """Inputs and outputs of ServingValidator."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        "split": ExecutionParameter(type=str),
        "version": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "saved_model": ChannelParameter(type=standard_artifacts.Model),
        "tflite_model": ChannelParameter(type=standard_artifacts.Model),
        "saved_model_evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "tflite_evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
    }
