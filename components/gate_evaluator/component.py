"""TFX's Evaluator, with an executor that refuses what it cannot evaluate."""

from __future__ import annotations

from tfx.components import Evaluator
from tfx.dsl.components.base import executor_spec

from components.gate_evaluator.executor import Executor


class GateEvaluator(Evaluator):
    """Evaluates as TFX's Evaluator does; a model that cannot be evaluated is not blessed, with the reason."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
