"""Keeps TFX's cache from taking changed data for the same."""

import time

from tfx.dsl.components.base import base_driver
from tfx.orchestration import data_types_utils, metadata
from tfx.orchestration.portable import base_driver as portable_base_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2

from components.image_example_gen import spec
from components.image_example_gen.engine.listing import list_images
from trainer_module.errors import UserError


class Driver(base_driver.BaseDriver, portable_base_driver.BaseDriver):
    """Adds the fingerprint of the data folder to the execution properties, which the cache key is made of.

    A component's driver class must descend from the first base, the launcher calls it through the second.
    """

    def __init__(self, metadata_handle: metadata.Metadata) -> None:
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_base_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Returns the execution property `fingerprint`.

        A folder that cannot be listed is left to the executor, so that the execution is recorded as failed; the time
        stands in for the fingerprint, as it equals no other.
        """
        try:
            value = list_images(execution_info.exec_properties[spec.INPUT_BASE]).fingerprint
        except UserError:
            value = f"unreadable at {time.time_ns()}"
        output = driver_output_pb2.DriverOutput()
        data_types_utils.set_metadata_value(output.exec_properties[spec.FINGERPRINT], value)
        return output
