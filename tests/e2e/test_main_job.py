"""The main job, as a user runs it: photos in, pushed model out, twice."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving.client import PredictClient
from tests.documents import shown_commands
from tests.e2e.commands import QUICK, TRIMLINE, read_summary, trimline

pytestmark = pytest.mark.e2e

# Where it is not about compression, it need not take time.
PLAIN = (*QUICK, "--set", "compression.stages=[quantize]")
COMPONENTS = {
    "ImageExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "StrictExampleValidator",
    "Transform",
    "Trainer",
    "Compression",
    "EvaluatorFidelitySavedModel",
    "EvaluatorFidelityTFLite",
    "EvaluatorReleaseSavedModel",
    "EvaluatorReleaseTFLite",
    "ServingValidator",
    "ReleaseGate",
    "PusherSavedModel",
    "PusherTFLite",
}

# Commands of README and docs/ that take seconds. What takes minutes, or asks a server, is run by other tests, with
# smaller settings; tests/unit/test_docs.py makes sure that each shown command can be given as it stands.
QUICK_COMMANDS = {"predict", "status", "verify", "rollback", "init", "doctor"}
SHOWN = sorted(
    {
        tuple(words[1:])
        for _, words in shown_commands()
        if words[0] == "trimline" and words[1] in QUICK_COMMANDS and "--url" not in words
    }
)


def _write_photos(root: Path, per_class: int = 60) -> Path:
    """Writes JPEGs of two classes, of several sizes: stripes that lie, stripes that stand."""
    rng = np.random.default_rng(0)
    for name in ("lying", "standing"):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            height, width = rng.integers(40, 90, 2)
            stripes = np.where(np.arange(height)[:, None, None] // 8 % 2, 210, 60)
            pixels = np.broadcast_to(stripes, (height, width, 3)) + rng.normal(0, 15, (height, width, 3))
            pixels = pixels if name == "lying" else pixels.transpose(1, 0, 2)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{index}.jpg", quality=90)
    return root


def test_the_first_run_executes_every_component(digits):
    _, _, summary, _ = digits
    assert {component["name"] for component in summary["components"]} == COMPONENTS
    assert not any(component["cached"] for component in summary["components"])
    assert summary["status"] == "pushed"
    assert summary["blessed"] is True


def test_the_summary_says_what_was_read_trained_and_shipped(digits):
    _, _, summary, _ = digits
    assert summary["images"]["read"] == summary["images"]["used"] == 1797
    assert summary["images"]["quarantined"] == 0
    assert 0 < summary["model"]["params"] < 100_000
    shipped = summary["shipped"]
    assert shipped["accuracy"] > 0.9
    assert shipped["deflated_bytes"] < shipped["bytes"] < 200_000
    assert shipped["latency_ms"] > 0
    names = {variant["name"] for variant in summary["variants"]}
    assert {"float32", "float16", "dynamic", "int8", "qat_int8", "qat_int4", "pruned_int8", "pruned_qat_int4"} <= names
    assert {"pruned_clustered_int8", "pruned_clustered_qat"} <= names
    assert summary["dropped_variants"] == []
    assert shipped["name"] in {variant["name"] for variant in summary["variants"]}
    assert summary["acceleration"]["probes"]


def test_what_is_printed_is_the_short_table_and_no_library_noise(digits):
    _, first, _, _ = digits
    assert "1797 read, 1797 used, 0 quarantined" in first.stdout
    assert "Test accuracy" in first.stdout
    assert "of the weakest, " in first.stdout
    assert "Trainer: training, epoch" in first.stdout
    assert "Compression: making and measuring int8" in first.stdout
    assert "Compression: fine-tuning pruned" in first.stdout
    assert "tensorflow" not in (first.stdout + first.stderr).lower()
    assert first.stderr == ""


def test_the_second_run_takes_everything_from_the_cache_and_pushes_nothing_new(digits):
    out, _, _, pushed = digits
    summary = read_summary(out)
    second = json.loads((out.parent / "second.json").read_text())
    assert second == summary
    assert [c["name"] for c in summary["components"] if not c["cached"]] == []
    assert sorted(path.name for path in (out / "pushed" / "tflite").iterdir()) == pushed


def test_the_pushed_bundle_is_complete_and_predicts(digits):
    out, _, summary, (version,) = digits
    bundle = out / "pushed" / "tflite" / version
    manifest = json.loads((bundle / "model.json").read_text())
    content = (bundle / "model.tflite").read_bytes()
    assert manifest["sha256"]["model.tflite"] == hashlib.sha256(content).hexdigest()
    assert len(content) == summary["shipped"]["bytes"]
    assert sorted((bundle / "labels.txt").read_text().split()) == [str(digit) for digit in range(10)]
    images = [sorted((out / "digits" / str(digit)).iterdir())[3] for digit in range(10)]
    answer = trimline("predict", *images, "--output", out)
    assert answer.returncode == 0
    lines = [line.split("\t") for line in answer.stdout.splitlines()]
    assert [Path(path) for path, _, _ in lines] == images
    assert sum(label == str(digit) for digit, (_, label, _) in enumerate(lines)) >= 9
    assert all(0 < float(probability) <= 1 for _, _, probability in lines)


def test_the_pushed_saved_model_answers_from_image_bytes(digits):
    out, _, _, _ = digits
    (directory,) = (out / "pushed" / "saved_model").iterdir()
    signature = tf.saved_model.load(str(directory)).signatures["serving_default"]
    images = [sorted((out / "digits" / str(digit)).iterdir())[5].read_bytes() for digit in range(10)]
    outputs = signature(image_bytes=tf.constant(images))
    np.testing.assert_allclose(outputs["probabilities"].numpy().sum(axis=1), 1.0, rtol=1e-4)
    labels = [label.decode() for label in outputs["label"].numpy()]
    assert sum(label == str(digit) for digit, label in enumerate(labels)) >= 9


def test_status_lists_both_runs(digits):
    out, _, _, (version,) = digits
    answer = trimline("status", "--output", out)
    assert answer.stdout.count("blessed") == 2
    assert "15 ran" in answer.stdout
    assert "15 cached" in answer.stdout
    assert version in answer.stdout
    assert answer.stdout.count("live") == 2
    assert f"@{socket.gethostname()}" in answer.stdout


def test_the_summary_says_which_rules_decided(digits):
    _, _, summary, _ = digits
    gates = summary["gates"]
    assert {(check["gate"], check["artifact"]) for check in gates["checks"]} == {
        (gate, artifact) for gate in ("fidelity", "release", "serving") for artifact in ("saved_model", "tflite")
    }
    assert {check["verdict"] for check in gates["checks"]} == {"passed", "not judged"}
    (drop,) = (c for c in gates["checks"] if (c["artifact"], c["rule"]) == ("tflite", "gate.max_drop"))
    assert drop["interval"]["lower"] <= drop["value"] <= drop["interval"]["upper"]
    for measured in gates["evaluations"]:
        matrix = measured["confusion_matrix"]["candidate"]
        assert sum(map(sum, matrix)) == sum(summary["images"]["splits"]["test"].values())


def test_what_is_live_verifies_until_it_is_tampered_with(digits, tmp_path):
    out, _, _, (version,) = digits
    answer = trimline("verify", out)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    assert f"made from {out / 'digits'}" in answer.stdout
    forged = shutil.copytree(out, tmp_path / "out")
    # The pushes are recorded by their paths, which a copy does not have.
    assert trimline("verify", forged).returncode == 2
    labels = out / "pushed" / "tflite" / version / "labels.txt"
    honest = labels.read_text()
    try:
        labels.write_text(honest.replace("3", "4", 1))
        answer = trimline("verify", out)
    finally:
        labels.write_text(honest)
    assert answer.returncode == 2
    assert answer.stdout.count("FAILED") >= 2
    assert answer.stderr.count("\n") == 1


def test_a_push_elsewhere_serves_the_same_bytes(digits, tmp_path):
    out, _, _, (version,) = digits
    answer = trimline("push", "--to", tmp_path / "there", "--output", out)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    (pushed,) = (tmp_path / "there" / "tflite").iterdir()
    for name in ("model.tflite", "labels.txt", "model.json"):
        assert (pushed / name).read_bytes() == (out / "pushed" / "tflite" / version / name).read_bytes()
    refused = trimline("rollback", "--to", tmp_path / "there", "--output", out)
    assert refused.returncode == 2
    assert "no earlier release" in refused.stderr


def _report(out: Path) -> str:
    return (out / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Runs on photos with some damage among them."""
    root = tmp_path_factory.mktemp("photos")
    data = _write_photos(root / "photos")
    (data / "lying" / "broken.jpg").write_bytes((data / "lying" / "0.jpg").read_bytes()[:300])
    (data / "standing" / "page.jpg").write_text("<html>not found</html>")
    out = root / "out"
    # A user's own package of the same name in the working directory.
    (root / "pipeline").mkdir()
    (root / "pipeline" / "__init__.py").write_text("raise ImportError('not this one')")
    result = trimline("run", "--data", data, "--output", out, *PLAIN, "--set", "data.image_size=32", cwd=root)
    return data, out, result


