"""The real doors that a release goes through, over one honest release of a small network on the embedded digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tf_keras as keras
from google.protobuf import text_format
from sklearn.datasets import load_digits
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts
from tfx.utils import json_utils, path_utils, proto_utils

from components.compression.bundle import BundleContent, write_bundle
from components.compression.conversion import Converter
from components.compression.measurement import Measurement
from components.gate_evaluator.executor import REASON_PROPERTY
from components.gate_evaluator.executor import Executor as EvaluatorExecutor
from components.release_gate.engine import SERVING, Check, Judged, Limits, judge
from components.release_gate.results import read_evaluation, read_sample
from components.serving_validator.engine import SAVED_MODEL_TOLERANCE, TFLITE_TOLERANCE, validate
from pipeline import gates
from pipeline.beam import IN_PROCESS_RUNNER
from pipeline.config import GateSettings
from trainer_module import features
from trainer_module.evaluation import digest
from trainer_module.export import save_serving_model

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 16
CLASS_NAMES = [str(digit) for digit in range(10)]
_TRAIN = 1400
# Yellowish ink on bluish paper, so that the order of the channels matters.
_INK = np.array([240.0, 200.0, 40.0])
_PAPER = np.array([30.0, 60.0, 160.0])
_TOLERANCES = {"saved_model": SAVED_MODEL_TOLERANCE, "tflite": TFLITE_TOLERANCE}


@dataclasses.dataclass(frozen=True)
class Release:
    """What is judged; each is the root of a TFX artifact.

    Attributes:
        parent: The float model.
        saved_model: The SavedModel that would be pushed.
        tflite: The edge bundle that would be pushed.
        examples: The test photos.
    """

    parent: Path
    saved_model: Path
    tflite: Path
    examples: Path


@dataclasses.dataclass(frozen=True)
class Photos:
    """Labelled photos: uint8 pixels [N, S, S, 3] and int64 class indices [N]."""

    images: np.ndarray
    labels: np.ndarray


def tinted_digits() -> tuple[Photos, Photos]:
    """Returns the handwritten digits that come with scikit-learn, in colour: 1,400 to train with, 397 to judge by."""
    digits = load_digits()
    shade = np.kron(digits.images / 16, np.ones((1, 2, 2)))[..., np.newaxis]
    pixels = np.rint(_PAPER + shade * (_INK - _PAPER)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    train, test = order[:_TRAIN], order[_TRAIN:]
    return Photos(pixels[train], digits.target[train]), Photos(pixels[test], digits.target[test])


def build_network() -> keras.Model:
    """Builds a small network: float32 pixels [N, 16, 16, 3] in [0, 255] -> probabilities [N, 10]."""
    return keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255, input_shape=(SIZE, SIZE, 3)),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(len(CLASS_NAMES)),
            keras.layers.Softmax(),
        ]
    )


def train_network(photos: Photos, seed: int, epochs: int) -> keras.Model:
    """Trains a fresh network; another seed is another honest training."""
    keras.utils.set_random_seed(seed)
    network = build_network()
    network.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(photos.images.astype(np.float32), photos.labels, epochs=epochs, batch_size=64, verbose=0)
    return network


class GateBench:
    """An honest release, and the doors that it and its like go through."""

    def __init__(self, root: Path, epochs: int = 15) -> None:
        """Trains the honest network and exports it as the pipeline does.

        Args:
            root: Empty directory to work in.
            epochs: Epochs of the training.
        """
        self.root = root
        self.train, self.test = tinted_digits()
        self.network = train_network(self.train, seed=1, epochs=epochs)
        self._schema = write_schema(root / "schema")
        self.honest = self.export(self.network, root / "honest")
        self._served: dict[tuple[Path, Path, Path], str] = {}
        self._evaluations: dict[
            tuple[Path, Path | None, Path, float | None], tuple[str, standard_artifacts.ModelBlessing]
        ] = {}

    def export(self, network: keras.Model, directory: Path) -> Release:
        """Exports a network: parent, SavedModel and edge bundle, with the honest test photos.

        Args:
            network: See `build_network`.
            directory: Where to write.
        """
        examples = self.root / "examples"
        if not examples.exists():
            write_examples(examples, self.test.images, [CLASS_NAMES[label] for label in self.test.labels])
        for name in ("parent", "saved_model"):
            save_serving_model(network, str(directory / name / "Format-Serving"), CLASS_NAMES, SIZE)
        bundle = directory / "tflite" / "Format-Serving"
        bundle.parent.mkdir(parents=True)
        content = Converter(network, self.train.images[:256], directory / "conversion").convert("int8")
        write_edge_bundle(content, CLASS_NAMES, bundle)
        return Release(directory / "parent", directory / "saved_model", directory / "tflite", examples)

    def refusal(self, release: Release, gate: GateSettings | None = None) -> Check | None:
        """Sends a release through the doors until one refuses it.

        What is byte for byte the honest release is judged once. The release gate compares with the honest release.

        Args:
            release: What is judged.
            gate: Settings; the defaults if None.

        Returns:
            The first check that refused; None if all passed.
        """
        limits = Limits(**(gate or GateSettings()).model_dump())
        for name in gates.ARTIFACTS:
            for gate_name, reference in (("fidelity", release.parent), ("release", getattr(self.honest, name))):
                refused = self._refused(release, gate_name, name, reference, limits)
                if refused:
                    return refused
        return next(filter(None, (self._refused_by_serving(release, name) for name in gates.ARTIFACTS)), None)

    def checks(self, release: Release, gate_name: str, name: str, reference: Path, limits: Limits) -> list[Check]:
        """Returns every check of one gate and artifact."""
        uri, blessing = self.evaluate(getattr(release, name), reference, release.examples)
        judged = Judged(
            gate=gate_name,
            artifact=name,
            evaluation=read_evaluation(uri),
            reason=blessing.get_string_custom_property(REASON_PROPERTY),
            compared=True,
            class_names=_labels(release.tflite),
        )
        return judge(judged, limits)

    def evaluate(
        self, model: Path, reference: Path | None, examples: Path, min_accuracy: float | None = None
    ) -> tuple[str, standard_artifacts.ModelBlessing]:
        """Runs the pipeline's Evaluator, once for all that ask for the same.

        Args:
            model: Artifact root of the candidate.
            reference: Artifact root of the model to compare with, or None.
            examples: Artifact root of the photos.
            min_accuracy: What TFMA's blessing asks for, the one limit that the Evaluator knows; the default if None.

        Returns:
            Where the evaluation is, and the blessing.
        """
        key = (model, reference, examples, min_accuracy)
        if key not in self._evaluations:
            directory = self.root / "evaluations" / str(len(self._evaluations))
            settings = GateSettings() if min_accuracy is None else GateSettings(min_accuracy=min_accuracy)
            self._evaluations[key] = run_evaluator(
                model, reference, examples, self._schema, directory, gates.eval_config(settings)
            )
        return self._evaluations[key]

    def _refused(self, release: Release, gate_name: str, name: str, reference: Path, limits: Limits) -> Check | None:
        checks = self.checks(release, gate_name, name, reference, limits)
        return next((check for check in checks if check.verdict == "refused"), None)

    def _refused_by_serving(self, release: Release, name: str) -> Check | None:
        key = (getattr(release, name), release.parent, release.examples)
        if key not in self._served:
            uri, _ = self.evaluate(*key)
            directory = Path(path_utils.serving_model_path(str(key[0])))
            images = {digest(encoded): encoded for encoded in map(encode, self.test.images)}
            self._served[key] = validate(directory, images, read_sample(uri), _TOLERANCES[name])
        reason = self._served[key]
        return Check(SERVING, name, "served alike", "refused", reason) if reason else None


def run_evaluator(
    model: Path, reference: Path | None, examples: Path, schema: Path, directory: Path, eval_config: Any
) -> tuple[str, standard_artifacts.ModelBlessing]:
    """Runs a GateEvaluator's executor as the pipeline wires it.

    Args:
        model: Artifact root of the candidate.
        reference: Artifact root of the model to compare with, or None.
        examples: Artifact root of the photos, with a split "test".
        schema: Artifact root of their schema.
        directory: Where evaluation and blessing go.
        eval_config: From `gates.eval_config`.

    Returns:
        Where the evaluation is, and the blessing.
    """
    example_artifact = artifact(standard_artifacts.Examples, examples)
    example_artifact.split_names = '["test"]'
    example_artifact.set_string_custom_property("file_format", "tfrecords_gzip")
    payload = example_gen_pb2.PayloadFormat.Name(example_gen_pb2.FORMAT_TF_EXAMPLE)
    example_artifact.set_string_custom_property("payload_format", payload)
    blessing = artifact(standard_artifacts.ModelBlessing, directory / "blessing")
    (directory / "blessing").mkdir(parents=True)
    # Beam's default runner would look for a program on the network first.
    context = EvaluatorExecutor.Context(make_beam_pipeline_fn=lambda: beam.Pipeline(runner=IN_PROCESS_RUNNER))
    EvaluatorExecutor(context).Do(
        {
            "examples": [example_artifact],
            "schema": [artifact(standard_artifacts.Schema, schema)],
            "model": [artifact(standard_artifacts.Model, model)],
            "baseline_model": [artifact(standard_artifacts.Model, reference)] if reference else [],
        },
        {
            "evaluation": [artifact(standard_artifacts.ModelEvaluation, directory / "evaluation")],
            "blessing": [blessing],
        },
        {
            "eval_config": proto_utils.proto_to_json(eval_config),
            "example_splits": json_utils.dumps(["test"]),
            "module_path": "trainer_module.evaluation",
        },
    )
    return str(directory / "evaluation"), blessing


def artifact(kind: type, path: Path, number: int = 1) -> Any:
    """Makes a TFX artifact of what lies in a directory."""
    made = kind()
    made.uri = str(path)
    made.id = number
    return made


def encode(image: np.ndarray) -> bytes:
    """Returns the PNG file of an image."""
    return tf.io.encode_png(image).numpy()


def write_examples(directory: Path, images: np.ndarray, names: Sequence[str]) -> None:
    """Writes a test split as ImageExampleGen does."""
    split = directory / "Split-test"
    split.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(split / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for image, name in zip(images, names, strict=True):
            writer.write(example_of(encode(image), image, name).SerializeToString())


def example_of(encoded: bytes, image: np.ndarray, name: str) -> tf.train.Example:
    """Makes the raw example of an image file with these pixels."""
    example = tf.train.Example()
    values = example.features.feature
    values[features.IMAGE_ENCODED].bytes_list.value.append(encoded)
    values[features.CLASS_TEXT].bytes_list.value.append(name.encode())
    values[features.IMAGE_HEIGHT].int64_list.value.append(image.shape[0])
    values[features.IMAGE_WIDTH].int64_list.value.append(image.shape[1])
    values[features.IMAGE_BRIGHTNESS].float_list.value.append(float(image.mean() / 255))
    return example


def write_edge_bundle(content: bytes, names: Sequence[str], directory: Path, variant: str = "int8") -> None:
    """Writes the bundle of a .tflite file; its figures are placeholders that no gate reads."""
    file = directory.parent / "converted.tflite"
    file.write_bytes(content)
    measurement = Measurement(**{field.name: 1 for field in dataclasses.fields(Measurement)})
    write_bundle(BundleContent(variant, file, names, measurement, {"model": 1}), directory)
    file.unlink()


def write_schema(directory: Path, leave_out: str = "") -> Path:
    """Writes the schema of the test photos, without a feature if one is named."""
    directory.mkdir(parents=True)
    schema = schema_pb2.Schema()
    kinds = {
        features.IMAGE_ENCODED: schema_pb2.BYTES,
        features.CLASS_TEXT: schema_pb2.BYTES,
        features.IMAGE_HEIGHT: schema_pb2.INT,
        features.IMAGE_WIDTH: schema_pb2.INT,
        features.IMAGE_BRIGHTNESS: schema_pb2.FLOAT,
    }
    for name, kind in kinds.items():
        if name == leave_out:
            continue
        feature = schema.feature.add(name=name, type=kind)
        feature.shape.dim.add(size=1)
        feature.presence.min_fraction = 1.0
    (directory / "schema.pbtxt").write_text(text_format.MessageToString(schema))
    return directory


def _labels(bundle: Path) -> list[str]:
    file = bundle / "Format-Serving" / "labels.txt"
    return file.read_text().splitlines() if file.exists() else []
