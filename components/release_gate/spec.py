"""Inputs and outputs of ReleaseGate."""

from __future__ import annotations

from typing import ClassVar

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


class ReleaseGateSpec(ComponentSpec):
    """Inputs and outputs of ReleaseGate."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {}
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "fidelity_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "release_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "saved_model": ChannelParameter(type=standard_artifacts.Model),
        "tflite_model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
