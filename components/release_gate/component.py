"""The component that joins the verdicts of all gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel_utils, standard_artifacts

from components.release_gate.executor import Executor
from components.release_gate.spec import ReleaseGateSpec

if TYPE_CHECKING:
    from tfx import types


class ReleaseGate(base_component.BaseComponent):
    """Blesses a release only if every gate did, because TFX's Pusher looks at one model blessing alone.

    Both Pushers take its `blessing`, so that SavedModel and .tflite are pushed together or not at all.
    """

    SPEC_CLASS = ReleaseGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        fidelity_blessing: types.BaseChannel,
        release_blessing: types.BaseChannel,
        saved_model: types.BaseChannel,
        tflite_model: types.BaseChannel,
    ) -> None:
        """Creates the component.

        Args:
            fidelity_blessing: Verdict on the .tflite against its float parent.
            release_blessing: Verdict on the SavedModel against the model released before.
            saved_model: The SavedModel that is released.
            tflite_model: The .tflite bundle that is released.
        """
        spec = ReleaseGateSpec(
            fidelity_blessing=fidelity_blessing,
            release_blessing=release_blessing,
            saved_model=saved_model,
            tflite_model=tflite_model,
            blessing=channel_utils.as_channel([standard_artifacts.ModelBlessing()]),
        )
        super().__init__(spec=spec)
