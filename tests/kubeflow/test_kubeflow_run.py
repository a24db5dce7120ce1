"""The whole pipeline on Kubeflow, as far as a machine without a cluster can show it: see docs/kubeflow.md."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest
import tenacity

from pipeline.config import load_settings
from pipeline.digits import write_digits
from pipeline.prepare import resolve
from pipeline.workspace import Workspace
from serving.bundle import load_bundle
from serving.client import PredictClient
from serving.predictor import Predictor
from tests.kubeflow.backend import CACHED, SKIPPED, SUCCEEDED, Backend, Doom
from tests.kubeflow.conftest import ON_KUBEFLOW, QUICK, compiled
from tests.kubeflow.kustomize import build
from tests.kubeflow.pod import REPOSITORY, Pod, pods_are_possible

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not pods_are_possible(), reason="this machine gives processes no mount namespace of their own"),
]

# Of some eighteen pods; ingest alone takes two.
whole_run = pytest.mark.long
LOOKED_UP_EVERY_TIME = {"DataFingerprint", "PushedBaseline"}
# What trimline run does, up to where the model is made.
TO_COMPRESSION = """
import sys
from pathlib import Path
from pipeline.local_runner import run_pipeline
from pipeline.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
run_pipeline(workspace.read_settings(), workspace, last_component="Compression")
"""


class Cluster:
    def __init__(self, root):
        self.photos, self.models = root / "photos", root / "models"
        self.photos.mkdir()
        self.models.mkdir()
        write_digits(self.photos / "digits")
        self.backend = Backend(root / "cluster", {"photos": self.photos, "models": self.models})

    def pushed(self, name):
        return sorted((self.models / name).iterdir())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    return Cluster(tmp_path_factory.mktemp("kubeflow"))


@pytest.fixture(scope="module")
def first(cluster, package):
    """The first run; its Trainer is killed once, as soon as it has something to go on from."""

    def has_checkpoints():
        return any((cluster.models / "checkpoints").rglob("checkpoint"))

    return cluster.backend.run(package, {"Trainer": Doom(when=has_checkpoints)})


@pytest.fixture(scope="module")
def ingested(cluster, package):
    return cluster.backend.run(package, last_task="ImageExampleGen")


@pytest.fixture(scope="module")
def refused(cluster, first, tmp_path_factory):
    """The same once more, but that nothing is good enough."""
    settings = QUICK | ON_KUBEFLOW | {"gate.min_accuracy": 1.0}
    return cluster.backend.run(compiled(tmp_path_factory.mktemp("refused"), settings))


@whole_run
def test_every_task_succeeds_and_both_artifacts_are_pushed(cluster, first):
    failed = {name: first.logs[name][-2000:] for name, task in first.tasks.items() if task.state != SUCCEEDED}
    assert failed == {}
    (saved_model,) = cluster.pushed("saved_model")
    (tflite,) = cluster.pushed("tflite")
    assert (saved_model / "saved_model.pb").is_file()
    assert sorted(path.name for path in tflite.iterdir()) == ["labels.txt", "model.json", "model.tflite"]


@whole_run
def test_a_task_that_is_killed_is_tried_again_and_goes_on_where_it_was(first):
    attempts = {name: task.attempts for name, task in first.tasks.items()}
    assert attempts.pop("Trainer") == 2
    assert set(attempts.values()) == {1}
    assert "the training goes on after epoch" in first.logs["Trainer"]


@whole_run
def test_no_path_of_a_pod_leaves_it(first):
    for name, task in first.tasks.items():
        text = json.dumps([task.artifacts, task.parameters])
        assert "/minio/" not in text, name
    current = first.tasks["EvaluatorFidelityTFLite"].artifacts["blessing"]["metadata"]["current_model"]
    assert current == first.tasks["Compression"].artifacts["tflite_model"]["uri"]


@whole_run
def test_the_first_release_has_nothing_to_be_compared_with(first):
    assert first.tasks["PushedBaseline"].parameters == {"saved_model_version": "", "tflite_version": ""}
    checks = json.loads(_file(first, "ReleaseGate", "report", "gates.json"))["checks"]
    assert {check["verdict"] for check in checks} == {"passed", "not judged"}


@whole_run
def test_the_pushed_model_answers_as_one_that_beam_ran(cluster, first, tmp_path):
    digits = cluster.photos / "digits"
    workspace = Workspace(tmp_path / "out")
    workspace.prepare()
    settings = load_settings(assignments=(f"data.path={digits}", *(f"{key}={value}" for key, value in QUICK.items())))
    workspace.write_settings(resolve(settings, workspace))
    # As the pods have it, and trimline run sees to it: other kernels compute other last bits.
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1"}
    command = [sys.executable, "-c", TO_COMPRESSION, workspace.root]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert result.returncode == 0, result.stderr
    # The same training to the last bit, although this one was killed and went on; calibration for int8 is not as exact.
    compression = workspace.pipeline_root / "Compression"
    (float_model,) = compression.glob("report/*/variants/float32.tflite")
    assert _file(first, "Compression", "report", "variants/float32.tflite") == float_model.read_bytes()
    (here,) = compression.glob("tflite_model/*/Format-Serving")
    (there,) = cluster.pushed("tflite")
    images = [file.read_bytes() for folder in sorted(digits.iterdir()) for file in sorted(folder.iterdir())[:10]]
    ours, theirs = (Predictor(load_bundle(bundle)).predict_images(images) for bundle in (here, there))
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    np.testing.assert_allclose(ours, theirs, atol=0.1)


@whole_run
def test_the_serving_manifest_starts_a_server_on_what_was_pushed(cluster, first, tmp_path):
    deployment = next(
        each
        for each in build(REPOSITORY / "kubeflow" / "serving" / "overlays" / "cpu")
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "trimline-tflite")
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pod = Pod(tmp_path / "pod", {mounts["models"]: cluster.models}, {"HOME": "/tmp"})  # noqa: S108 (the pod's own)
    ended = threading.Event()
    command = [*container["args"], "--port", str(port)]
    server = threading.Thread(target=pod.run, args=(command, tmp_path / "log.txt", 120.0, ended.is_set))
    server.start()
    try:
        paths = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
        for path in paths:
            _ask(f"http://127.0.0.1:{port}{path}")
        image = next((cluster.photos / "digits" / "7").iterdir())
        with PredictClient(f"http://127.0.0.1:{port}") as client:
            assert client.top_classes(image, 1)[0].label == "7"
    finally:
        ended.set()
        server.join()


@whole_run
def test_what_was_done_before_comes_from_the_cache(refused):
    states = {name: task.state for name, task in refused.tasks.items()}
    for name in ("ImageExampleGen", "Transform", "Trainer", "Compression", "BaselineModels"):
        assert states[name] == CACHED, name
    assert {states[name] for name in LOOKED_UP_EVERY_TIME} == {SUCCEEDED}


@whole_run
def test_what_the_gates_refuse_is_not_pushed(cluster, refused):
    assert refused.succeeded
    assert refused.tasks["ReleaseGate"].parameters == {"verdict": "refused"}
    assert refused.tasks["PusherSavedModel"].state == refused.tasks["PusherTFLite"].state == SKIPPED
    assert len(cluster.pushed("tflite")) == len(cluster.pushed("saved_model")) == 1


def test_what_ingest_found_is_in_the_object_store(ingested):
    assert ingested.succeeded, ingested.logs
    examples = ingested.tasks["ImageExampleGen"].artifacts["examples"]
    assert "/minio/" not in json.dumps(examples)
    splits = {name.partition("/")[0] for name in ingested.store.files(examples["uri"])}
    assert {"Split-train", "Split-validation", "Split-test"} <= splits


def test_changed_photos_are_not_taken_from_the_cache(cluster, ingested, package):
    a_photo = next((cluster.photos / "digits" / "3").iterdir())
    before = a_photo.stat().st_mtime_ns
    try:
        os.utime(a_photo)
        changed = cluster.backend.run(package, last_task="ImageExampleGen")
    finally:
        os.utime(a_photo, ns=(before, before))
    assert changed.tasks["ImageExampleGen"].state == SUCCEEDED
    again = cluster.backend.run(package, last_task="ImageExampleGen")
    assert again.tasks["ImageExampleGen"].state == CACHED


def test_photos_that_are_not_there_are_named_and_nothing_goes_on(cluster, package):
    shutil.move(cluster.photos / "digits", cluster.photos / "elsewhere")
    try:
        run = cluster.backend.run(package.replace("maxRetryCount: 2", "maxRetryCount: 0"), last_task="SchemaGen")
    finally:
        shutil.move(cluster.photos / "elsewhere", cluster.photos / "digits")
    assert "trimline: /mnt/photos/digits: no such folder" in run.logs["DataFingerprint"]
    assert run.tasks["SchemaGen"].state == SKIPPED


def _file(run, task, output, name):
    """Returns a file of an output as it lies in the object store."""
    return run.store.files(run.tasks[task].artifacts[output]["uri"])[name]


@tenacity.retry(wait=tenacity.wait_fixed(0.5), stop=tenacity.stop_after_delay(90), reraise=True)
def _ask(url):
    httpx.get(url).raise_for_status()
