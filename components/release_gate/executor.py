"""Executor of ReleaseGate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tfx.components.evaluator import constants
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

if TYPE_CHECKING:
    from tfx import types

# Marks the blessing of a whole release, which single gates' blessings must not be mistaken for.
RELEASED_PROPERTY = "released"
REFUSED_BY_PROPERTY = "refused_by"
TFLITE_MODEL_ID_PROPERTY = "tflite_model_id"

_GATES = ("fidelity", "release")


class Executor(base_executor.BaseExecutor):
    """Joins the verdicts of all gates into one blessing."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Blesses the release if every gate blessed its model; otherwise notes which gates refused."""
        self._log_startup(input_dict, output_dict, exec_properties)
        refused_by = [gate for gate in _GATES if not _is_blessed(input_dict[f"{gate}_blessing"])]
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        saved_model = artifact_utils.get_single_instance(input_dict["saved_model"])
        tflite_model = artifact_utils.get_single_instance(input_dict["tflite_model"])
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, saved_model.id)
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, saved_model.uri)
        blessing.set_int_custom_property(TFLITE_MODEL_ID_PROPERTY, tflite_model.id)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(not refused_by))
        blessing.set_int_custom_property(RELEASED_PROPERTY, int(not refused_by))
        blessing.set_string_custom_property(REFUSED_BY_PROPERTY, ",".join(refused_by))
        file_name = constants.NOT_BLESSED_FILE_NAME if refused_by else constants.BLESSED_FILE_NAME
        io_utils.write_string_file(os.path.join(blessing.uri, file_name), "")  # noqa: PTH118 (may be remote)


def _is_blessed(blessings: list[types.Artifact]) -> bool:
    return model_utils.is_model_blessed(artifact_utils.get_single_instance(blessings))
