"""What an Evaluator measured, read from the files that TFMA writes."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tensorflow_model_analysis as tfma

from trainer_module import evaluation, features, gate_metrics
from trainer_module.mistake_metrics import LOST_PHOTOS, MISTAKES, Mistake, parse_mistakes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OVERALL = ""
CANDIDATE, BASELINE = "candidate", "baseline"
_KAPPA = "kappa"
_ACCURACY = "sparse_categorical_accuracy"
_COUNT = "example_count"
_SLICE_KINDS = {
    features.CLASS_TEXT: "class",
    evaluation.SIZE_BUCKET: "size",
    evaluation.BRIGHTNESS_BUCKET: "brightness",
}


@dataclasses.dataclass(frozen=True)
class SliceResult:
    """What was measured on some of the test photos.

    Attributes:
        photos: How many they are.
        accuracy: Of the candidate.
        baseline_accuracy: Of the model it is compared with; None where there is none. So are the following.
        agreement: Share of photos to which both give the same answer.
        only_baseline_right: Number of photos.
        only_candidate_right: Number of photos.
    """

    photos: int
    accuracy: float
    baseline_accuracy: float | None
    agreement: float | None
    only_baseline_right: int | None
    only_candidate_right: int | None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of one Evaluator.

    Attributes:
        slices: By kind ("class", "size", "brightness") and name; the whole split under OVERALL and OVERALL.
        metrics: By model (CANDIDATE, BASELINE), then by name, of the whole split.
        confusion: By model, then true class, then answer: number of photos of the whole split. Classes are indices.
    """

    slices: Mapping[str, Mapping[str, SliceResult]]
    metrics: Mapping[str, Mapping[str, float]]
    confusion: Mapping[str, Mapping[int, Mapping[int, int]]]

    @property
    def overall(self) -> SliceResult | None:
        """The whole test split; None where it had no photo."""
        return self.slices.get(OVERALL, {}).get(OVERALL)

    @property
    def classes(self) -> Mapping[str, SliceResult]:
        """The photos of each class."""
        return self.slices.get("class", {})

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the candidate; None without its confusion matrix."""
        return self.metrics.get(CANDIDATE, {}).get(_KAPPA)


def read_evaluation(uri: str) -> Evaluation | None:
    """Reads an Evaluator's output.

    Args:
        uri: Its `evaluation` artifact.

    Returns:
        What it holds; None where nothing was evaluated.
    """
    per_slice = _load_metrics(uri)
    if not per_slice:
        return None
    slices: dict[str, dict[str, SliceResult]] = defaultdict(dict)
    metrics: dict[str, dict[str, float]] = {}
    for sliced in per_slice:
        kind, name = _slice(sliced)
        values = _values(sliced.metric_keys_and_values)
        slices[kind][name] = _slice_result(values)
        if kind == OVERALL:
            metrics = {model: _plain(values[model]) for model in (CANDIDATE, BASELINE) if values[model]}
    for model, figures in metrics.items():
        figures["balanced_accuracy"] = _balanced_accuracy(slices["class"], model)
    confusion = _confusion(uri)
    for model, figures in metrics.items():
        if confusion.get(model):
            figures[_KAPPA] = kappa(confusion[model])
    return Evaluation(dict(slices), metrics, confusion)


def kappa(confusion: Mapping[int, Mapping[int, int]]) -> float:
    """Returns Cohen's kappa (Educational and Psychological Measurement 20, 1960).

    It is (p - e) / (1 - e), where p is the share of right answers, and e the share that would be right if answers of
    the same frequencies were given to photos at random: 1 if all are right, 0 for guesses, such as one and the same
    class for every photo, however frequent that is.

    Args:
        confusion: Number of photos by true class and answer; not empty.

    Returns:
        It; 0 where guessing would be always right.
    """
    photos = sum(sum(row.values()) for row in confusion.values())
    answers = Counter[int]()
    for row in confusion.values():
        answers.update(row)
    right = sum(row.get(true, 0) for true, row in confusion.items()) / photos
    by_chance = sum(sum(row.values()) * answers[true] for true, row in confusion.items()) / photos**2
    return 0.0 if by_chance == 1 else (right - by_chance) / (1 - by_chance)


def read_sample(uri: str) -> dict[str, list[float]]:
    """Returns the candidate's predictions for the sampled photos: probabilities by digest; see `PredictionSample`."""
    for sliced in _load_metrics(uri):
        if _slice(sliced) == (OVERALL, OVERALL):
            value = _values(sliced.metric_keys_and_values)[CANDIDATE].get(gate_metrics.PREDICTION_SAMPLE, b"[]")
            return {item["digest"]: item["probabilities"] for item in json.loads(value)}
    return {}


