"""What the Evaluators measure. What the figures decide is the ReleaseGate's matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorflow_model_analysis.proto.config_pb2 import (
    EvalConfig,
    GenericValueThreshold,
    MetricConfig,
    MetricsSpec,
    MetricThreshold,
    ModelSpec,
    PerSliceMetricThreshold,
    SlicingSpec,
)

from components.release_gate.engine import ROUNDING
from trainer_module import evaluation, features, gate_metrics, mistake_metrics

if TYPE_CHECKING:
    from types import ModuleType

    from pipeline.config import GateSettings

ARTIFACTS = {"saved_model": "SavedModel", "tflite": "TFLite"}


def evaluator_id(gate: str, artifact: str) -> str:
    """Names the Evaluator of a gate and an artifact, for example "EvaluatorFidelityTFLite"."""
    return f"Evaluator{gate.capitalize()}{ARTIFACTS[artifact]}"


def eval_config(gate: GateSettings) -> EvalConfig:
    """Returns what every gate's Evaluator measures: one artifact beside the model that it is compared with.

    TFMA blesses by the floor alone. Drops are judged by the ReleaseGate, beside their confidence intervals: TFMA's
    thresholds look at the bare difference.
    """
    # TFMA's accuracy is a float32, which may be less than the share that it stands for.
    bound = {"value": gate.min_accuracy - ROUNDING}
    floor = MetricThreshold(value_threshold=GenericValueThreshold(lower_bound=bound))
    overall = SlicingSpec()
    slices = (features.CLASS_TEXT, evaluation.SIZE_BUCKET, evaluation.BRIGHTNESS_BUCKET)
    return EvalConfig(
        model_specs=[
            ModelSpec(name="candidate", label_key=features.CLASS_TEXT),
            ModelSpec(name="baseline", label_key=features.CLASS_TEXT, is_baseline=True),
        ],
        slicing_specs=[overall, *(SlicingSpec(feature_keys=[key]) for key in slices)],
        metrics_specs=[
            MetricsSpec(
                metrics=[
                    MetricConfig(class_name="ExampleCount"),
                    MetricConfig(
                        class_name="SparseCategoricalAccuracy",
                        per_slice_thresholds=[PerSliceMetricThreshold(slicing_specs=[overall], threshold=floor)],
                    ),
                    MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
                    _own("ScoreQuality"),
                    _own("PairedOutcomes"),
                    _own("PredictionSample"),
                    _own("Mistakes", mistake_metrics),
                ]
            )
        ],
    )


def _own(class_name: str, module: ModuleType = gate_metrics) -> MetricConfig:
    return MetricConfig(class_name=class_name, module=module.__name__)
