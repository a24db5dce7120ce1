"""A TFMA metric that keeps the photos worth looking at: confident mistakes, and what was lost against the baseline."""

from __future__ import annotations

import dataclasses
import heapq
import json
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.utils import model_util

from trainer_module.gate_metrics import IMAGE_DIGEST, model_scores, true_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.metrics.metric_types import MetricComputations, MetricKey, StandardMetricInputs

MISTAKES = "mistakes"
LOST_PHOTOS = "lost_photos"
# Of each kind; what people look through on one page.
KEPT_PHOTOS = 24


@dataclasses.dataclass(frozen=True, order=True)
class Mistake:
    """A photo that is answered wrongly. The order is that of the confidence.

    Attributes:
        confidence: Probability of the wrong answer.
        digest: Hex SHA-256 of the encoded image.
        label: Index of the true class.
        answer: Index of the class that was answered.
        true_probability: Probability of the true class.
    """

    confidence: float
    digest: str
    label: int
    answer: int
    true_probability: float


class Mistakes(metric_types.Metric):
    """The candidate's most confident mistakes.

    `mistakes` are those of all photos, `lost_photos` those of the photos that the baseline gets right; without a
    baseline there are none of the latter. The values are JSON: lists of `Mistake`, the most confident first.
    """

    def __init__(self) -> None:
        """Creates the metric."""
        super().__init__(_computations, name=MISTAKES)


def parse_mistakes(value: bytes) -> list[Mistake]:
    """Reads the metric's value."""
    return [Mistake(**item) for item in json.loads(value)]


def _computations(
    eval_config: tfma.EvalConfig, model_names: Sequence[str] = ("",), example_weighted: bool = False, **_: Any
) -> MetricComputations:
    baseline = model_util.get_baseline_model_spec(eval_config)
    preprocessors = [metric_types.FeaturePreprocessor(feature_keys=[IMAGE_DIGEST])]
    computations = []
    for model in model_names:
        if baseline is None or model != baseline.name:
            rivals: dict[str, str | None] = {MISTAKES: None} | ({LOST_PHOTOS: baseline.name} if baseline else {})
            for name, rival in rivals.items():
                key = metric_types.MetricKey(name=name, model_name=model, example_weighted=example_weighted)
                combiner = _MistakeCombiner(model, rival, key)
                computations.append(
                    metric_types.MetricComputation(keys=[key], preprocessors=preprocessors, combiner=combiner)
                )
    return computations


class _MistakeCombiner(beam.CombineFn):
    def __init__(self, model: str, rival: str | None, key: MetricKey) -> None:
        self._model = model
        self._rival = rival
        self._key = key

    def create_accumulator(self) -> list[Mistake]:
        return []

    def add_input(self, accumulator: list[Mistake], element: StandardMetricInputs) -> list[Mistake]:
        label, scores = true_class(element), model_scores(element, self._model)
        answer = int(np.argmax(scores))
        if answer == label or (self._rival and int(np.argmax(model_scores(element, self._rival))) != label):
            return accumulator
        digest = str(np.ravel(element.get_features()[IMAGE_DIGEST])[0])
        mistake = Mistake(float(scores[answer]), digest, label, answer, float(scores[label]))
        return heapq.nlargest(KEPT_PHOTOS, [*accumulator, mistake])

    def merge_accumulators(self, accumulators: Iterable[list[Mistake]]) -> list[Mistake]:
        return heapq.nlargest(KEPT_PHOTOS, (mistake for accumulator in accumulators for mistake in accumulator))

    def extract_output(self, accumulator: list[Mistake]) -> dict[MetricKey, bytes]:
        return {self._key: json.dumps([dataclasses.asdict(mistake) for mistake in accumulator]).encode()}