def read_mistakes(uri: str) -> dict[str, list[Mistake]]:
    """Returns the candidate's most confident mistakes under MISTAKES and LOST_PHOTOS; see the metric `Mistakes`."""
    for sliced in _load_metrics(uri):
        if _slice(sliced) == (OVERALL, OVERALL):
            values = _values(sliced.metric_keys_and_values)[CANDIDATE]
            return {name: parse_mistakes(values.get(name, b"[]")) for name in (MISTAKES, LOST_PHOTOS)}
    return {}


def _load_metrics(uri: str) -> list[Any]:
    # A GateEvaluator that could not evaluate leaves nothing there.
    return list(tfma.load_metrics(uri)) if tf.io.gfile.listdir(uri) else []


def _slice(sliced: Any) -> tuple[str, str]:
    keys = sliced.slice_key.single_slice_keys
    return (_SLICE_KINDS[keys[0].column], keys[0].bytes_value.decode()) if keys else (OVERALL, OVERALL)


def _values(items: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Sorts one slice's metrics by model; what compares two of them goes under "both"."""
    values: dict[str, dict[str, Any]] = {CANDIDATE: {}, BASELINE: {}, "both": {}}
    for item in items:
        # TFMA records no model name where there is only one model: a candidate without a baseline.
        model = "both" if item.key.is_diff else item.key.model_name or CANDIDATE
        kind = item.value.WhichOneof("type")
        value = item.value.bytes_value if kind == "bytes_value" else item.value.double_value.value
        values[model][item.key.name] = value
    return values


def _slice_result(values: Mapping[str, Mapping[str, Any]]) -> SliceResult:
    both = values["both"]
    compared = gate_metrics.AGREEMENT in both
    return SliceResult(
        photos=int(values[CANDIDATE].get(_COUNT, 0)),
        accuracy=values[CANDIDATE].get(_ACCURACY, float("nan")),
        baseline_accuracy=values[BASELINE].get(_ACCURACY),
        agreement=both.get(gate_metrics.AGREEMENT),
        only_baseline_right=int(both[gate_metrics.ONLY_BASELINE_RIGHT]) if compared else None,
        only_candidate_right=int(both[gate_metrics.ONLY_CANDIDATE_RIGHT]) if compared else None,
    )


def _plain(values: Mapping[str, Any]) -> dict[str, float]:
    renamed = {"accuracy" if name == _ACCURACY else name: value for name, value in values.items()}
    return {name: float(value) for name, value in renamed.items() if isinstance(value, float) and name != _COUNT}


def _balanced_accuracy(classes: Mapping[str, SliceResult], model: str) -> float:
    """Returns the mean of the classes' accuracies, however few photos some have."""
    accuracies = [result.accuracy if model == CANDIDATE else result.baseline_accuracy for result in classes.values()]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return sum(known) / len(known) if known else float("nan")


def _confusion(uri: str) -> dict[str, dict[int, dict[int, int]]]:
    confusion: dict[str, dict[int, dict[int, int]]] = {}
    for sliced in tfma.load_plots(uri):
        if sliced.slice_key.single_slice_keys:
            continue
        for item in sliced.plot_keys_and_values:
            rows: dict[int, dict[int, int]] = defaultdict(dict)
            for matrix in item.value.multi_class_confusion_matrix_at_thresholds.matrices:
                for entry in matrix.entries:
                    answered = int(entry.predicted_class_id)
                    rows[int(entry.actual_class_id)][answered] = int(entry.num_weighted_examples)
            confusion[item.key.model_name or CANDIDATE] = dict(rows)
    return confusion
