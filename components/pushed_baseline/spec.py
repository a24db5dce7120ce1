"""Parameters, inputs and outputs of PushedBaseline and BaselineModels."""

from typing import ClassVar

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

# Outputs of the first component, parameters of the second.
SAVED_MODEL_VERSION = "saved_model_version"
TFLITE_VERSION = "tflite_version"

SAVED_MODEL_DIRECTORY = "saved_model_directory"
TFLITE_DIRECTORY = "tflite_directory"
SAVED_MODEL = "saved_model"
# Named as the outputs of the resolver that they stand in for.
MODEL = "model"
TFLITE_MODEL = "tflite_model"


class PushedBaselineSpec(ComponentSpec):
    """Directories of versions and the candidate in, the directory of the version to compare with out."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        SAVED_MODEL_DIRECTORY: ExecutionParameter(type=str),
        TFLITE_DIRECTORY: ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        SAVED_MODEL: ChannelParameter(type=standard_artifacts.Model),
        TFLITE_MODEL: ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {
        SAVED_MODEL_VERSION: ChannelParameter(type=standard_artifacts.String),
        TFLITE_VERSION: ChannelParameter(type=standard_artifacts.String),
    }


class BaselineModelsSpec(ComponentSpec):
    """The directory of a version in, its model out."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        SAVED_MODEL_VERSION: ExecutionParameter(type=str),
        TFLITE_VERSION: ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {
        MODEL: ChannelParameter(type=standard_artifacts.Model),
        TFLITE_MODEL: ChannelParameter(type=standard_artifacts.Model),
    }
