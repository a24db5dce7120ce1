"""What happens between the steps and epochs of a training."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tf_keras as keras

from trainer_module import progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from trainer_module.state import TrainingState

_SECONDS_BETWEEN_REPORTS = 0.5
_VALIDATION_PREFIX = "val_"


class EpochProgress(keras.callbacks.Callback):
    """Reports the steps, epochs and metrics of a training."""

    def __init__(self, component: str, doing: str, epochs_before: int = 0, epochs_after: int = 0) -> None:
        """Creates the callback.

        Args:
            component: See `progress.report`.
            doing: See `progress.report`.
            epochs_before: Epochs of another training before this one that the user sees as part of the same.
            epochs_after: Epochs of another training after this one.
        """
        super().__init__()
        self._component = component
        self._doing = doing
        self._epochs_before = epochs_before
        self._epochs_after = epochs_after
        self._epoch = 0
        self._finished: dict[str, Any] | None = None
        self._next_report = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the epoch."""
        del logs
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Reports the running training metrics, at most twice a second."""
        if time.monotonic() < self._next_report:
            return
        self._next_report = time.monotonic() + _SECONDS_BETWEEN_REPORTS
        self._report(batch + 1, _plain(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Reports the metrics of the whole epoch."""
        metrics = _plain(logs or {})
        self._finished = {"epoch": self._epochs_before + epoch + 1, "metrics": metrics}
        self._report(self.params["steps"], metrics)

    def _report(self, step: int, metrics: dict[str, float | None]) -> None:
        progress.report(
            self._component,
            self._doing,
            epoch=self._epochs_before + self._epoch + 1,
            epochs=self._epochs_before + self.params["epochs"] + self._epochs_after,
            step=step,
            steps=self.params["steps"],
            metrics=metrics,
            finished=self._finished,
        )


class EpochKeeper(keras.callbacks.Callback):
    """Notes every epoch, keeps the weights of the best one, and stops when nothing gets better any more.

    It does what EarlyStopping and ModelCheckpoint do, but all from the record, with which a training can go on.
    """

    def __init__(self, state: TrainingState, patience: int, prelude: int = 0) -> None:
        """Creates the callback.

        Args:
            state: Its record and its kept model are brought up to date.
            patience: Epochs without a better one (see `Record.best_epoch`) before the training stops.
            prelude: See `Record.is_over`.
        """
        super().__init__()
        self._state = state
        self._patience = patience
        self._prelude = prelude
        self._started = 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts the clock, where it stood if the training goes on."""
        del logs
        self._started = time.perf_counter() - self._state.record.seconds

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Takes in the metrics and, if they are the best so far, the weights."""
        record = self._state.record
        record.add_epoch(logs or {})
        record.seconds = time.perf_counter() - self._started
        if record.best_epoch == epoch:
            self._state.kept.set_weights(self.model.get_weights())
        if record.is_over(self.params["epochs"], self._patience, self._prelude):
            self.model.stop_training = True


class WeightAverage(keras.callbacks.Callback):
    """Puts the optimizer's moving average in place of the weights from the validation to the end of the epoch.

    What keeps the weights of an epoch stands before this callback, what writes the state of the training after it.
    """

    def __init__(self) -> None:
        """Creates the callback."""
        super().__init__()
        self._raw: list[np.ndarray] = []

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Takes the average."""
        del logs
        self._raw = [variable.numpy() for variable in self.model.trainable_variables]
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Puts the weights back, with which the training goes on."""
        del epoch, logs
        for variable, value in zip(self.model.trainable_variables, self._raw, strict=True):
            variable.assign(value)


def replay_history(history: Mapping[str, list[float]], log_directory: Path) -> None:
    """Writes the metrics of earlier epochs for TensorBoard, under the names that Keras' callback gives them.

    Args:
        history: Metric values by name, one for each epoch.
        log_directory: The directory given to `keras.callbacks.TensorBoard`.
    """
    for split in ("train", "validation"):
        with tf.summary.create_file_writer(str(log_directory / split)).as_default():
            for name, values in history.items():
                if name.startswith(_VALIDATION_PREFIX) == (split == "validation"):
                    for epoch, value in enumerate(values):
                        tf.summary.scalar(f"epoch_{name.removeprefix(_VALIDATION_PREFIX)}", value, step=epoch)


def _plain(logs: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: float(value) if math.isfinite(value) else None for name, value in logs.items()}
