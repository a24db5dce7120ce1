"""The components that find the release before, on platforms that have no resolvers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel_utils, standard_artifacts

from components.pushed_baseline.executor import BaselineModelsExecutor, PushedBaselineExecutor
from components.pushed_baseline.spec import BaselineModelsSpec, PushedBaselineSpec

if TYPE_CHECKING:
    from tfx import types
    from tfx.dsl.placeholder import placeholder


class PushedBaseline(base_component.BaseComponent):
    """Says which pushed version of each artifact a candidate is to be compared with.

    It must not be cached, because what is pushed changes without its inputs; what it says is a parameter of
    BaselineModels, which can be cached, and everything after that with it.
    """

    SPEC_CLASS = PushedBaselineSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(PushedBaselineExecutor)

    def __init__(
        self,
        saved_model: types.BaseChannel,
        tflite_model: types.BaseChannel,
        saved_model_directory: str,
        tflite_directory: str,
    ) -> None:
        """Creates the component.

        Args:
            saved_model: The candidate's SavedModel.
            tflite_model: The candidate's .tflite bundle.
            saved_model_directory: Where SavedModels are pushed to.
            tflite_directory: Where .tflite bundles are pushed to.
        """
        spec = PushedBaselineSpec(
            saved_model=saved_model,
            tflite_model=tflite_model,
            saved_model_directory=saved_model_directory,
            tflite_directory=tflite_directory,
            saved_model_version=channel_utils.as_channel([standard_artifacts.String()]),
            tflite_version=channel_utils.as_channel([standard_artifacts.String()]),
        )
        super().__init__(spec=spec)


class BaselineModels(base_component.BaseComponent):
    """Outputs `model` and `tflite_model`, as the resolver of platforms that have one."""

    SPEC_CLASS = BaselineModelsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(BaselineModelsExecutor)

    def __init__(self, saved_model_version: placeholder.Placeholder, tflite_version: placeholder.Placeholder) -> None:
        """Creates the component.

        Args:
            saved_model_version: Directory of a pushed SavedModel; "" for none.
            tflite_version: Directory of a pushed .tflite bundle; "" for none.
        """
        spec = BaselineModelsSpec(
            saved_model_version=saved_model_version,
            tflite_version=tflite_version,
            model=channel_utils.as_channel([standard_artifacts.Model()]),
            tflite_model=channel_utils.as_channel([standard_artifacts.Model()]),
        )
        super().__init__(spec=spec)
