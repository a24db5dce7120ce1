"""Executor of StrictExampleValidator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator import executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from tfx import types
    from tfx.proto.orchestration import execution_result_pb2


class Executor(executor.Executor):
    """Runs TFX's validation, then raises for the first anomaly."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> execution_result_pb2.ExecutorOutput:
        """Validates every split.

        Raises:
            UserError: If a split's statistics do not fit the schema, which the training split made.
        """
        result = super().Do(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        for split in artifact_utils.decode_split_names(artifact.split_names):
            directory = artifact_utils.get_split_uri([artifact], split)
            _raise_for_anomalies(split, f"{directory}/{executor.DEFAULT_FILE_NAME}")
        return result


def _raise_for_anomalies(split: str, path: str) -> None:
    anomalies = anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path))
    for feature, anomaly in anomalies.anomaly_info.items():
        raise UserError(
            f"the {split} split does not fit the training data: {feature}: {anomaly.description.rstrip('.')};"
            " make the splits hold the same classes and kinds of photos"
        )
    if anomalies.HasField("dataset_anomaly_info"):
        raise UserError(
            f"the {split} split does not fit the training data: {anomalies.dataset_anomaly_info.description}"
        )
