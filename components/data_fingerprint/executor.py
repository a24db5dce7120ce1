"""Executor of DataFingerprint."""

from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import Artifact, artifact_utils

from components.data_fingerprint import spec
from components.image_example_gen.engine.listing import list_images


class Executor(base_executor.BaseExecutor):
    """Lists the photos."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the fingerprint; raises UserError if the data folder is not usable."""
        self._log_startup(input_dict, output_dict, exec_properties)
        listing = list_images(exec_properties[spec.INPUT_BASE])
        artifact_utils.get_single_instance(output_dict[spec.FINGERPRINT]).write(listing.fingerprint)
