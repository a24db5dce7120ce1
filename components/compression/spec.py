"""Interface of the Compression component: its artifact type, parameters, inputs and outputs."""

from __future__ import annotations

from typing import ClassVar

from tfx.types import artifact, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class CompressionReport(artifact.Artifact):
    """`report.json` with every variant measured, and the variants themselves as `variants/<name>.tflite`."""

    TYPE_NAME = "components.CompressionReport"


MODEL_KEY = "model"
EXAMPLES_KEY = "transformed_examples"
TRANSFORM_GRAPH_KEY = "transform_graph"
SAVED_MODEL_KEY = "saved_model"
TFLITE_MODEL_KEY = "tflite_model"
REPORT_KEY = "report"


class CompressionSpec(ComponentSpec):
    """Parameters are those of `Compression`; `settings` and `training` are JSON."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        "settings": ExecutionParameter(type=str),
        "training": ExecutionParameter(type=str),
        "checkpoints": ExecutionParameter(type=str),
        "version": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        TRANSFORM_GRAPH_KEY: ChannelParameter(type=standard_artifacts.TransformGraph),
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {
        SAVED_MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        TFLITE_MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        REPORT_KEY: ChannelParameter(type=CompressionReport),
    }
