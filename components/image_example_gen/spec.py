"""What goes into ingest and what comes out of it."""

from typing import ClassVar

from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

EXAMPLES = "examples"
REPORT = "report"

INPUT_BASE = "input_base"
MAX_SIDE = "max_side"
MAX_PIXELS = "max_pixels"
VALIDATION_FRACTION = "validation_fraction"
TEST_FRACTION = "test_fraction"
MAX_QUARANTINED = "max_quarantined"
SHARDS = "shards"
VERSION = "version"
# Set by the driver, where the platform runs one; by a DataFingerprint elsewhere.
FINGERPRINT = "fingerprint"


class IngestReport(Artifact):
    """Figures and quarantined files of a data folder.

    Files: `ingest.json` (counts, sizes, warnings), `quarantine.jsonl` (path and reason of each file that is not used),
    `leaks.jsonl` (images of one content or look that lie in several splits), `shards-*.jsonl` (a line per shard, with
    class, split, SHA-256 and look of each image).
    """

    # TFX's Kubeflow compiler takes nothing but "package.Class" for a name, and its container imports that.
    TYPE_NAME = "components.IngestReport"


class ImageExampleGenSpec(ComponentSpec):
    """Parameters and outputs of ImageExampleGen."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        INPUT_BASE: ExecutionParameter(type=str),
        MAX_SIDE: ExecutionParameter(type=int),
        MAX_PIXELS: ExecutionParameter(type=int),
        VALIDATION_FRACTION: ExecutionParameter(type=float),
        TEST_FRACTION: ExecutionParameter(type=float),
        MAX_QUARANTINED: ExecutionParameter(type=float),
        SHARDS: ExecutionParameter(type=int, optional=True),
        VERSION: ExecutionParameter(type=str),
        FINGERPRINT: ExecutionParameter(type=str, optional=True),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {
        EXAMPLES: ChannelParameter(type=standard_artifacts.Examples),
        REPORT: ChannelParameter(type=IngestReport),
    }
