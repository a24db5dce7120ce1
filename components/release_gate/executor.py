"""Executor of ReleaseGate."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from tfx.components.evaluator import constants
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.gate_evaluator.executor import REASON_PROPERTY
from components.release_gate import properties, report
from components.release_gate.engine import ARTIFACTS, GATES, RELEASE, SERVING, Check, Judged, Limits, judge, refused_by
from components.release_gate.results import Evaluation, read_evaluation
from components.release_gate.spec import BLESSED, REFUSED, VERDICT_KEY, blessing_key, evaluation_key
from components.serving_validator.executor import REASON_SUFFIX
from trainer_module.classifiers import LABELS_FILE

if TYPE_CHECKING:
    from tfx import types

    Artifacts = dict[str, list[types.Artifact]]


class Executor(base_executor.BaseExecutor):
    """Applies every rule to what the Evaluators measured, and joins the verdicts into one blessing."""

    def Do(  # noqa: N802 (TFX's name)
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Blesses the release if every check passed; otherwise notes which gates refused, and why."""
        self._log_startup(input_dict, output_dict, exec_properties)
        limits = Limits(**json.loads(exec_properties["limits"]))
        names = _class_names(input_dict["tflite_model"])
        evaluations = {
            (gate, name): read_evaluation(artifact_utils.get_single_uri(input_dict[evaluation_key(gate, name)]))
            for gate in GATES
            for name in ARTIFACTS
        }
        checks = [
            check
            for (gate, name), evaluation in evaluations.items()
            for check in _checks(gate, name, evaluation, input_dict, names, limits)
        ]
        checks += _serving_checks(artifact_utils.get_single_instance(input_dict["serving_blessing"]))
        refusals = refused_by(checks)
        _bless(input_dict, output_dict, refusals)
        artifact_utils.get_single_instance(output_dict[VERDICT_KEY]).write(REFUSED if refusals else BLESSED)
        content = report.compose(checks, evaluations, names)
        directory = artifact_utils.get_single_uri(output_dict["report"])
        path = os.path.join(directory, report.REPORT_FILE)  # noqa: PTH118 (may be remote)
        io_utils.write_string_file(path, json.dumps(content, indent=report.indentation(len(names))))


def _checks(
    gate: str, name: str, evaluation: Evaluation | None, inputs: Artifacts, names: list[str], limits: Limits
) -> list[Check]:
    blessing = artifact_utils.get_single_instance(inputs[blessing_key(gate, name)])
    judged = Judged(
        gate=gate,
        artifact=name,
        evaluation=evaluation,
        reason=blessing.get_string_custom_property(REASON_PROPERTY),
        compared=gate != RELEASE or bool(inputs.get("released_model")),
        class_names=names,
    )
    checks = judge(judged, limits)
    if not refused_by(checks) and not model_utils.is_model_blessed(blessing):
        checks.append(Check(gate, name, "gate.min_accuracy", "refused", "TFMA's validation did not bless it"))
    return checks


def _serving_checks(blessing: types.Artifact) -> list[Check]:
    checks = []
    for name in ARTIFACTS:
        reason = blessing.get_string_custom_property(f"{name}{REASON_SUFFIX}")
        passed = "a fresh process answers with it as the Evaluator did"
        checks.append(Check(SERVING, name, "served alike", "refused" if reason else "passed", reason or passed))
    if not refused_by(checks) and not model_utils.is_infra_validated(blessing):
        checks.append(Check(SERVING, name, "served alike", "refused", "the ServingValidator did not bless it"))
    return checks


def _class_names(tflite_model: list[types.Artifact]) -> list[str]:
    """Reads the labels; a bundle without them is refused by its Evaluators."""
    directory = path_utils.serving_model_path(artifact_utils.get_single_uri(tflite_model))
    path = os.path.join(directory, LABELS_FILE)  # noqa: PTH118 (may be remote)
    return io_utils.read_string_file(path).splitlines() if fileio.exists(path) else []


def _bless(inputs: Artifacts, outputs: Artifacts, refusals: list[str]) -> None:
    blessing = artifact_utils.get_single_instance(outputs["blessing"])
    saved_model = artifact_utils.get_single_instance(inputs["saved_model"])
    tflite_model = artifact_utils.get_single_instance(inputs["tflite_model"])
    blessing.set_int_custom_property(properties.SAVED_MODEL_ID, saved_model.id)
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, saved_model.uri)
    blessing.set_int_custom_property(properties.TFLITE_MODEL_ID, tflite_model.id)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(not refusals))
    blessing.set_int_custom_property(properties.RELEASED, int(not refusals))
    blessing.set_string_custom_property(properties.REFUSED_BY, ",".join(refusals))
    file_name = constants.NOT_BLESSED_FILE_NAME if refusals else constants.BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, file_name), "")  # noqa: PTH118 (may be remote)
