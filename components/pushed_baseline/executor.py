"""Executors of PushedBaseline and BaselineModels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.pushed_baseline import properties, spec
from components.pushed_baseline.engine import latest_other

if TYPE_CHECKING:
    from tfx import types

# An artifact without a single file would not be there at all in an object store.
_ABSENT_FILE = "ABSENT"


class PushedBaselineExecutor(base_executor.BaseExecutor):
    """Looks through the pushed versions."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the directory of the newest version of each artifact that is not the candidate; "" for none."""
        self._log_startup(input_dict, output_dict, exec_properties)
        for directory, candidate, output in (
            (spec.SAVED_MODEL_DIRECTORY, spec.SAVED_MODEL, spec.SAVED_MODEL_VERSION),
            (spec.TFLITE_DIRECTORY, spec.TFLITE_MODEL, spec.TFLITE_VERSION),
        ):
            files = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[candidate]))
            version = latest_other(exec_properties[directory], files)
            artifact_utils.get_single_instance(output_dict[output]).write(version)


class BaselineModelsExecutor(base_executor.BaseExecutor):
    """Copies pushed versions."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Makes a model of each version; where there is none, an artifact that says so."""
        self._log_startup(input_dict, output_dict, exec_properties)
        for version, output in (
            (spec.SAVED_MODEL_VERSION, spec.MODEL),
            (spec.TFLITE_VERSION, spec.TFLITE_MODEL),
        ):
            model = artifact_utils.get_single_instance(output_dict[output])
            directory = exec_properties[version]
            model.set_int_custom_property(properties.ABSENT, int(not directory))
            if directory:
                io_utils.copy_dir(directory, path_utils.serving_model_dir(model.uri))
            else:
                io_utils.write_string_file(os.path.join(model.uri, _ABSENT_FILE), "")  # noqa: PTH118 (may be remote)
