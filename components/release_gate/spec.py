"""Inputs and outputs of ReleaseGate."""

from __future__ import annotations

from typing import ClassVar

from tfx.types import artifact, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.release_gate.engine import ARTIFACTS, GATES

# The blessing as a value, for platforms on which conditions look at values.
VERDICT_KEY = "verdict"
BLESSED, REFUSED = "blessed", "refused"


class GateReport(artifact.Artifact):
    """`gates.json`: every check with the rule that decided, and what each Evaluator measured."""

    # TFX's Kubeflow compiler takes nothing but "package.Class" for a name, and its container imports that.
    TYPE_NAME = "components.GateReport"


def evaluation_key(gate: str, artifact_name: str) -> str:
    """Names the input that takes an Evaluator's measurements."""
    return f"{gate}_{artifact_name}_evaluation"


def blessing_key(gate: str, artifact_name: str) -> str:
    """Names the input that takes an Evaluator's blessing."""
    return f"{gate}_{artifact_name}_blessing"


class ReleaseGateSpec(ComponentSpec):
    """Inputs and outputs of ReleaseGate; `limits` is JSON, the fields of `engine.Limits`."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {
        "limits": ExecutionParameter(type=str),
        "version": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {
        **{
            evaluation_key(gate, name): ChannelParameter(type=standard_artifacts.ModelEvaluation)
            for gate in GATES
            for name in ARTIFACTS
        },
        **{
            blessing_key(gate, name): ChannelParameter(type=standard_artifacts.ModelBlessing)
            for gate in GATES
            for name in ARTIFACTS
        },
        "serving_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "saved_model": ChannelParameter(type=standard_artifacts.Model),
        "tflite_model": ChannelParameter(type=standard_artifacts.Model),
        "released_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS: ClassVar[dict[str, ChannelParameter]] = {
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "report": ChannelParameter(type=GateReport),
        VERDICT_KEY: ChannelParameter(type=standard_artifacts.String),
    }
