"""TFMA metrics that the gates need and TFMA lacks, or computes too slowly to run for every slice."""

from __future__ import annotations

import dataclasses
import functools
import heapq
import json
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.metrics.metric_util import merge_per_key_computations
from tensorflow_model_analysis.utils import model_util

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tensorflow_model_analysis.metrics.metric_types import MetricComputations, MetricKey, StandardMetricInputs

AUC = "auc"
TOP_3_ACCURACY = "top_3_accuracy"
CALIBRATION_ERROR = "expected_calibration_error"
AGREEMENT = "agreement"
# Photos that one model gets right and the other wrong: what McNemar's test counts.
ONLY_BASELINE_RIGHT = "only_baseline_right"
ONLY_CANDIDATE_RIGHT = "only_candidate_right"
PREDICTION_SAMPLE = "prediction_sample"
# Set by the extractor: hex SHA-256 of the encoded image.
IMAGE_DIGEST = "image/digest"
SAMPLE_SIZE = 8

_CALIBRATION_BINS = 15
_SCORE_BINS = 1000


@dataclasses.dataclass
class _Scores:
    """Histograms of the scores.

    Attributes:
        positives: float64 [_SCORE_BINS], scores of the true classes.
        negatives: The same of all other classes.
        confidences: float64 [3, _CALIBRATION_BINS]: examples, sum of top scores, number of right answers.
        in_top_3: Number of examples whose true class is one of the three with the highest scores.
    """

    positives: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(_SCORE_BINS))
    negatives: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(_SCORE_BINS))
    confidences: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((3, _CALIBRATION_BINS)))
    in_top_3: int = 0


class ScoreQuality(metric_types.Metric):
    """How good the probabilities are, not only the answers: AUC, calibration, and the true class's rank.

    * `auc`: area under the ROC curve, one class against the rest, micro-averaged, from histograms of 1,000 bins
      (trapezoidal within a bin). TFMA's own, micro-averaged, made the whole evaluation of an image 2.7 times as long.
    * `expected_calibration_error`: mean distance of confidence from accuracy over 15 equal bins of the confidence,
      weighted by photos (Guo et al., On Calibration of Modern Neural Networks, 2017).
    * `top_3_accuracy`: share of the photos whose true class is among the first three answers. Of classes with the same
      score the first comes first, as for argmax: Keras counts all of them, and integer models answer most with 0.
    """

    def __init__(self) -> None:
        """Creates the metric."""
        super().__init__(merge_per_key_computations(_score_computations), name="score_quality")


def _score_computations(
    model_name: str = "", output_name: str = "", example_weighted: bool = False, **_: Any
) -> MetricComputations:
    key = functools.partial(
        metric_types.MetricKey, model_name=model_name, output_name=output_name, example_weighted=example_weighted
    )
    keys = [key(name=name) for name in (AUC, CALIBRATION_ERROR, TOP_3_ACCURACY)]
    combiner = _ScoreCombiner(model_name, *keys)
    return [metric_types.MetricComputation(keys=keys, preprocessors=None, combiner=combiner)]


class _ScoreCombiner(beam.CombineFn):
    def __init__(self, model_name: str, auc: MetricKey, calibration_error: MetricKey, top_3: MetricKey) -> None:
        self._model_name = model_name
        self._auc = auc
        self._calibration_error = calibration_error
        self._top_3 = top_3

    def create_accumulator(self) -> _Scores:
        return _Scores()

    def add_input(self, accumulator: _Scores, element: StandardMetricInputs) -> _Scores:
        label, scores = true_class(element), model_scores(element, self._model_name)
        bins = np.minimum((scores * _SCORE_BINS).astype(int), _SCORE_BINS - 1)
        accumulator.positives[bins[label]] += 1
        np.add.at(accumulator.negatives, np.delete(bins, label), 1)
        answer = int(np.argmax(scores))
        confidence = float(scores[answer])
        column = min(int(confidence * _CALIBRATION_BINS), _CALIBRATION_BINS - 1)
        accumulator.confidences[:, column] += (1, confidence, answer == label)
        accumulator.in_top_3 += rank(scores, label) < 3
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Scores]) -> _Scores:
        merged = _Scores()
        for accumulator in accumulators:
            merged.positives += accumulator.positives
            merged.negatives += accumulator.negatives
            merged.confidences += accumulator.confidences
            merged.in_top_3 += accumulator.in_top_3
        return merged

    def extract_output(self, accumulator: _Scores) -> dict[MetricKey, float]:
        return {
            self._auc: area_under_roc(accumulator.positives, accumulator.negatives),
            self._calibration_error: calibration_error(*accumulator.confidences),
            self._top_3: float(accumulator.in_top_3 / accumulator.confidences[0].sum()),
        }


def rank(scores: np.ndarray, label: int) -> int:
    """Returns how many classes come before one: those of higher scores [C], and of the same score those before it."""
    return int((scores > scores[label]).sum() + (scores[:label] == scores[label]).sum())


