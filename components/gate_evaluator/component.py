"""TFX's Evaluator, with an executor that refuses what it cannot evaluate."""

from __future__ import annotations

from typing import Any

from tfx.components import Evaluator
from tfx.dsl.components.base import executor_spec

from components.gate_evaluator.executor import Executor


class GateEvaluator(Evaluator):
    """Evaluates as TFX's Evaluator does; a model that cannot be evaluated is not blessed, with the reason."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, version: str, **evaluator: Any) -> None:
        """Creates the component.

        Args:
            version: Version of this package: TFX's cache does not look at code.
            **evaluator: Arguments of TFX's Evaluator.
        """
        super().__init__(**evaluator)
        self.spec.exec_properties["version"] = version
