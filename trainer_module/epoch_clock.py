"""How long the epochs of a training take."""

from __future__ import annotations

import time

import tf_keras as keras


class EpochClock(keras.callbacks.Callback):
    """Times epochs as they are in the midst of a training: without what `fit` does once, before and after all of them.

    Attributes:
        seconds: Time of every epoch so far; the first one of a model includes tracing and compiling.
    """

    def __init__(self) -> None:
        """Creates the callback; it may serve several calls of `fit`."""
        super().__init__()
        self.seconds: list[float] = []
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        del epoch, logs
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the time."""
        del epoch, logs
        self.seconds.append(time.perf_counter() - self._started)
