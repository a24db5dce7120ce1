"""The real doors over the bytes that would ship: an honest release passes, sabotaged ones do not."""

import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from tfx.types import standard_artifacts

from benchmarks.gate_bench import CLASS_NAMES, GateBench, artifact, encode, run_evaluator, write_schema
from benchmarks.sabotages import KINDS
from components.atomic_pusher import destination
from components.release_gate.engine import ARTIFACTS, GATES
from components.release_gate.executor import Executor as GateExecutor
from components.release_gate.results import read_evaluation, read_mistakes, read_sample
from components.serving_validator.engine import TFLITE_TOLERANCE, validate
from components.serving_validator.executor import Executor as ServingExecutor
from pipeline import gates
from pipeline.config import GateSettings
from trainer_module import classifiers
from trainer_module.evaluation import digest
from trainer_module.mistake_metrics import KEPT_PHOTOS, LOST_PHOTOS, MISTAKES

pytestmark = pytest.mark.component

# Of those that are refused for what they answer to all photos, or only by a fresh process, one each is enough here.
QUICK = {
    *("a label missing", "a label too many", "a label twice", ".tflite cut in half", ".tflite empty"),
    *(".tflite with damaged bytes", ".tflite whose scales are 0", ".tflite of another task", ".tflite answers NaN"),
    *(".tflite answers logits", ".tflite reads BGR", "model.json of another file", "SavedModel with a misnamed input"),
    *("SavedModel without Classify", "SavedModel answers NaN", "trained for one epoch only"),
    *("a test class that was never trained", "no test photos"),
}


def _kinds():
    """Yields all kinds of sabotage, with the marks of their tests."""
    for kind in KINDS:
        yield pytest.param(kind, id=kind.name, marks=() if kind.name in QUICK else pytest.mark.long)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return GateBench(tmp_path_factory.mktemp("bench"))


def test_the_honest_release_passes_every_door(bench):
    assert bench.refusal(bench.honest) is None


@pytest.mark.parametrize("kind", _kinds())
def test_a_sabotaged_release_is_refused_by_the_gate_that_must_notice(bench, tmp_path, kind):
    refused = bench.refusal(kind.apply(bench, tmp_path))
    assert refused is not None
    assert refused.gate == kind.gate
    assert refused.reason
    assert "\n" not in refused.reason


def test_swapped_labels_are_refused_by_the_drop_alone(bench, tmp_path):
    (kind,) = (kind for kind in KINDS if kind.name == "two labels swapped")
    refused = bench.refusal(kind.apply(bench, tmp_path), GateSettings(min_accuracy=0.0, min_agreement=0.0))
    assert refused is not None
    assert refused.rule == "gate.max_drop"
    assert refused.interval.lower > 0.02


def test_the_floor_refuses_what_the_comparison_would_let_pass(bench):
    refused = bench.refusal(bench.honest, GateSettings(min_accuracy=0.999))
    assert refused is not None
    assert (refused.gate, refused.rule) == ("fidelity", "gate.min_accuracy")


def test_the_evaluator_measures_the_metrics_and_slices(bench):
    uri, blessing = bench.evaluate(bench.honest.tflite, bench.honest.parent, bench.honest.examples)
    assert blessing.get_int_custom_property("blessed") == 1
    evaluation = read_evaluation(uri)
    probabilities = _probabilities(bench, "tflite")
    labels, answers = bench.test.labels, probabilities.argmax(axis=1)
    assert evaluation.overall.photos == len(labels)
    figures = evaluation.metrics["candidate"]
    recalls = [np.mean(answers[labels == label] == label) for label in range(10)]
    top = np.argsort(-probabilities, axis=1)[:, :3]
    assert figures["accuracy"] == pytest.approx(np.mean(answers == labels), abs=1e-6)
    assert figures["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert figures["kappa"] == pytest.approx(cohen_kappa_score(labels, answers), abs=1e-9)
    assert figures["top_3_accuracy"] == pytest.approx(np.mean((top == labels[:, None]).any(axis=1)), abs=0.006)
    assert figures["auc"] == pytest.approx(_pairwise_auc(probabilities, labels), abs=2e-3)
    assert figures["expected_calibration_error"] == pytest.approx(_calibration_error(probabilities, labels), abs=1e-4)
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (labels, answers), 1)
    assert {t: {a: n for a, n in enumerate(row) if n} for t, row in enumerate(matrix.tolist())} == {
        true: {answer: count for answer, count in row.items() if count}
        for true, row in evaluation.confusion["candidate"].items()
    }
    assert set(evaluation.classes) == set(CLASS_NAMES)
    assert set(evaluation.slices["size"]) == {"below 32"}
    assert sum(result.photos for result in evaluation.slices["brightness"].values()) == len(labels)
    parent = _probabilities(bench, "parent").argmax(axis=1)
    assert evaluation.overall.only_baseline_right == np.sum((parent == labels) & (answers != labels))
    assert evaluation.overall.only_candidate_right == np.sum((parent != labels) & (answers == labels))
    assert evaluation.overall.agreement == pytest.approx(np.mean(parent == answers))
    found = read_mistakes(uri)
    for kind, photos in ((MISTAKES, answers != labels), (LOST_PHOTOS, (answers != labels) & (parent == labels))):
        expected = sorted(np.flatnonzero(photos), key=lambda photo: -probabilities[photo].max())[:KEPT_PHOTOS]
        assert {(each.digest, each.label, each.answer) for each in found[kind]} == {
            (_digest(bench.test.images[photo]), labels[photo], answers[photo]) for photo in expected
        }
        confidences = [each.confidence for each in found[kind]]
        assert confidences == sorted(confidences, reverse=True)
    assert found[MISTAKES]


