"""What the figures of a gate decide, and by which rule."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

from components.release_gate.paired import CONFIDENCE, Interval, drop_interval, share_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.release_gate.results import Evaluation, SliceResult

Verdict = Literal["passed", "refused", "not judged"]

FIDELITY, RELEASE, SERVING = "fidelity", "release", "serving"
GATES = (FIDELITY, RELEASE)
ARTIFACTS = ("saved_model", "tflite")
_DROP_RULES = {FIDELITY: "gate.max_drop", RELEASE: "gate.max_regression"}
_COMPUTED = "computed"
# Of a class with few photos nothing can be said, of many such classes together something can.
SMALL_CLASSES = "all classes with few photos"
# Rounding: 0.9 - 0.8 is a little less than 0.1 in floating point.
ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a release must reach; the settings of the same names explain them."""

    min_accuracy: float
    min_kappa: float
    max_drop: float
    max_class_drop: float
    max_regression: float
    min_agreement: float
    min_examples_per_slice: int


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule, applied to one artifact.

    Attributes:
        gate: "fidelity", "release" or "serving".
        artifact: "saved_model" or "tflite".
        rule: The setting that decided, or "computed": whether there was something to decide on.
        verdict: What it came to.
        reason: Why, for people.
        slice: Name of the class it is about, or SMALL_CLASSES; None: all test photos.
        value: The measured figure, a share of photos.
        limit: What the rule allows.
        interval: Where the true figure lies.
    """

    gate: str
    artifact: str
    rule: str
    verdict: Verdict
    reason: str
    slice: str | None = None
    value: float | None = None
    limit: float | None = None
    interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Judged:
    """What is judged.

    Attributes:
        gate: Which gate.
        artifact: Which artifact.
        evaluation: What was measured; None if nothing could be.
        reason: Why nothing could be measured, where the Evaluator knows.
        compared: Whether there is a model to compare with.
        class_names: The classes that the model knows.
    """

    gate: str
    artifact: str
    evaluation: Evaluation | None
    reason: str
    compared: bool
    class_names: Sequence[str]


def judge(judged: Judged, limits: Limits) -> list[Check]:
    """Applies every rule of a gate to an artifact.

    A rule whose figures are missing or no numbers refuses.

    Args:
        judged: What is judged.
        limits: What it must reach.

    Returns:
        One check for each rule, and for each class that a rule looks at.
    """
    evaluation = judged.evaluation
    overall = evaluation.overall if evaluation else None
    if evaluation is None or overall is None or not overall.photos:
        return [_check(judged, _COMPUTED, "refused", judged.reason or "nothing was evaluated: no test photos")]
    broken = _broken(evaluation)
    if broken:
        return [_check(judged, _COMPUTED, "refused", f"{broken} is not a number")]
    checks = [
        _floor(judged, overall, limits.min_accuracy),
        _beyond_guessing(judged, evaluation, limits.min_kappa),
        *_empty_classes(judged, evaluation),
    ]
    if not judged.compared:
        nothing = "nothing to compare with: this is the first release"
        return [*checks, _check(judged, _DROP_RULES[judged.gate], "not judged", nothing)]
    if overall.agreement is None:
        return [*checks, _check(judged, _COMPUTED, "refused", "it was not compared with the model before it")]
    checks.append(_drop(judged, overall, limits))
    if judged.gate == FIDELITY:
        checks.append(_agreement(judged, overall, limits.min_agreement))
    return [*checks, *_class_drops(judged, evaluation.classes, limits)]


def refused_by(checks: Sequence[Check]) -> list[str]:
    """Returns the names of the gates that refused, in the order of their checks."""
    return list(dict.fromkeys(check.gate for check in checks if check.verdict == "refused"))


def _broken(evaluation: Evaluation) -> str:
    """Names the first figure that is no number; "" if there is none."""
    for model, figures in evaluation.metrics.items():
        for name, value in figures.items():
            if not math.isfinite(value):
                return f"the {model}'s {name.replace('_', ' ')}"
    for kind, slices in evaluation.slices.items():
        for name, result in slices.items():
            if not math.isfinite(result.accuracy):
                return f"the accuracy of {kind} {name}".strip()
    return ""


def _check(judged: Judged, rule: str, verdict: Verdict, reason: str, **about: Any) -> Check:
    return Check(judged.gate, judged.artifact, rule, verdict, reason, **about)


def _floor(judged: Judged, overall: SliceResult, floor: float) -> Check:
    reached = overall.accuracy >= floor - ROUNDING
    return _check(
        judged,
        "gate.min_accuracy",
        "passed" if reached else "refused",
        f"{overall.accuracy:.2%} of {overall.photos} photos right, at least {floor:.2%} are asked for",
        value=overall.accuracy,
        limit=floor,
        interval=share_interval(round(overall.accuracy * overall.photos), overall.photos),
    )


def _beyond_guessing(judged: Judged, evaluation: Evaluation, floor: float) -> Check:
    """Refuses who is right no more often than guesses are: with few classes, or one frequent one, that can be often."""
    kappa = evaluation.kappa
    if kappa is None:
        return _check(judged, "gate.min_kappa", "refused", "there is no confusion matrix to tell it from guessing")
    reason = (
        f"right on {kappa:.2%} of the photos that guessing would get wrong (Cohen's kappa), at least {floor:.2%} are "
        "asked for"
    )
    verdict: Verdict = "passed" if kappa >= floor - ROUNDING else "refused"
    return _check(judged, "gate.min_kappa", verdict, reason, value=kappa, limit=floor)


def _empty_classes(judged: Judged, evaluation: Evaluation) -> list[Check]:
    missing = sorted(set(judged.class_names) - set(evaluation.classes))
    reason = "no test photo of this class: add some, or remove the class"
    return [_check(judged, _COMPUTED, "refused", reason, slice=name) for name in missing]


def _drop(judged: Judged, overall: SliceResult, limits: Limits) -> Check:
    limit = limits.max_drop if judged.gate == FIDELITY else limits.max_regression
    return _judge_drop(_check(judged, _DROP_RULES[judged.gate], "passed", ""), overall, limit, CONFIDENCE)


def _class_drops(judged: Judged, classes: Mapping[str, SliceResult], limits: Limits) -> list[Check]:
    """Judges every class with enough photos, and the others together; the more, the surer each must be (Bonferroni)."""
    small = [result for result in classes.values() if result.photos < limits.min_examples_per_slice]
    classes = {**classes, SMALL_CLASSES: _joined(small)} if len(small) > 1 else classes
    large = {name: result for name, result in classes.items() if result.photos >= limits.min_examples_per_slice}
    confidence = 1 - (1 - CONFIDENCE) / max(len(large), 1)
    checks = []
    for name, result in sorted(classes.items()):
        check = _check(judged, "gate.max_class_drop", "passed", "", slice=name)
        if name in large:
            checks.append(_judge_drop(check, result, limits.max_class_drop, confidence))
        else:
            reason = f"{result.photos} photos, fewer than gate.min_examples_per_slice = {limits.min_examples_per_slice}"
            checks.append(dataclasses.replace(check, verdict="not judged", reason=reason))
    return checks


def _joined(results: Sequence[SliceResult]) -> SliceResult:
    """Returns what was measured on the photos of several classes."""
    photos = sum(result.photos for result in results)
    return dataclasses.replace(
        results[0],
        photos=photos,
        accuracy=sum(result.accuracy * result.photos for result in results) / photos,
        only_baseline_right=sum(result.only_baseline_right or 0 for result in results),
        only_candidate_right=sum(result.only_candidate_right or 0 for result in results),
    )


def _judge_drop(check: Check, result: SliceResult, limit: float, confidence: float) -> Check:
    lost, gained = result.only_baseline_right or 0, result.only_candidate_right or 0
    drop = (lost - gained) / result.photos
    interval = drop_interval(lost, gained, result.photos, confidence)
    significant = interval.lower > 0
    counted = f"{lost} photos of {result.photos} lost, {gained} gained"
    ends = f"{confidence:.2%} interval {interval.lower:+.2%} to {interval.upper:+.2%}"
    if drop <= limit + ROUNDING:
        verdict: Verdict = "passed"
        reason = f"drop of {drop:.2%} ({counted}) within {limit:.2%}"
    elif not significant:
        verdict = "passed"
        reason = f"drop of {drop:.2%} ({counted}) is more than {limit:.2%} but may be chance: {ends}"
    else:
        verdict = "refused"
        reason = f"drop of {drop:.2%} ({counted}) is more than {limit:.2%} and no chance: {ends}"
    return dataclasses.replace(check, verdict=verdict, reason=reason, value=drop, limit=limit, interval=interval)


def _agreement(judged: Judged, overall: SliceResult, limit: float) -> Check:
    agreement = overall.agreement or 0.0
    interval = share_interval(round(agreement * overall.photos), overall.photos)
    ends = f"{interval.confidence:.2%} interval {interval.lower:.2%} to {interval.upper:.2%}"
    refused = agreement < limit - ROUNDING and interval.upper < limit
    return _check(
        judged,
        "gate.min_agreement",
        "refused" if refused else "passed",
        f"same answer as its parent to {agreement:.2%} of {overall.photos} photos, asked for {limit:.2%}; {ends}",
        value=agreement,
        limit=limit,
        interval=interval,
    )
