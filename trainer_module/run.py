"""TFX Trainer's entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow_transform as tft

from trainer_module import export, input_pipeline
from trainer_module.preprocessing import class_names
from trainer_module.settings import TrainingSettings
from trainer_module.training import train

if TYPE_CHECKING:
    from tfx.v1.components import FnArgs

# Beside Format-Serving in the model artifact: parameters, history, acceleration.
TRAINING_FILE = "training.json"


def run_fn(fn_args: FnArgs) -> None:
    """Trains the model and writes it as Keras model, as SavedModel and as a record of its training.

    Args:
        fn_args: Files of the transformed splits, the transform graph, output directories, and in
            `custom_config["training"]` the `TrainingSettings` as JSON.
    """
    settings = TrainingSettings.model_validate_json(fn_args.custom_config["training"])
    names = class_names(tft.TFTransformOutput(fn_args.transform_output))
    result = train(
        settings,
        input_pipeline.measure(fn_args.train_files),
        input_pipeline.measure(fn_args.eval_files),
        len(names),
        _local_directory(fn_args.model_run_dir),
    )
    artifact = Path(fn_args.serving_model_dir).parent
    result.model.save(artifact / export.KERAS_MODEL_FILE)
    export.save_serving_model(result.model, fn_args.serving_model_dir, names, settings.image_size)
    (artifact / TRAINING_FILE).write_text(json.dumps(result.to_json(), indent=2))


def _local_directory(path: str) -> Path:
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    return directory