def test_the_evaluator_blesses_nothing_below_the_floor(bench):
    uri, blessing = bench.evaluate(bench.honest.tflite, bench.honest.parent, bench.honest.examples, min_accuracy=1.0)
    assert blessing.get_int_custom_property("blessed") == 0
    # Measured nonetheless: what cannot be measured is not blessed, whatever the floor.
    assert blessing.get_string_custom_property("reason") == ""
    assert read_evaluation(uri).overall.accuracy < 1


def test_the_sample_holds_the_evaluators_predictions(bench):
    uri, _ = bench.evaluate(bench.honest.tflite, bench.honest.parent, bench.honest.examples)
    sample = read_sample(uri)
    predicted = dict(zip(map(_digest, bench.test.images), _probabilities(bench, "tflite"), strict=True))
    assert list(sample) == sorted(predicted)[:8]
    for name, probabilities in sample.items():
        np.testing.assert_allclose(probabilities, predicted[name], atol=1e-6)


def test_without_a_release_before_only_the_floor_holds(bench, tmp_path):
    uri, blessing = bench.evaluate(bench.honest.saved_model, None, bench.honest.examples)
    assert blessing.get_int_custom_property("blessed") == 1
    assert set(read_evaluation(uri).metrics) == {"candidate"}
    assert read_evaluation(uri).overall.agreement is None


@pytest.mark.parametrize("first", [True, False], ids=["first release", "later release"])
def test_the_components_bless_the_honest_release_and_report_why(bench, tmp_path, first):
    result, report = _release(bench, tmp_path, bench.honest, first=first)
    assert report["blessed"] is True
    assert report["refused_by"] == []
    assert result.get_int_custom_property("blessed") == result.get_int_custom_property("released") == 1
    regressions = [check for check in report["checks"] if check["rule"] == "gate.max_regression"]
    assert {check["verdict"] for check in regressions} == {"not judged" if first else "passed"}
    assert first == all("first release" in check["reason"] for check in regressions)
    assert {(measured["gate"], measured["artifact"]) for measured in report["evaluations"]} == {
        (gate, name) for gate in GATES for name in ARTIFACTS
    }


def test_the_components_refuse_a_release_of_which_one_half_is_sabotaged(bench, tmp_path):
    (kind,) = (kind for kind in KINDS if kind.name == ".tflite cut in half")
    (tmp_path / "broken").mkdir()
    result, report = _release(bench, tmp_path, kind.apply(bench, tmp_path / "broken"), first=True)
    assert result.get_int_custom_property("blessed") == 0
    assert result.get_string_custom_property("refused_by") == "fidelity,release,serving"
    refused = [check for check in report["checks"] if check["verdict"] == "refused"]
    assert {check["artifact"] for check in refused} == {"tflite"}
    assert "cannot be loaded" in refused[0]["reason"]


def test_a_failure_that_is_not_the_models_stops_the_run(bench, tmp_path):
    with pytest.raises(OSError, match="No files found based on the file pattern"):
        bench.evaluate(bench.honest.saved_model, None, tmp_path / "absent")


