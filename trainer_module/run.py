"""TFX Trainer's entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf
import tensorflow_transform as tft

from trainer_module import acceleration, export, input_pipeline
from trainer_module.checkpoints import fingerprint
from trainer_module.preprocessing import class_names
from trainer_module.settings import TrainingSettings
from trainer_module.training import train

if TYPE_CHECKING:
    import numpy as np
    from tfx.v1.components import FnArgs

# Beside Format-Serving in the model artifact: parameters, history, acceleration.
TRAINING_FILE = "training.json"


def run_fn(fn_args: FnArgs) -> None:
    """Trains the model and writes it as Keras model, as SavedModel and as a record of its training.

    Args:
        fn_args: Files of the transformed splits, the transform graph, output directories, and in `custom_config`
            "training": the `TrainingSettings` as JSON; "checkpoints": a directory that outlives this execution;
            "version": whatever else the result depends on.
    """
    settings = TrainingSettings.model_validate_json(fn_args.custom_config["training"])
    # First of all, because several hosts must find each other before TensorFlow computes anything.
    strategy = acceleration.distribution_strategy(settings.acceleration)
    names = class_names(tft.TFTransformOutput(fn_args.transform_output))
    checkpoint_directory = _checkpoint_directory(fn_args, settings, names)
    validation = input_pipeline.measure(fn_args.eval_files)
    result = train(
        settings,
        input_pipeline.measure(fn_args.train_files),
        validation,
        len(names),
        _local_directory(fn_args.model_run_dir),
        checkpoint_directory=checkpoint_directory,
        strategy=strategy,
    )
    # On every host, each into a directory of its own: TFX fails a Trainer that leaves no model.
    artifact = Path(fn_args.serving_model_dir).parent
    result.model.save(artifact / export.KERAS_MODEL_FILE)
    export.save_serving_model(
        result.model,
        fn_args.serving_model_dir,
        names,
        settings.image_size,
        fold=settings.acceleration.fold_batch_norm,
        images=_photos(validation, settings.image_size),
    )
    (artifact / TRAINING_FILE).write_text(json.dumps(result.to_json(), indent=2))
    if strategy.extended.should_checkpoint:
        # Only now, or a run that is killed while it exports would have to train again.
        tf.io.gfile.rmtree(checkpoint_directory)


def _checkpoint_directory(fn_args: FnArgs, settings: TrainingSettings, names: list[str]) -> str:
    """Names a directory that other settings, data or versions never share."""
    config = fn_args.custom_config
    own = fingerprint(
        # Folding is the export's: where its check fails, and another setting is tried, nothing is trained again.
        settings.model_dump(mode="json", exclude={"acceleration": {"fold_batch_norm"}}),
        config["version"],
        input_pipeline.ORDER,
        tf.__version__,
        fn_args.train_files,
        fn_args.eval_files,
        names,
    )
    return f"{config['checkpoints']}/{own}"


def _photos(validation: input_pipeline.Records, image_size: int) -> np.ndarray:
    """Takes some photos to check the export on, from where they are kept."""
    batches = input_pipeline.evaluation_batches(validation, image_size, export.CHECKED_IMAGES)
    return next(batches.as_numpy_iterator())[0]


def _local_directory(path: str) -> Path:
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    return directory
