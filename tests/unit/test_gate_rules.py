"""What the figures of a gate decide, and by which rule."""

import dataclasses
import math

import pytest
from tfx.types import standard_artifacts

from components.release_gate import executor
from components.release_gate.engine import SMALL_CLASSES, Judged, Limits, judge, refused_by
from components.release_gate.paired import drop_interval, share_interval
from components.release_gate.results import Evaluation, SliceResult, kappa

LIMITS = Limits(
    min_accuracy=0.2,
    min_kappa=0.1,
    max_drop=0.02,
    max_class_drop=0.1,
    max_regression=0.02,
    min_agreement=0.9,
    min_examples_per_slice=10,
)


def _slice(photos, lost=0, gained=0, right=None, agreement=None):
    right = photos - lost if right is None else right
    return SliceResult(
        photos=photos,
        accuracy=right / photos,
        baseline_accuracy=(right + lost - gained) / photos,
        agreement=1 - (lost + gained) / photos if agreement is None else agreement,
        only_baseline_right=lost,
        only_candidate_right=gained,
    )


def _judge(
    overall, classes=None, *, gate="fidelity", compared=True, names=("a", "b"), limits=LIMITS, metrics=None, kappa=1.0
):
    classes = classes or {"a": _slice(50), "b": _slice(50)}
    figures = metrics or {"candidate": {"accuracy": overall.accuracy, "kappa": kappa}}
    evaluation = Evaluation({"": {"": overall}, "class": classes}, figures, {})
    return judge(Judged(gate, "tflite", evaluation, "", compared, names), limits)


def _deciding(checks):
    return [(check.rule, check.slice) for check in checks if check.verdict == "refused"]


def test_what_loses_nothing_passes():
    checks = _judge(_slice(100))
    assert refused_by(checks) == []
    assert {check.rule for check in checks} == {
        "gate.min_accuracy",
        "gate.min_kappa",
        "gate.max_drop",
        "gate.min_agreement",
        "gate.max_class_drop",
    }


def test_a_drop_counts_only_beyond_its_interval():
    # 5 of 100 photos lost, none gained: were both models equally good, that would happen once in 32 times.
    assert _deciding(_judge(_slice(100, lost=5))) == []
    # Of 6 photos, once in 64 times: beyond the two-sided interval of 95 %.
    assert _deciding(_judge(_slice(100, lost=6))) == [("gate.max_drop", None)]


def test_a_drop_beyond_its_interval_but_within_the_limit_passes():
    assert _deciding(_judge(_slice(1000, lost=15))) == []


def test_the_interval_is_that_of_mcnemars_exact_test():
    for lost, gained in ((5, 0), (6, 0), (15, 5), (16, 5), (40, 20), (30, 20)):
        differing = lost + gained
        tail = sum(math.comb(differing, k) for k in range(lost, differing + 1)) / 2**differing
        interval = drop_interval(lost, gained, 500)
        assert (interval.lower > 0) == (tail < 0.025)
        assert interval.lower <= (lost - gained) / 500 <= interval.upper


def test_models_that_never_differ_have_no_drop():
    interval = drop_interval(0, 0, 10)
    assert (interval.lower, interval.upper) == (0.0, 0.0)


def test_a_share_has_the_interval_of_clopper_and_pearson():
    # Of the textbook: no hit in ten trials.
    interval = share_interval(0, 10)
    assert interval.lower == 0
    assert interval.upper == pytest.approx(1 - 0.025**0.1)


def test_one_class_that_is_lost_is_refused_by_name():
    classes = {"a": _slice(500), "b": _slice(12, lost=12)}
    checks = _judge(_slice(1000, lost=12), classes)
    assert _deciding(checks) == [("gate.max_class_drop", "b")]


def test_the_more_classes_the_surer_each_must_be():
    def judge_classes(count):
        classes = {str(index): _slice(20) for index in range(count)} | {"0": _slice(20, lost=8)}
        return _deciding(_judge(_slice(2000, lost=8), classes, names=list(classes)))

    assert judge_classes(2) == [("gate.max_class_drop", "0")]
    assert judge_classes(100) == []


def test_a_class_of_few_photos_is_not_judged_and_says_so():
    checks = _judge(_slice(1000), {"a": _slice(500), "b": _slice(9, lost=9)})
    (check,) = (check for check in checks if check.slice == "b")
    assert check.verdict == "not judged"
    assert "gate.min_examples_per_slice = 10" in check.reason


def test_a_class_without_photos_is_refused():
    checks = _judge(_slice(50), {"a": _slice(50)})
    assert _deciding(checks) == [("computed", "b")]


