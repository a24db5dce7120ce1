"""`trimline compress` with what it is given, and what it leaves when it cannot write what it has made."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any, NoReturn

import keras as keras3
import numpy as np
import pytest
import tf_keras as keras
from PIL import Image

from components.compression.data import LabelledImages, Splits
from components.compression.fine_tuning import FineTuner
from pipeline import compress, local_runner
from pipeline.config import PipelineSettings
from pipeline.workspace import Workspace
from tests.transformed_files import striped_images
from trainer_module import export
from trainer_module.errors import UserError
from trainer_module.input_pipeline import from_arrays

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.component

SIZE = 16


def full_disk(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_fine_tuning(*_: object) -> NoReturn:
    raise AssertionError("it is fine-tuned again")


def no_pipeline(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the photos are read")


def stripe_reader(library: Any) -> Any:
    """Builds a classifier that tells lying from standing stripes, of the layers of Keras 2 or 3."""
    model = library.Sequential(
        [
            library.Input((SIZE, SIZE, 3)),
            library.layers.Rescaling(1 / 255),
            library.layers.Conv2D(32, 3, activation="relu"),
            library.layers.GlobalAveragePooling2D(),
            library.layers.Dense(2, activation="softmax"),
        ]
    )
    # Most of the filters do nothing, but have weights to prune.
    kernel = np.random.default_rng(0).normal(0, 0.01, (3, 3, 3, 32))
    kernel[..., :4] = 0
    across = np.array([1, 0, -1])[:, None, None]
    for filters, differences in enumerate((across, -across, across.swapaxes(0, 1), -across.swapaxes(0, 1))):
        kernel[..., filters] = differences
    answers = np.zeros((32, 2))
    answers[:2, 0] = answers[2:4, 1] = 5
    model.set_weights([kernel, np.zeros(32), answers, np.zeros(2)])
    return model


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """One whose photos have been read and transformed."""
    images, lying_first = striped_images(64, SIZE)
    photos = (images, 1 - lying_first)
    splits = Splits(LabelledImages(*photos), LabelledImages(*photos), from_arrays(*photos))
    monkeypatch.setattr(local_runner, "run_pipeline", lambda *_, **__: None)
    monkeypatch.setattr(compress, "_transformed", lambda *_: (splits, ["standing", "lying"], "examples"))
    for name in ("lying", "standing"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "photos" / name / "1.png")
    prepared = Workspace(tmp_path / "out")
    prepared.prepare()
    return prepared


def write_settings(workspace: Workspace, **compression: Any) -> None:
    settings = {
        "seed": 0,
        "data": {"path": str(workspace.root.parent / "photos")},
        "trainer": {"batch_size": 8},
        "acceleration": {"mode": "manual"},
        "compression": {"budget": {"max_accuracy_drop": 1.0}, **compression},
    }
    workspace.write_settings(PipelineSettings.model_validate(settings))


def test_a_disk_that_is_full_at_the_end_costs_no_fine_tuning(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(workspace, stages=["prune"], epochs=1)
    model = tmp_path / "model.keras"
    stripe_reader(keras).save(model)
    labels = tmp_path / "labels.txt"
    labels.write_text("lying\nstanding\n")
    with monkeypatch.context() as broken:
        broken.setattr(export, "save_serving_model", full_disk)
        with pytest.raises(OSError, match="No space left"):
            compress.run(workspace, model, labels_file=labels)
    assert list(workspace.compression_checkpoints.glob("*/pruned_0.5.npz"))
    monkeypatch.setattr(FineTuner, "_fit", no_fine_tuning)
    compress.run(workspace, model, labels_file=labels)
    assert (workspace.compressed / "saved_model/saved_model.pb").exists()
    assert list(workspace.compression_checkpoints.iterdir()) == []
    assert (workspace.compressed / "variants/pruned_float32.tflite").exists()


def test_a_model_of_keras_3_is_compressed(workspace: Workspace, tmp_path: Path) -> None:
    write_settings(workspace, stages=["quantize"])
    stripe_reader(keras3).save(tmp_path / "model.keras")
    compress.run(workspace, tmp_path / "model.keras")
    report = json.loads((workspace.compressed / "report.json").read_text())
    assert report["parent"]["validation_accuracy"] == 1
    assert report["class_order"] == {"source": "alphabetical", "names": ["lying", "standing"]}
    assert report["dropped"] == []
    assert (workspace.compressed / "saved_model/saved_model.pb").exists()


def test_a_layer_that_a_stage_does_not_know_is_refused_before_the_photos_are_read(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(workspace, stages=["quantize", "qat"])
    monkeypatch.setattr(local_runner, "run_pipeline", no_pipeline)
    image = keras3.Input((SIZE, SIZE, 3))
    gated = keras3.layers.GlobalAveragePooling2D()(keras3.layers.Conv2D(8, 3, activation="hard_silu", name="c")(image))
    keras3.Model(image, keras3.layers.Dense(2, activation="softmax")(gated)).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"qat cannot work on layer 'c_activation_times' \(Multiply"):
        compress.run(workspace, tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (3, None, "answers 3 classes, but the photos have 2"),
        (2, "lying\nleaning\n", "labels.txt: knows the class 'leaning' where the photos have 'standing'"),
        (2, "lying\n", "labels.txt: names 1 classes, but the photos have 2"),
    ],
)
def test_other_classes_are_refused_before_the_photos_are_read(
    classes: int,
    labels: str | None,
    message: str,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_settings(workspace)
    monkeypatch.setattr(local_runner, "run_pipeline", no_pipeline)
    image = keras.Input((SIZE, SIZE, 3))
    answer = keras.layers.Dense(classes, activation="softmax")(keras.layers.Flatten()(image))
    keras.Model(image, answer).save(tmp_path / "model.keras")
    if labels is not None:
        (tmp_path / "labels.txt").write_text(labels)
    with pytest.raises(UserError, match=message):
        compress.run(
            workspace, tmp_path / "model.keras", labels_file=None if labels is None else tmp_path / "labels.txt"
        )
