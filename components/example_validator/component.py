"""TFX's ExampleValidator, with an executor that stops the run at anomalies."""

from __future__ import annotations

from tfx.components import ExampleValidator
from tfx.dsl.components.base import executor_spec

from components.example_validator.executor import Executor


class StrictExampleValidator(ExampleValidator):
    """Checks statistics against the schema as ExampleValidator does, and fails where that only takes a note."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
