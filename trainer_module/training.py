"""The training loop: optimizer, schedule, callbacks, and what was learned on the way."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tf_keras as keras

from trainer_module import acceleration, input_pipeline
from trainer_module.errors import UserError
from trainer_module.models import build_model

if TYPE_CHECKING:
    from trainer_module.settings import TrainerSettings, TrainingSettings

PROGRESS_FILE = "progress.json"
BEST_WEIGHTS_FILE = "best.weights.h5"
_SECONDS_BETWEEN_PROGRESS = 0.5
# Not the accuracy: on a small validation split many epochs tie, and the first of them is the least trained.
_MONITORED = "val_loss"


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """A trained model and how it came about.

    Attributes:
        model: The weights of the epoch with the lowest validation loss, computing in float32.
        history: Metric values by name, one for each epoch.
        choice: How the steps were executed.
        seconds: Time of the training itself, without the choice of the acceleration.
    """

    model: keras.Model
    history: dict[str, list[float]]
    choice: acceleration.Choice
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns everything but the weights as plain JSON values."""
        best = self.history[_MONITORED].index(min(self.history[_MONITORED]))
        return {
            "params": self.model.count_params(),
            "validation_accuracy": self.history["val_accuracy"][best],
            "best_epoch": best + 1,
            "epochs": len(self.history["val_accuracy"]),
            "seconds": self.seconds,
            "history": self.history,
            "acceleration": self.choice.to_json(),
        }


class ProgressWriter(keras.callbacks.Callback):
    """Keeps a small JSON file up to date, from which the command line shows the progress of the training."""

    def __init__(self, path: Path) -> None:
        """Creates the callback.

        Args:
            path: The file; it is replaced as a whole, so a reader never sees half of it.
        """
        super().__init__()
        self._path = path
        self._epoch = 0
        self._validation_accuracy: float | None = None
        self._next_write = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch."""
        del logs
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the running training metrics, at most twice a second."""
        if time.monotonic() < self._next_write:
            return
        self._next_write = time.monotonic() + _SECONDS_BETWEEN_PROGRESS
        self._write(batch + 1, logs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the metrics of the whole epoch."""
        del epoch
        self._validation_accuracy = (logs or {}).get("val_accuracy")
        self._write(self.params["steps"], logs or {})

    def _write(self, step: int, logs: dict[str, float]) -> None:
        progress = {
            "epoch": self._epoch + 1,
            "epochs": self.params["epochs"],
            "step": step,
            "steps": self.params["steps"],
            "accuracy": _plain(logs.get("accuracy")),
            "validation_accuracy": _plain(self._validation_accuracy),
        }
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(progress))
        os.replace(temporary, self._path)  # noqa: PTH105


def train(
    settings: TrainingSettings,
    train_records: input_pipeline.Records,
    validation_records: input_pipeline.Records,
    classes: int,
    run_directory: Path,
) -> TrainingResult:
    """Trains a classifier and keeps the weights of the epoch with the lowest validation loss.

    Args:
        settings: Network, schedule and acceleration.
        train_records: The training split.
        validation_records: The split that decides which epoch is the best.
        classes: Number of classes.
        run_directory: Where TensorBoard logs and the progress file go.

    Returns:
        The trained model.

    Raises:
        UserError: If a split is empty or the loss stops being a number.
    """
    _require_images(train_records, validation_records)
    if settings.seed is not None:
        keras.utils.set_random_seed(settings.seed)
        # Otherwise threads add up gradients in whatever order they finish.
        tf.config.experimental.enable_op_determinism()
    batch_size = min(settings.trainer.batch_size, train_records.count)
    steps = train_records.count // batch_size
    batches = input_pipeline.training_batches(
        train_records, settings.image_size, batch_size, settings.trainer.augmentation, settings.seed
    )
    validation = input_pipeline.evaluation_batches(validation_records, settings.image_size, batch_size)
    strategy = acceleration.distribution_strategy(settings.acceleration)

    def build(how: acceleration.Acceleration) -> keras.Model:
        return compiled_model(settings, classes, steps, how, strategy)

    batch = next(batches.take(1).as_numpy_iterator())
    total_steps = steps * settings.trainer.epochs
    choice = acceleration.choose(settings.acceleration, build, batch, total_steps, strategy)
    model = build(choice.chosen)
    started = time.perf_counter()
    history = model.fit(
        batches,
        epochs=settings.trainer.epochs,
        steps_per_epoch=steps,
        validation_data=validation,
        callbacks=_callbacks(settings.trainer, run_directory),
        verbose=2,
    ).history
    seconds = time.perf_counter() - started
    if not all(math.isfinite(loss) for loss in history["loss"]):
        raise UserError(
            "the training loss is not a number any more; lower trainer.learning_rate"
            f" (now {settings.trainer.learning_rate}) or use acceleration.precision=float32"
        )
    model.load_weights(run_directory / BEST_WEIGHTS_FILE)
    plain_history = {name: [float(value) for value in values] for name, values in history.items()}
    return TrainingResult(_in_float32(model, settings, classes), plain_history, choice, seconds)


def _require_images(train_records: input_pipeline.Records, validation_records: input_pipeline.Records) -> None:
    for split, records in (("train", train_records), ("validation", validation_records)):
        if not records.count:
            raise UserError(f"the {split} split has no images; add photos, or a {split}/ folder that holds some")


def compiled_model(
    settings: TrainingSettings,
    classes: int,
    steps: int,
    how: acceleration.Acceleration,
    strategy: tf.distribute.Strategy,
) -> keras.Model:
    """Builds a network that is ready to be trained.

    Args:
        settings: Network and schedule.
        classes: Number of classes.
        steps: Steps per epoch, from which the schedule of the learning rate follows.
        how: How its steps are executed.
        strategy: Strategy under which its variables are made.

    Returns:
        The compiled model; its metric is "accuracy".
    """
    acceleration.apply_precision(how.precision)
    if settings.seed is not None:
        keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        model = build_model(settings.model, settings.image_size, classes)
        model.compile(
            optimizer=_optimizer(settings.trainer, steps),
            loss=_loss(settings.trainer.label_smoothing, classes),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            jit_compile=how.jit,
            steps_per_execution=how.steps_per_execution,
        )
    acceleration.apply_precision("float32")
    return model


def _optimizer(settings: TrainerSettings, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    total = steps_per_epoch * settings.epochs
    warmup = int(settings.warmup_share * total)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else settings.learning_rate,
        max(1, total - warmup),
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)


def _loss(label_smoothing: float, classes: int) -> keras.losses.Loss:
    dense = keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)

    # The sparse loss of Keras knows no label smoothing.
    def sparse(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        return dense(tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes), probabilities)

    return sparse


def _callbacks(settings: TrainerSettings, run_directory: Path) -> list[keras.callbacks.Callback]:
    return [
        ProgressWriter(run_directory / PROGRESS_FILE),
        keras.callbacks.TensorBoard(str(run_directory), write_graph=False),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.EarlyStopping(_MONITORED, patience=settings.patience),
        # EarlyStopping restores the best weights only when it stops the training, not when the epochs run out.
        keras.callbacks.ModelCheckpoint(
            str(run_directory / BEST_WEIGHTS_FILE), _MONITORED, save_best_only=True, save_weights_only=True
        ),
    ]


def _in_float32(model: keras.Model, settings: TrainingSettings, classes: int) -> keras.Model:
    """Rebuilds the model without its mixed-precision policy: converters and other devices know only float32."""
    acceleration.apply_precision("float32")
    plain = build_model(settings.model, settings.image_size, classes)
    plain.set_weights(model.get_weights())
    return plain


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)