def test_a_users_photos_are_learned_and_bad_files_quarantined_by_name(photos):
    _, out, result = photos
    assert result.returncode == 0, result.stdout + result.stderr
    images = read_summary(out)["images"]
    assert (images["read"], images["used"], images["quarantined"]) == (122, 120, 2)
    assert {item["path"] for item in images["quarantine"]} == {"lying/broken.jpg", "standing/page.jpg"}
    assert "122 read, 120 used, 2 quarantined" in result.stdout
    page = _report(out)
    assert all(f'{item["path"]}</code></th><td class="text">{item["reason"]}' in page for item in images["quarantine"])


def test_what_was_deleted_is_pushed_again(photos):
    data, out, _ = photos
    before = read_summary(out)
    shutil.rmtree(out / "pushed")
    result = trimline("run", "--data", data, "--output", out, *PLAIN, "--set", "data.image_size=32", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert [Path(push["path"]).is_dir() for push in read_summary(out)["pushed"]] == [True, True]
    assert read_summary(out)["shipped"] == before["shipped"]


def test_a_gate_that_is_not_met_refuses_and_pushes_nothing(photos, tmp_path):
    _, out, _ = photos
    # Noise of both names: no model, however lucky its training, can tell these apart.
    rng = np.random.default_rng(1)
    data = tmp_path / "noise"
    for name in ("lying", "standing"):
        (data / name).mkdir(parents=True)
        for index in range(60):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(data / name / f"{index}.png")
    before = sorted((out / "pushed").rglob("*"))
    options = ("data.image_size=32", "gate.min_accuracy=0.95", "trainer.epochs=1", "acceleration.mode=manual")
    options = [word for option in options for word in ("--set", option)]
    result = trimline("run", "--data", data, "--output", out, *PLAIN, *options, "--verbose")
    assert result.returncode == 3, result.stdout + result.stderr
    assert (out / "logs" / "run.log").read_text() in result.stderr
    assert "refused by the fidelity and the release gate; saved_model, gate.min_accuracy:" in result.stderr
    assert read_summary(out)["status"] == "refused"
    assert "Not shipped" in _report(out)
    assert "This model was not released" in (out / "report" / "model_card.md").read_text()
    assert sorted((out / "pushed").rglob("*")) == before


def test_too_many_bad_files_stop_the_run_with_one_line(tmp_path):
    data = _write_photos(tmp_path / "photos", per_class=10)
    for index in range(8):
        (data / "lying" / f"{index}.jpg").write_bytes(b"")
    result = trimline("run", "--data", data, "--output", tmp_path / "out")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "8 of 20" in result.stderr
    assert "data.max_quarantined" in result.stderr
    page = _report(tmp_path / "out")
    assert "The run failed" in page
    assert "8 of 20" in page
    assert trimline("report", tmp_path / "out", "--rebuild", "--no-open").returncode == 0
    assert "8 of 20" in _report(tmp_path / "out")
    assert not (tmp_path / "out" / "pushed").exists()


def test_the_server_answers_over_http(digits):
    out, _, _, _ = digits
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([TRIMLINE, "serve", str(out), "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        image = sorted((out / "digits" / "7").iterdir())[0]
        with PredictClient(f"http://127.0.0.1:{port}", attempts=30) as client:
            (prediction,) = client.predict_files([image])
        assert prediction.label == "7"
        assert abs(sum(prediction.probabilities) - 1) < 0.02
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15, 143)


def test_two_runs_on_one_output_at_once_are_refused(tmp_path, digits):
    out, _, _, _ = digits
    first = subprocess.Popen(
        [TRIMLINE, "run", "--output", str(out), *QUICK], stdout=subprocess.PIPE, env=os.environ, text=True
    )
    assert first.stdout is not None
    # Killed, it ends its output.
    watchdog = threading.Timer(300, first.kill)
    watchdog.start()
    said = first.stdout.readline()
    watchdog.cancel()
    assert said, "the first run ended without a word, or would not begin"
    second = trimline("run", "--output", out, *QUICK)
    assert first.wait(300) == 0
    assert second.returncode == 2
    assert "another run is writing there" in second.stderr


def test_a_pushed_model_is_compressed_again(digits, tmp_path):
    out, _, summary, _ = digits
    model = summary["pushed"][0]["path"]
    options = ("compression.stages=[qat]", "compression.bits=[4]", "compression.epochs=2")
    wanted = [word for option in options for word in ("--set", option)]
    result = trimline("compress", "--model", model, "--data", out / "digits", "--output", tmp_path, *wanted)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^Compression: fine-tuning qat_int4, epoch \d/2, loss ", result.stdout, re.MULTILINE)
    report = json.loads((tmp_path / "compressed/report.json").read_text())
    assert report["parent"]["validation_accuracy"] > 0.9
    assert f"Selected: {report['selected']}" in result.stdout
    assert (tmp_path / f"compressed/variants/{report['selected']}.tflite").exists()
    assert (tmp_path / "compressed/saved_model/saved_model.pb").exists()
    described = json.loads((tmp_path / "compressed/tflite/model.json").read_text())
    assert sorted(described["labels"]) == [str(digit) for digit in range(10)]


def test_a_model_of_other_classes_is_refused(digits, photos, tmp_path):
    _, _, summary, _ = digits
    data = photos[0]
    result = trimline("compress", "--model", summary["pushed"][0]["path"], "--data", data, "--output", tmp_path)
    assert result.returncode == 2
    assert "answers 10 classes, but the photos have 2" in result.stderr
    assert not (tmp_path / "compressed").exists()


@pytest.fixture(scope="module")
def at_home(digits):
    """The folder in which the documents' own names, out/ and photo.jpg, mean something."""
    out = digits[0]
    for name in ("photo.jpg", "new-photo.jpg"):
        shutil.copy(sorted((out / "digits" / "7").iterdir())[0], out.parent / name)
    return out.parent


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_a_shown_command_does_what_it_says(at_home, words):
    result = trimline(*words, cwd=at_home)
    if words[0] == "rollback":
        # There has been one release only.
        assert (result.returncode, "no earlier release" in result.stderr) == (2, True), result.stdout + result.stderr
        return
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout or words[0] == "init"
