"""What `trimline compress` leaves when it cannot write what it has made."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn

import pytest

from components.compression.data import LabelledImages, Splits
from components.compression.fine_tuning import FineTuner
from pipeline import compress, local_runner
from pipeline.config import PipelineSettings
from pipeline.workspace import Workspace
from tests.transformed_files import striped_images
from trainer_module import export
from trainer_module.input_pipeline import from_arrays
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.component

SIZE = 16


def full_disk(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_fine_tuning(*_: object) -> NoReturn:
    raise AssertionError("it is fine-tuned again")


def test_a_disk_that_is_full_at_the_end_costs_no_fine_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = striped_images(64, SIZE)
    splits = Splits(LabelledImages(*photos), LabelledImages(*photos), from_arrays(*photos))
    monkeypatch.setattr(local_runner, "run_pipeline", lambda *_, **__: None)
    monkeypatch.setattr(compress, "_transformed", lambda *_: (splits, ["lying", "standing"], "examples"))
    model = tmp_path / "model.keras"
    build_model(ModelSettings(width=0.25), SIZE, 2).save(model)
    # It has learned nothing by which its order could be told.
    labels = tmp_path / "labels.txt"
    labels.write_text("lying\nstanding\n")
    workspace = Workspace(tmp_path / "out")
    workspace.prepare()
    workspace.write_settings(
        PipelineSettings.model_validate(
            {
                "seed": 0,
                "trainer": {"batch_size": 8},
                "acceleration": {"mode": "manual"},
                "compression": {"stages": ["prune"], "epochs": 1, "budget": {"max_accuracy_drop": 1.0}},
            }
        )
    )
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
