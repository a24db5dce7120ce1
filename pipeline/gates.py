"""What the Evaluators measure, and which thresholds bless a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorflow_model_analysis.proto.config_pb2 import (
    EvalConfig,
    GenericChangeThreshold,
    GenericValueThreshold,
    MetricConfig,
    MetricDirection,
    MetricsSpec,
    MetricThreshold,
    ModelSpec,
    PerSliceMetricThreshold,
    SlicingSpec,
)

from trainer_module import features

if TYPE_CHECKING:
    from pipeline.config import GateSettings

ACCURACY = "sparse_categorical_accuracy"


def fidelity_config(gate: GateSettings) -> EvalConfig:
    """The shipped .tflite against its float parent: how much accuracy compression may have cost."""
    return _config(gate.min_accuracy, gate.max_drop)


def release_config(gate: GateSettings) -> EvalConfig:
    """The shipped SavedModel against the one released before: how much accuracy a new release may cost."""
    return _config(gate.min_accuracy, gate.max_regression)


def _config(min_accuracy: float, max_drop: float) -> EvalConfig:
    threshold = MetricThreshold(
        value_threshold=GenericValueThreshold(lower_bound={"value": min_accuracy}),
        change_threshold=GenericChangeThreshold(
            direction=MetricDirection.HIGHER_IS_BETTER,
            # TFMA passes only what lies above the bound; without the margin an unchanged accuracy fails max_drop = 0.
            absolute={"value": -max_drop - 1e-6},
        ),
    )
    overall = SlicingSpec()
    return EvalConfig(
        model_specs=[
            ModelSpec(name="candidate", label_key=features.CLASS_TEXT),
            ModelSpec(name="baseline", label_key=features.CLASS_TEXT, is_baseline=True),
        ],
        slicing_specs=[overall, SlicingSpec(feature_keys=[features.CLASS_TEXT])],
        metrics_specs=[
            MetricsSpec(
                metrics=[
                    MetricConfig(class_name="ExampleCount"),
                    MetricConfig(
                        class_name="SparseCategoricalAccuracy",
                        # A class of a small test split changes by several points with a single photo.
                        per_slice_thresholds=[PerSliceMetricThreshold(slicing_specs=[overall], threshold=threshold)],
                    ),
                ]
            )
        ],
    )
