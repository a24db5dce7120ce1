"""Executor of GateEvaluator."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfx.components.evaluator import constants, executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, path_utils

from components.gate_evaluator.crash import crash_reason
from trainer_module.bundle_files import TFLITE_FILE
from trainer_module.errors import GateError, messages_of

if TYPE_CHECKING:
    from tfx import types

# Why nothing was evaluated; the blessing of a gate that could be computed has no such property.
REASON_PROPERTY = "reason"

_BASELINE_KEY = standard_component_specs.BASELINE_MODEL_KEY


class Executor(executor.Executor):
    """Runs TFX's evaluation, and turns a gate that cannot be computed into a gate that refused."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates the model.

        Whatever else fails, for example for want of disk, is not the model's fault: it stops the run, and TFX's cache
        does not keep it.
        """
        crash = _crash_reason(input_dict)
        if crash:
            _refuse(input_dict, output_dict, crash)
            return
        try:
            super().Do(input_dict, output_dict, exec_properties)
        except Exception:
            reasons = messages_of(GateError, traceback.format_exc())
            if not reasons:
                raise
            _refuse(input_dict, output_dict, reasons[-1])


def _crash_reason(input_dict: dict[str, list[types.Artifact]]) -> str:
    """Says which model would take this process down with it; "" if none."""
    for key, name in ((standard_component_specs.MODEL_KEY, "candidate"), (_BASELINE_KEY, "baseline")):
        for model in input_dict.get(key) or []:
            file = os.path.join(path_utils.serving_model_path(model.uri), TFLITE_FILE)  # noqa: PTH118 (may be remote)
            if fileio.exists(file):
                with tempfile.TemporaryDirectory() as scratch:
                    local = Path(scratch) / TFLITE_FILE
                    io_utils.copy_file(file, str(local))
                    reason = crash_reason(local)
                if reason:
                    return f"the {name} cannot be run: {reason}"
    return ""


def _refuse(
    input_dict: dict[str, list[types.Artifact]], output_dict: dict[str, list[types.Artifact]], reason: str
) -> None:
    evaluation = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
    if fileio.exists(evaluation):
        # Half of an evaluation must not be taken for one.
        fileio.rmtree(evaluation)
    fileio.makedirs(evaluation)
    blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY])
    model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.NOT_BLESSED_VALUE)
    blessing.set_string_custom_property(REASON_PROPERTY, reason)
    io_utils.write_string_file(
        os.path.join(blessing.uri, constants.NOT_BLESSED_FILE_NAME),  # noqa: PTH118 (may be remote)
        "",
    )