def test_the_floor_is_refused_without_regard_to_chance():
    assert _deciding(_judge(_slice(10, right=1))) == [("gate.min_accuracy", None)]


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        ({0: {0: 998}, 1: {0: 2}}, 0.0),
        ({0: {0: 25, 1: 25}, 1: {0: 25, 1: 25}}, 0.0),
        ({0: {0: 50}, 1: {1: 50}}, 1.0),
        ({0: {1: 50}, 1: {0: 50}}, -1.0),
        ({0: {0: 10}}, 0.0),
        # Of the textbook (Cohen, 1960): 0.7 right, 0.5 by chance.
        ({0: {0: 20, 1: 5}, 1: {0: 10, 1: 15}}, 0.4),
    ],
)
def test_kappa_is_the_share_right_of_what_guessing_gets_wrong(confusion, expected):
    assert kappa(confusion) == pytest.approx(expected)


def test_guessing_is_refused_however_often_it_is_right():
    checks = _judge(_slice(1000, right=998), kappa=0.0)
    assert _deciding(checks) == [("gate.min_kappa", None)]
    assert _deciding(_judge(_slice(1000, right=998), gate="release", compared=False, kappa=0.0)) == [
        ("gate.min_kappa", None)
    ]
    assert _deciding(_judge(_slice(1000), kappa=0.1)) == []


def test_what_cannot_be_told_from_guessing_is_refused():
    checks = _judge(_slice(100), metrics={"candidate": {"accuracy": 1.0}})
    assert _deciding(checks) == [("gate.min_kappa", None)]


def test_classes_of_few_photos_are_judged_together():
    few = {name: _slice(5, lost=5) for name in "bcd"}
    checks = _judge(_slice(1000, lost=15), {"a": _slice(985), **few}, names="abcd")
    assert _deciding(checks) == [("gate.max_class_drop", SMALL_CLASSES)]
    assert _deciding(_judge(_slice(1000), {"a": _slice(985), "b": _slice(5), "c": _slice(5)}, names="abc")) == []
    (check,) = (
        check for check in _judge(_slice(100), {"b": _slice(2), "c": _slice(2)}) if check.slice == SMALL_CLASSES
    )
    assert check.verdict == "not judged"


def test_answers_unlike_the_parents_are_refused_though_accuracy_is_kept():
    # As many gained as lost.
    checks = _judge(_slice(200, lost=30, gained=30, right=150))
    assert _deciding(checks) == [("gate.min_agreement", None)]


def test_the_release_gate_has_its_own_limit_and_does_not_ask_for_agreement():
    overall = _slice(200, lost=30, gained=30, right=150)
    assert _deciding(_judge(overall, gate="release")) == []
    assert _deciding(_judge(_slice(100, lost=10), gate="release")) == [("gate.max_regression", None)]
    lenient = dataclasses.replace(LIMITS, max_regression=0.2)
    assert _deciding(_judge(_slice(100, lost=10), gate="release", limits=lenient)) == []


def test_the_first_release_says_that_there_is_nothing_to_compare_with():
    overall = SliceResult(100, 0.9, None, None, None, None)
    checks = _judge(overall, {"a": overall, "b": overall}, gate="release", compared=False)
    assert refused_by(checks) == []
    assert [(check.verdict, "first release" in check.reason) for check in checks][-1] == ("not judged", True)


def test_a_comparison_that_was_due_and_did_not_happen_is_refused():
    overall = SliceResult(100, 0.9, None, None, None, None)
    assert _deciding(_judge(overall, {"a": overall, "b": overall}, gate="release")) == [("computed", None)]


@pytest.mark.parametrize(("blessed", "refusals"), [(1, []), (0, [("gate.min_accuracy", None)])])
def test_what_tfma_did_not_bless_is_refused_though_it_keeps_every_rule(blessed, refusals):
    blessing = standard_artifacts.ModelBlessing()
    blessing.set_int_custom_property("blessed", blessed)
    slices = {"": {"": _slice(100)}, "class": {"a": _slice(50), "b": _slice(50)}}
    evaluation = Evaluation(slices, {"candidate": {"accuracy": 1.0, "kappa": 1.0}}, {})
    inputs = {"fidelity_tflite_blessing": [blessing]}
    checks = executor._checks("fidelity", "tflite", evaluation, inputs, ["a", "b"], LIMITS)
    assert _deciding(checks) == refusals
    assert ("TFMA's validation did not bless it" in [check.reason for check in checks]) == bool(refusals)


@pytest.mark.parametrize("metrics", [{"candidate": {"auc": math.nan}}, {"baseline": {"accuracy": math.inf}}])
def test_a_figure_that_is_no_number_is_refused(metrics):
    checks = _judge(_slice(100), metrics=metrics)
    assert _deciding(checks) == [("computed", None)]
    assert "is not a number" in checks[0].reason


def test_nothing_evaluated_is_refused_with_the_evaluators_reason():
    checks = judge(Judged("fidelity", "tflite", None, "the candidate cannot be loaded", True, ("a",)), LIMITS)
    assert [(check.verdict, check.reason) for check in checks] == [("refused", "the candidate cannot be loaded")]
    assert judge(Judged("fidelity", "tflite", Evaluation({}, {}, {}), "", True, ("a",)), LIMITS)[0].verdict == "refused"
