"""The real Evaluator over the bytes that would ship: honest models pass, sabotaged ones do not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.evaluator import executor
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts
from tfx.utils import json_utils, proto_utils

from pipeline import gates
from pipeline.config import GateSettings
from tests.transformed_files import striped_images
from trainer_module import classifiers, features
from trainer_module.export import save_serving_model

pytestmark = pytest.mark.component


CLASS_NAMES = ["lying", "standing"]
SIZE = 16


@pytest.fixture(scope="module")
def model():
    network = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255, input_shape=(SIZE, SIZE, 3)),
            keras.layers.Conv2D(4, 5, activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    keras.utils.set_random_seed(1)
    network.compile(keras.optimizers.Adam(0.03), "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = striped_images(256, SIZE)
    history = network.fit(images.astype(np.float32), labels, epochs=12, verbose=0)
    assert history.history["accuracy"][-1] > 0.98
    return network


@pytest.fixture(scope="module")
def workbench(tmp_path_factory, model):
    """Writes the test split, its schema, the float parent and the shipped bundle."""
    root = tmp_path_factory.mktemp("workbench")
    _write_examples(root / "examples", [CLASS_NAMES[label] for label in striped_images(60, SIZE, seed=2)[1]])
    (root / "schema").mkdir()
    schema = schema_pb2.Schema()
    for name in (features.IMAGE_ENCODED, features.CLASS_TEXT):
        feature = schema.feature.add(name=name, type=schema_pb2.BYTES)
        feature.shape.dim.add(size=1)
        feature.presence.min_fraction = 1.0
    (root / "schema" / "schema.pbtxt").write_text(text_format.MessageToString(schema))
    save_serving_model(model, str(root / "parent" / "Format-Serving"), CLASS_NAMES, SIZE)
    bundle = root / "bundle" / "Format-Serving"
    bundle.mkdir(parents=True)
    (bundle / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    (bundle / "labels.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    return root


def _write_examples(directory: Path, names: list[str]) -> None:
    split = directory / "Split-test"
    split.mkdir(parents=True)
    images, _ = striped_images(60, SIZE, seed=2)
    with tf.io.TFRecordWriter(str(split / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for image, name in zip(images, names, strict=True):
            example = tf.train.Example()
            values = example.features.feature
            values[features.IMAGE_ENCODED].bytes_list.value.append(tf.io.encode_png(image).numpy())
            values[features.CLASS_TEXT].bytes_list.value.append(name.encode())
            writer.write(example.SerializeToString())


def _artifact(kind, path: Path):
    artifact = kind()
    artifact.uri = str(path)
    artifact.id = 1
    return artifact


def _judge(
    tmp_path: Path, workbench: Path, bundle: Path, *, baseline: bool = True, examples: Path | None = None, **gate: float
) -> bool:
    """Runs TFX's Evaluator as the pipeline wires it; returns whether the bundle was blessed."""
    example_artifact = _artifact(standard_artifacts.Examples, examples or workbench / "examples")
    example_artifact.split_names = '["test"]'
    example_artifact.set_string_custom_property("file_format", "tfrecords_gzip")
    payload = example_gen_pb2.PayloadFormat.Name(example_gen_pb2.FORMAT_TF_EXAMPLE)
    example_artifact.set_string_custom_property("payload_format", payload)
    (tmp_path / "blessing").mkdir()
    blessing = _artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
    inputs = {
        "examples": [example_artifact],
        "schema": [_artifact(standard_artifacts.Schema, workbench / "schema")],
        "model": [_artifact(standard_artifacts.Model, bundle)],
        "baseline_model": [_artifact(standard_artifacts.Model, workbench / "parent")] if baseline else [],
    }
    outputs = {
        "evaluation": [_artifact(standard_artifacts.ModelEvaluation, tmp_path / "evaluation")],
        "blessing": [blessing],
    }
    executor.Executor().Do(
        inputs,
        outputs,
        {
            "eval_config": proto_utils.proto_to_json(gates.fidelity_config(GateSettings(**gate))),
            "example_splits": json_utils.dumps(["test"]),
            "module_path": "trainer_module.evaluation",
        },
    )
    return blessing.get_int_custom_property("blessed") == 1


def _sabotaged(workbench: Path, tmp_path: Path) -> Path:
    return shutil.copytree(workbench / "bundle", tmp_path / "sabotaged")


def test_an_honest_tflite_is_blessed_with_and_without_a_baseline(tmp_path, workbench):
    for name, baseline in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        assert _judge(tmp_path / name, workbench, workbench / "bundle", baseline=baseline)


def test_the_floor_refuses(tmp_path, workbench):
    (tmp_path / "wrong").mkdir()
    bundle = _sabotaged(workbench, tmp_path)
    (bundle / "Format-Serving" / "labels.txt").write_text("standing\nlying\n")
    assert not _judge(tmp_path / "wrong", workbench, bundle, baseline=False, min_accuracy=0.5)


def test_swapped_labels_are_refused_by_the_drop_alone(tmp_path, workbench):
    bundle = _sabotaged(workbench, tmp_path)
    (bundle / "Format-Serving" / "labels.txt").write_text("standing\nlying\n")
    assert not _judge(tmp_path, workbench, bundle, min_accuracy=0.0)


def test_a_truncated_tflite_is_no_pass(tmp_path, workbench):
    bundle = _sabotaged(workbench, tmp_path)
    content = (bundle / "Format-Serving" / "model.tflite").read_bytes()
    (bundle / "Format-Serving" / "model.tflite").write_bytes(content[: len(content) // 2])
    with pytest.raises(Exception, match=r"(?i)model"):
        _judge(tmp_path, workbench, bundle, min_accuracy=0.0, max_drop=1.0)


def test_a_class_that_the_model_does_not_know_is_no_pass(tmp_path, workbench):
    _write_examples(tmp_path / "examples", ["lying", "standing", "leaning"] * 20)
    with pytest.raises(Exception, match="'leaning', which the model was never trained on"):
        _judge(tmp_path, workbench, workbench / "bundle", examples=tmp_path / "examples")


def test_both_kinds_of_model_answer_alike_from_image_bytes(workbench):
    images, _ = striped_images(20, SIZE, seed=3)
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    saved, tflite = (
        classifiers.load_classifier(str(workbench / name / "Format-Serving")) for name in ("parent", "bundle")
    )
    assert saved.class_names == tflite.class_names == CLASS_NAMES
    np.testing.assert_allclose(saved.predict(encoded), tflite.predict(encoded), atol=1e-5)
