"""The component that decides on a release."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel_utils, standard_artifacts

from components.release_gate.executor import Executor
from components.release_gate.spec import GateReport, ReleaseGateSpec, blessing_key, evaluation_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tfx import types
    from tfx.dsl.components.base.base_node import BaseNode

    from components.release_gate.engine import Limits


class ReleaseGate(base_component.BaseComponent):
    """Blesses a release only if every gate does, because TFX's Pusher looks at one model blessing alone.

    Both Pushers take its `blessing`, so that SavedModel and .tflite are pushed together or not at all.
    """

    SPEC_CLASS = ReleaseGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        evaluators: Mapping[tuple[str, str], BaseNode],
        serving_blessing: types.BaseChannel,
        saved_model: types.BaseChannel,
        tflite_model: types.BaseChannel,
        released_model: types.BaseChannel,
        limits: Limits,
        version: str,
    ) -> None:
        """Creates the component.

        Args:
            evaluators: The Evaluator of each gate and artifact; see `engine.GATES` and `engine.ARTIFACTS`.
            serving_blessing: Verdict of the ServingValidator.
            saved_model: The SavedModel that is released.
            tflite_model: The .tflite bundle that is released.
            released_model: The SavedModel that was released before; holds nothing before the first release.
            limits: What the release must reach.
            version: Version of this package.
        """
        measured = {evaluation_key(*of): evaluator.outputs["evaluation"] for of, evaluator in evaluators.items()}
        blessed = {blessing_key(*of): evaluator.outputs["blessing"] for of, evaluator in evaluators.items()}
        spec = ReleaseGateSpec(
            **measured,
            **blessed,
            serving_blessing=serving_blessing,
            saved_model=saved_model,
            tflite_model=tflite_model,
            released_model=released_model,
            limits=json.dumps(dataclasses.asdict(limits)),
            version=version,
            blessing=channel_utils.as_channel([standard_artifacts.ModelBlessing()]),
            report=channel_utils.as_channel([GateReport()]),
            verdict=channel_utils.as_channel([standard_artifacts.String()]),
        )
        super().__init__(spec=spec)