def area_under_roc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Returns the area under the ROC curve of histograms [B] over ascending scores; NaN if one of them is empty."""
    pairs = positives.sum() * negatives.sum()
    if not pairs:
        return float("nan")
    negatives_below = np.cumsum(negatives) - negatives
    return float((positives * (negatives_below + negatives / 2)).sum() / pairs)


def calibration_error(examples: np.ndarray, confidence: np.ndarray, right: np.ndarray) -> float:
    """Returns the expected calibration error of bins [B]: number of examples, summed confidence, right answers."""
    return float(np.abs(confidence - right).sum() / examples.sum())


class PairedOutcomes(metric_types.Metric):
    """What candidate and baseline answer to the same photos.

    `agreement` is the share of photos with the same answer, `only_baseline_right` and `only_candidate_right` are
    numbers of photos. Without a baseline there is nothing to compute.
    """

    def __init__(self) -> None:
        """Creates the metric."""
        super().__init__(_paired_computations, name="paired_outcomes")


def _paired_computations(
    eval_config: tfma.EvalConfig, model_names: Sequence[str] = ("",), example_weighted: bool = False, **_: Any
) -> MetricComputations:
    baseline = model_util.get_baseline_model_spec(eval_config)
    if baseline is None:
        return []
    computations = []
    for name in model_names:
        if name != baseline.name:
            keys = [
                metric_types.MetricKey(name=key, model_name=name, example_weighted=example_weighted, is_diff=True)
                for key in (AGREEMENT, ONLY_BASELINE_RIGHT, ONLY_CANDIDATE_RIGHT)
            ]
            combiner = _PairedCombiner(name, baseline.name, keys)
            computations.append(metric_types.MetricComputation(keys=keys, preprocessors=None, combiner=combiner))
    return computations


class _PairedCombiner(beam.CombineFn):
    """Sums photos, equal answers, photos that only the baseline gets right, photos that only the candidate does."""

    def __init__(self, candidate: str, baseline: str, keys: list[MetricKey]) -> None:
        self._candidate = candidate
        self._baseline = baseline
        self._keys = keys

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(4)

    def add_input(self, accumulator: np.ndarray, element: StandardMetricInputs) -> np.ndarray:
        label = true_class(element)
        candidate = int(np.argmax(model_scores(element, self._candidate)))
        baseline = int(np.argmax(model_scores(element, self._baseline)))
        right = (candidate == label, baseline == label)
        return accumulator + np.array([1, candidate == baseline, right == (False, True), right == (True, False)])

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, accumulator: np.ndarray) -> dict[MetricKey, float]:
        photos, same, only_baseline, only_candidate = accumulator
        return dict(zip(self._keys, (same / photos, only_baseline, only_candidate), strict=True))


class PredictionSample(metric_types.Metric):
    """The predictions for a few photos, so that what loads the model elsewhere can be compared with the Evaluator.

    The photos are those with the smallest digests, which makes the sample the same wherever and however often it is
    drawn. The value is JSON: a list of {"digest", "probabilities"}.
    """

    def __init__(self) -> None:
        """Creates the metric."""
        super().__init__(merge_per_key_computations(_sample_computations), name=PREDICTION_SAMPLE)


def _sample_computations(
    model_name: str = "", output_name: str = "", example_weighted: bool = False, **_: Any
) -> MetricComputations:
    key = metric_types.MetricKey(
        name=PREDICTION_SAMPLE, model_name=model_name, output_name=output_name, example_weighted=example_weighted
    )
    preprocessors = [metric_types.FeaturePreprocessor(feature_keys=[IMAGE_DIGEST])]
    computation = metric_types.MetricComputation(
        keys=[key], preprocessors=preprocessors, combiner=_SampleCombiner(model_name, key)
    )
    return [computation]


class _SampleCombiner(beam.CombineFn):
    def __init__(self, model_name: str, key: MetricKey) -> None:
        self._model_name = model_name
        self._key = key

    def create_accumulator(self) -> dict[str, list[float]]:
        return {}

    def add_input(self, accumulator: dict[str, list[float]], element: StandardMetricInputs) -> dict[str, list[float]]:
        digest = str(np.ravel(element.get_features()[IMAGE_DIGEST])[0])
        if len(accumulator) < SAMPLE_SIZE or digest < max(accumulator):
            accumulator[digest] = [float(score) for score in model_scores(element, self._model_name)]
        return _smallest(accumulator)

    def merge_accumulators(self, accumulators: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
        merged: dict[str, list[float]] = {}
        for accumulator in accumulators:
            merged.update(accumulator)
        return _smallest(merged)

    def extract_output(self, accumulator: dict[str, list[float]]) -> dict[MetricKey, bytes]:
        sample = [{"digest": digest, "probabilities": accumulator[digest]} for digest in sorted(accumulator)]
        return {self._key: json.dumps(sample).encode()}


def _smallest(sample: dict[str, list[float]]) -> dict[str, list[float]]:
    return {digest: sample[digest] for digest in heapq.nsmallest(SAMPLE_SIZE, sample)}


def true_class(element: StandardMetricInputs) -> int:
    """Returns the index of a photo's true class."""
    return int(np.ravel(element.get_labels())[0])


def model_scores(element: StandardMetricInputs, model_name: str) -> np.ndarray:
    """Returns one model's probabilities [C]; TFMA names models only where there are several."""
    predictions = element.get_predictions()
    return np.ravel(predictions[model_name] if isinstance(predictions, dict) else predictions)