def _release(bench, tmp_path, release, *, first):
    """Runs ServingValidator and ReleaseGate as the pipeline wires them; returns blessing and report."""
    inputs = {}
    for name in ARTIFACTS:
        references = {"fidelity": release.parent, "release": None if first else getattr(bench.honest, name)}
        for gate, reference in references.items():
            uri, blessing = bench.evaluate(getattr(release, name), reference, release.examples)
            inputs[f"{gate}_{name}_evaluation"] = [artifact(standard_artifacts.ModelEvaluation, uri)]
            inputs[f"{gate}_{name}_blessing"] = [blessing]
    models = {
        "saved_model": [artifact(standard_artifacts.Model, release.saved_model, 7)],
        "tflite_model": [artifact(standard_artifacts.Model, release.tflite, 8)],
    }
    examples = artifact(standard_artifacts.Examples, release.examples)
    examples.split_names = '["test"]'
    served = artifact(standard_artifacts.InfraBlessing, tmp_path / "served")
    evaluations = {f"{name}_evaluation": inputs[f"fidelity_{name}_evaluation"] for name in ARTIFACTS}
    ServingExecutor().Do({"examples": [examples], **models, **evaluations}, {"blessing": [served]}, {"split": "test"})
    result, report = (artifact(standard_artifacts.ModelBlessing, tmp_path / name) for name in ("result", "report"))
    verdict = artifact(standard_artifacts.String, tmp_path / "verdict")
    released = [] if first else [artifact(standard_artifacts.Model, bench.honest.saved_model)]
    GateExecutor().Do(
        {**inputs, **models, "serving_blessing": [served], "released_model": released},
        {"blessing": [result], "report": [report], "verdict": [verdict]},
        {"limits": json.dumps(GateSettings().model_dump())},
    )
    assert verdict.read() == ("blessed" if result.get_int_custom_property("blessed") else "refused")
    return result, json.loads((tmp_path / "report" / "gates.json").read_text())


def _probabilities(bench, name):
    directory = getattr(bench.honest, name) / "Format-Serving"
    return classifiers.CheckedClassifier(name, str(directory)).predict([encode(image) for image in bench.test.images])


def _digest(image):
    return digest(encode(image))


def _pairwise_auc(probabilities, labels):
    """The share of pairs of a true and another class's score that are in the right order; ties count half."""
    truth = np.eye(10, dtype=bool)[labels]
    positives, negatives = probabilities[truth], probabilities[~truth]
    return np.mean((positives[:, None] > negatives) + (positives[:, None] == negatives) / 2)


def _calibration_error(probabilities, labels):
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidences * 15).astype(int), 14)
    return sum(
        abs(np.mean(confidences[bins == index]) - np.mean(right[bins == index])) * np.mean(bins == index)
        for index in np.unique(bins)
    )


def test_both_kinds_of_model_answer_alike_from_image_bytes(bench):
    saved = _probabilities(bench, "saved_model")
    tflite = _probabilities(bench, "tflite")
    np.testing.assert_allclose(saved, tflite, atol=0.1)
    assert np.mean(saved.argmax(axis=1) == tflite.argmax(axis=1)) > 0.97


@pytest.mark.parametrize("name", ARTIFACTS)
def test_models_are_judged_wherever_tensorflow_can_read_them(bench, tmp_path, name):
    local = str(getattr(bench.honest, name) / "Format-Serving")
    remote = destination.publish(local, f"ram://{tmp_path.name}", 1)
    images = [encode(image) for image in bench.test.images[:20]]
    answers = [classifiers.CheckedClassifier(name, directory).predict(images) for directory in (local, remote)]
    np.testing.assert_array_equal(*answers)


def test_a_missing_input_is_a_reason(bench, tmp_path):
    schema = write_schema(tmp_path / "schema", leave_out="image/brightness")
    uri, blessing = run_evaluator(
        bench.honest.saved_model, None, bench.honest.examples, schema, tmp_path, gates.eval_config(GateSettings())
    )
    assert read_evaluation(uri) is None
    assert "image/brightness" in blessing.get_string_custom_property("reason")


def test_answers_that_are_not_the_evaluators_are_refused(bench):
    uri, _ = bench.evaluate(bench.honest.tflite, bench.honest.parent, bench.honest.examples)
    directory = bench.honest.tflite / "Format-Serving"
    images = {_digest(image): encode(image) for image in bench.test.images}
    sample = read_sample(uri)
    assert validate(directory, images, sample, TFLITE_TOLERANCE) == ""
    changed = {name: np.roll(probabilities, 1).tolist() for name, probabilities in sample.items()}
    assert "off those that the Evaluator saw" in validate(directory, images, changed, TFLITE_TOLERANCE)
    fewer = {name: probabilities[:3] for name, probabilities in sample.items()}
    assert "[8, 3]" in validate(directory, images, fewer, TFLITE_TOLERANCE)


def test_a_comparison_that_cannot_be_made_is_refused(bench, tmp_path):
    uri, _ = bench.evaluate(bench.honest.tflite, bench.honest.parent, bench.honest.examples)
    directory = bench.honest.tflite / "Format-Serving"
    assert "nothing was compared" in validate(directory, {}, read_sample(uri), TFLITE_TOLERANCE)
    assert "nothing was compared" in validate(directory, {}, {}, TFLITE_TOLERANCE)
    images = {_digest(image): encode(image) for image in bench.test.images}
    assert "could not answer" in validate(tmp_path, images, read_sample(uri), TFLITE_TOLERANCE)
