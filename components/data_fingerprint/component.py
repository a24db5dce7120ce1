"""The component that sees whether photos have changed, on platforms that run no driver."""

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts

from components.data_fingerprint.executor import Executor
from components.data_fingerprint.spec import DataFingerprintSpec


class DataFingerprint(base_component.BaseComponent):
    """Outputs `fingerprint`, a String that changes whenever a photo does.

    ImageExampleGen takes it as a parameter: where no driver runs, the cache would answer for changed photos otherwise.
    It must itself not be cached.
    """

    SPEC_CLASS = DataFingerprintSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, input_base: str) -> None:
        """Creates the component.

        Args:
            input_base: The data folder.
        """
        fingerprint = types.Channel(type=standard_artifacts.String)
        super().__init__(spec=DataFingerprintSpec(input_base=input_base, fingerprint=fingerprint))
