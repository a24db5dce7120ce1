"""Failures of the machine stop a run; only what a model does is held against it."""

import errno
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.gate_evaluator import crash
from components.gate_evaluator.executor import Executor as EvaluatorExecutor
from components.serving_validator import engine
from trainer_module import classifiers
from trainer_module.errors import GateError, UserError

HUNG = "hung"
NO_ROOM = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.tflite")
# TensorFlow says so wherever there is no GPU, and works on.
WITHOUT_GPU = (
    "E cuda_dnn.cc:8579] Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when one "
    "has already been registered\n"
    "E cuda_platform.cc:51] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: CUDA_ERROR_NO_DEVICE: "
    "no CUDA-capable device is detected\n"
)


def _probes_end_with(monkeypatch, *outcomes, stderr=""):
    """Lets each process that is run come to the next outcome; returns the list of those that are left."""
    left = list(outcomes)

    def run(command, **_):
        outcome = left.pop(0)
        if outcome == HUNG:
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, outcome, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return left


def _artifact(kind, path):
    path.mkdir(parents=True, exist_ok=True)
    made = kind()
    made.uri = str(path)
    return made


def _evaluate(tmp_path):
    """Runs a GateEvaluator on a .tflite, and returns where its blessing goes."""
    model = _artifact(standard_artifacts.Model, tmp_path / "model")
    (tmp_path / "model" / "Format-Serving").mkdir()
    (tmp_path / "model" / "Format-Serving" / "model.tflite").write_bytes(b"any")
    outputs = {
        "evaluation": [_artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")],
        "blessing": [_artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")],
    }
    EvaluatorExecutor().Do({"model": [model]}, outputs, {})


def _ask():
    return engine.validate(Path("bundle"), {"photo": b"bytes"}, {"photo": [1.0]}, 0.1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_ends_a_probe_from_outside_is_no_verdict(tmp_path, monkeypatch, number):
    _probes_end_with(monkeypatch, -number, -number)
    with pytest.raises(UserError, match=f"ended by {number.name}.*memory"):
        _evaluate(tmp_path)
    assert list((tmp_path / "blessing").iterdir()) == []
    with pytest.raises(UserError, match=f"ended by {number.name}.*memory"):
        _ask()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE])
def test_a_model_that_crashes_its_process_is_refused(tmp_path, monkeypatch, number):
    _probes_end_with(monkeypatch, -number, -number)
    _evaluate(tmp_path)
    assert [path.name for path in (tmp_path / "blessing").iterdir()] == ["NOT_BLESSED"]
    assert number.name in _ask()


def test_a_model_that_hangs_once_is_tried_again(tmp_path, monkeypatch):
    _probes_end_with(monkeypatch, HUNG, 0)
    assert crash.crash_reason(tmp_path / "model.tflite") == ""
    left = _probes_end_with(monkeypatch, HUNG, HUNG, 0)
    assert "did not answer within 60 s, 2 times" in crash.crash_reason(tmp_path / "model.tflite")
    assert left == [0]
    left = _probes_end_with(monkeypatch, HUNG, HUNG, 0)
    assert "did not answer 1 requests within 180 s, 2 times" in _ask()
    assert left == [0]


@pytest.mark.parametrize(
    "line",
    [
        *(
            f"OSError: [Errno {number}] {os.strerror(number)}: 'x'"
            for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        ),
        "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 3 GiB",
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating",
        "tensorflow.python.framework.errors_impl.InternalError: CUDA error: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "E cuda_blas.cc:195] failed to create cublas handle: the resource allocation failed",
    ],
)
def test_a_fresh_process_without_disk_or_memory_is_no_verdict(monkeypatch, line):
    _probes_end_with(monkeypatch, 1, stderr=f"Traceback\n{line}\n")
    with pytest.raises(RuntimeError, match="could not be asked"):
        _ask()


def test_a_fresh_process_that_fails_of_the_model_is_one(monkeypatch):
    _probes_end_with(monkeypatch, 1, stderr=f"{WITHOUT_GPU}Traceback\nValueError: the model is no model\n")
    assert "ValueError: the model is no model" in _ask()


@pytest.mark.parametrize("fault", [NO_ROOM, tf.errors.UnavailableError(None, None, "no network"), MemoryError()])
def test_a_download_that_fails_is_no_verdict(tmp_path, monkeypatch, fault):
    def fail(*_, **__):
        raise fault

    base = f"ram://{tmp_path.name}/model"
    tf.io.gfile.makedirs(base)
    with tf.io.gfile.GFile(f"{base}/model.tflite", "w") as stream:
        stream.write("bytes")
    monkeypatch.setattr(tf.io.gfile, "copy", fail)
    with pytest.raises(type(fault)):
        classifiers.CheckedClassifier("candidate", base)


class _Failing:
    class_names = ("a", "b")

    def __init__(self, fault):
        self._fault = fault

    def predict(self, _):
        raise self._fault


FAULTS = [
    NO_ROOM,
    MemoryError(),
    tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"),
    tf.errors.FailedPreconditionError(None, None, "DNN library initialization failed. Look at the errors above"),
    tf.errors.InternalError(None, None, "Dst tensor is not initialized."),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_machine_that_fails_a_model_is_no_verdict(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(classifiers, "_load", lambda _: _Failing(fault))
    with pytest.raises(type(fault)):
        classifiers.CheckedClassifier("candidate", str(tmp_path)).predict([b"photo"])

    def fail(_):
        raise fault

    monkeypatch.setattr(classifiers, "_load", fail)
    with pytest.raises(type(fault)):
        classifiers.CheckedClassifier("candidate", str(tmp_path))


class _Answering(classifiers.BundleClassifier):
    """A .tflite of many classes, without its file."""

    def __init__(self, probabilities):
        self.class_names = [str(index) for index in range(probabilities.shape[1])]
        self._probabilities = probabilities

    def predict(self, _):
        return self._probabilities


def test_an_integer_softmax_of_many_classes_need_not_sum_to_1(tmp_path, monkeypatch):
    # Label smoothing leaves 0.05 for 99 classes, of which no step of 1/256 is left.
    rounded = np.zeros((1, 100), np.float32)
    rounded[0, 3] = 0.94921875
    monkeypatch.setattr(classifiers, "_load", lambda _: _Answering(rounded))
    answers = classifiers.CheckedClassifier("candidate", str(tmp_path)).predict([b"photo"])
    np.testing.assert_array_equal(answers, rounded)
    monkeypatch.setattr(classifiers, "_load", lambda _: _Answering(rounded[:, :4]))
    with pytest.raises(GateError, match="do not sum to 1"):
        classifiers.CheckedClassifier("candidate", str(tmp_path)).predict([b"photo"])


def test_a_model_that_fails_is_refused(tmp_path, monkeypatch):
    with pytest.raises(GateError, match="the candidate cannot be loaded"):
        classifiers.CheckedClassifier("candidate", str(tmp_path))
    monkeypatch.setattr(classifiers, "_load", lambda _: _Failing(ValueError("no photo")))
    with pytest.raises(GateError, match="the candidate fails on test photos: ValueError: no photo"):
        classifiers.CheckedClassifier("candidate", str(tmp_path)).predict([b"photo"])
