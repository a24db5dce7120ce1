"""The Compression component: its real executor on real artifacts, and inside a real pipeline."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from apache_beam.options.pipeline_options import StandardOptions
from tfx import v1 as tfx
from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.compression import executor
from components.compression.component import Compression
from components.compression.executor import Executor
from components.compression.fine_tuning import FineTuner
from components.compression.settings import BudgetSettings, CompressionSettings
from components.compression.spec import CompressionReport
from pipeline.beam import IN_PROCESS_RUNNER
from tests.transformed_files import striped_images, write_transformed
from trainer_module import features
from trainer_module.errors import UserError
from trainer_module.models import build_model
from trainer_module.settings import AccelerationSettings, ModelSettings, TrainingSettings
from trainer_module.tflite import TFLiteClassifier

pytestmark = pytest.mark.component


IMAGE_SIZE = 16
CLASS_NAMES = ["liegend", "stehend ü"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """URIs of Compression's inputs on disk."""

    model: Path
    examples: Path
    transform_graph: Path

    def artifacts(self) -> dict[str, list]:
        model, examples = standard_artifacts.Model(), standard_artifacts.Examples()
        graph = standard_artifacts.TransformGraph()
        examples.split_names = json.dumps(list(features.SPLITS))
        for number, (artifact, uri) in enumerate(
            [(model, self.model), (examples, self.examples), (graph, self.transform_graph)], start=7
        ):
            artifact.uri, artifact.id = str(uri), number
        return {"model": [model], "transformed_examples": [examples], "transform_graph": [graph]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    root = tmp_path_factory.mktemp("inputs")
    for seed, (split, count) in enumerate(zip(features.SPLITS, (128, 40, 10), strict=True)):
        images, labels = striped_images(count, IMAGE_SIZE, seed)
        write_transformed(root / f"examples/Split-{split}/transformed-00000-of-00001.gz", images, labels)
    vocabulary = root / f"transform_graph/transform_fn/assets/{features.LABEL_VOCABULARY}"
    vocabulary.parent.mkdir(parents=True)
    vocabulary.write_text("".join(f"{name}\n" for name in CLASS_NAMES), encoding="utf-8")
    (root / "model").mkdir()
    trained_model().save(root / "model/keras_model.keras")
    return Inputs(root / "model", root / "examples", root / "transform_graph")


def trained_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    network = build_model(ModelSettings(architecture="separable", width=0.25), IMAGE_SIZE, len(CLASS_NAMES))
    network.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    images, labels = striped_images(128, IMAGE_SIZE)
    network.fit(images.astype(np.float32), labels, batch_size=32, epochs=20, verbose=0)
    return network


def outputs_under(root: Path) -> dict[str, list]:
    types = {
        "saved_model": standard_artifacts.Model,
        "tflite_model": standard_artifacts.Model,
        "report": CompressionReport,
    }
    artifacts = {}
    for key, artifact_type in types.items():
        artifact = artifact_type()
        artifact.uri = str(root / key)
        (root / key).mkdir(parents=True)
        artifacts[key] = [artifact]
    return artifacts


def properties(checkpoints: Path, folded: bool = True, **settings: object) -> dict[str, str]:
    training = TrainingSettings(
        image_size=IMAGE_SIZE, seed=3, acceleration=AccelerationSettings(fold_batch_norm=folded)
    )
    wanted = {"stages": ["quantize"], "budget": {"max_accuracy_drop": 0.05}} | settings
    return {
        "settings": CompressionSettings.model_validate(wanted).model_dump_json(),
        "training": training.model_dump_json(),
        "checkpoints": str(checkpoints),
        "version": "0.1.0",
    }


@pytest.fixture(scope="module")
def outputs(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    Executor().Do(inputs.artifacts(), outputs_under(root), properties(root / "checkpoints"))
    return root


def test_the_same_seed_makes_the_same_files_whatever_the_process_did_before(inputs: Inputs, tmp_path: Path) -> None:
    contents = []
    for number in (11, 12):
        # As if other components had run, or had not.
        keras.utils.set_random_seed(number)
        root = tmp_path / str(number)
        root.mkdir()
        wanted = properties(
            root / "checkpoints", stages=["prune", "cluster", "quantize"], clusters=4, epochs=1, budget={}
        )
        Executor().Do(inputs.artifacts(), outputs_under(root), wanted)
        contents.append({path.name: path.read_bytes() for path in (root / "report/variants").iterdir()})
    assert len(contents[0]) > 5
    assert contents[0] == contents[1]


def test_report_tells_all_variants(outputs: Path) -> None:
    report = json.loads((outputs / "report/report.json").read_text(encoding="utf-8"))
    names = {row["name"] for row in report["variants"]}
    assert {"float32", "float16", "dynamic", "int8"} <= names
    assert {path.stem for path in (outputs / "report/variants").iterdir()} == names
    assert report["parent"]["validation_images"] == 40
    assert report["budget"] == {
        "max_accuracy_drop": 0.05,
        "max_bytes": None,
        "max_latency_ms": None,
        "size": "file",
        "balanced": False,
    }
    assert report["seconds"] > 0


def test_tflite_model_is_the_selected_variant_with_lineage(outputs: Path) -> None:
    report = json.loads((outputs / "report/report.json").read_text(encoding="utf-8"))
    bundle = Path(path_utils.serving_model_path(str(outputs / "tflite_model")))
    description = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    assert sorted(path.name for path in bundle.iterdir()) == ["labels.txt", "model.json", "model.tflite"]
    assert description["name"] == report["selected"]
    assert description["labels"] == CLASS_NAMES
    assert description["lineage"] == {"model": 7, "transformed_examples": 8, "transform_graph": 9}
    selected = outputs / f"report/variants/{report['selected']}.tflite"
    assert (bundle / "model.tflite").read_bytes() == selected.read_bytes()


def test_both_models_know_the_stripes(outputs: Path) -> None:
    images, labels = striped_images(20, IMAGE_SIZE, seed=9)
    bundle = Path(path_utils.serving_model_path(str(outputs / "tflite_model")))
    from_bytes = TFLiteClassifier(bundle / "model.tflite").predict(images)
    saved_model = tf.saved_model.load(path_utils.serving_model_path(str(outputs / "saved_model")))
    answer = saved_model.signatures["serving_images"](images=tf.constant(images))
    np.testing.assert_array_equal(from_bytes.argmax(axis=1), labels)
    assert [name.decode() for name in answer["label"].numpy()] == [CLASS_NAMES[label] for label in labels]
    np.testing.assert_allclose(answer["probabilities"].numpy(), from_bytes, atol=0.05)


def is_folded(root: Path) -> bool:
    saved_model = Path(path_utils.serving_model_path(str(root / "saved_model")))
    return b"FusedBatchNorm" not in (saved_model / "saved_model.pb").read_bytes()


def test_the_saved_model_is_folded_if_wanted(outputs: Path, inputs: Inputs, tmp_path: Path) -> None:
    assert is_folded(outputs)
    Executor().Do(inputs.artifacts(), outputs_under(tmp_path), properties(tmp_path / "checkpoints", folded=False))
    assert not is_folded(tmp_path)


def test_in_a_pipeline_the_stock_pusher_takes_the_bundle(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The orchestrator has no flags for Beam, whose default runner would look for a program on the network first.
    monkeypatch.setattr(StandardOptions, "DEFAULT_RUNNER", IN_PROCESS_RUNNER)
    model = tfx.dsl.Importer(str(inputs.model), standard_artifacts.Model).with_id("Model")
    examples = tfx.dsl.Importer(
        str(inputs.examples), standard_artifacts.Examples, properties={"split_names": json.dumps(features.SPLITS)}
    ).with_id("Examples")
    graph = tfx.dsl.Importer(str(inputs.transform_graph), standard_artifacts.TransformGraph).with_id("Graph")
    compression = Compression(
        model.outputs["result"],
        examples.outputs["result"],
        graph.outputs["result"],
        settings=CompressionSettings(stages=["quantize"], budget=BudgetSettings(max_bytes=10**6)),
        training=TrainingSettings(image_size=IMAGE_SIZE),
        checkpoints=str(tmp_path / "checkpoints"),
        version="0.1.0",
    )
    destination = tfx.proto.PushDestination.Filesystem(base_directory=str(tmp_path / "pushed"))
    pusher = tfx.components.Pusher(
        model=compression.outputs["tflite_model"],
        push_destination=tfx.proto.PushDestination(filesystem=destination),
    )
    pipeline = tfx.dsl.Pipeline(
        "compression",
        str(tmp_path / "root"),
        components=[model, examples, graph, compression, pusher],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(tmp_path / "metadata.db")
        ),
    )
    BeamDagRunner().run(pipeline)
    [version] = (tmp_path / "pushed").iterdir()
    description = json.loads((version / "model.json").read_text(encoding="utf-8"))
    assert description["name"].startswith("int8")
    assert description["labels"] == CLASS_NAMES
    assert len(set(description["lineage"].values())) == 3


def no_fine_tuning(*_: object) -> NoReturn:
    raise AssertionError("it is fine-tuned again")


def full_disk(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_neither_a_limit_that_is_relaxed_nor_a_full_disk_costs_a_fine_tuning(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "checkpoints"
    strict, relaxed = (
        properties(checkpoints, stages=["prune"], epochs=1, budget=budget) for budget in ({"max_bytes": 100}, {})
    )
    with pytest.raises(UserError, match=r"compression\.budget\.max_bytes 100"):
        Executor().Do(inputs.artifacts(), outputs_under(tmp_path / "strict"), strict)
    assert [path for path in (tmp_path / "strict").rglob("*") if path.is_file()] == []
    monkeypatch.setattr(FineTuner, "_fit", no_fine_tuning)
    with monkeypatch.context() as broken:
        broken.setattr(executor, "save_serving_model", full_disk)
        with pytest.raises(OSError, match="No space left"):
            Executor().Do(inputs.artifacts(), outputs_under(tmp_path / "full"), relaxed)
    assert list(checkpoints.glob("compression-*/pruned_0.5.npz"))
    Executor().Do(inputs.artifacts(), outputs_under(tmp_path / "again"), relaxed)
    report = json.loads((tmp_path / "again/report/report.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in report["variants"]] == ["float32", "pruned_float32"]
    assert list(checkpoints.iterdir()) == []
