"""Parameters and output of DataFingerprint."""

from typing import ClassVar

from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

INPUT_BASE = "input_base"
FINGERPRINT = "fingerprint"


class DataFingerprintSpec(ComponentSpec):
    """Parameters and output of DataFingerprint."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {INPUT_BASE: ExecutionParameter(type=str)}
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {FINGERPRINT: ChannelParameter(type=standard_artifacts.String)}
