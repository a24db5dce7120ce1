"""Checkpoints after every epoch, so that a killed training goes on instead of starting anew.

One checkpoint holds all of the state: weights, optimizer, dropout's random numbers, the best epoch's weights and the
record. It is either there as a whole or not at all, which Keras' BackupAndRestore and ModelCheckpoint together are not.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import tensorflow as tf
import tf_keras as keras

from trainer_module.model_state import create_variables, random_generators
from trainer_module.state import Record, TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

_Read = TypeVar("_Read")


def fingerprint(*causes: Any) -> str:
    """Returns a short name that stands for everything a training depends on.

    Args:
        causes: JSON values, such as settings and names of files.
    """
    return hashlib.sha256(json.dumps(causes, sort_keys=True).encode()).hexdigest()[:16]


def saved_record(directory: str) -> Record | None:
    """Reads the record of the checkpoint in a directory; None if there is no checkpoint or it cannot be read."""
    path = tf.train.latest_checkpoint(directory)
    if path is None:
        return None
    note = Note("")

    def read() -> Record:
        tf.train.Checkpoint(note=note).restore(path).assert_existing_objects_matched().expect_partial()
        return Record.from_json(note.text)

    return _attempt(read, path)


def restore(directory: str, state: TrainingState) -> bool:
    """Gives the models of a training the weights of the checkpoint in a directory.

    Args:
        directory: Where `CheckpointWriter` wrote.
        state: Models that are built as those of the checkpoint were.

    Returns:
        Whether it worked; if not, the models may hold anything.
    """
    path = tf.train.latest_checkpoint(directory)

    def read() -> bool:
        create_variables(state.model)
        _checkpoint(state).restore(path).assert_existing_objects_matched()
        return True

    return bool(_attempt(read, path))


class CheckpointWriter(keras.callbacks.Callback):
    """Writes a checkpoint after every epoch and removes the one before."""

    def __init__(self, directory: str, state: TrainingState) -> None:
        """Creates the callback.

        Args:
            directory: Belongs to this training alone. The workers of one training need a directory each.
            state: What is written.
        """
        super().__init__()
        self._directory = directory
        self._state = state

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the checkpoint, unless going on from it would be in vain."""
        del logs
        if not self._state.record.has_diverged():
            manager = tf.train.CheckpointManager(_checkpoint(self._state), self._directory, max_to_keep=1)
            manager.save(checkpoint_number=epoch + 1)


class Note(tf.train.experimental.PythonState):
    """Text that is part of a checkpoint."""

    def __init__(self, text: str) -> None:
        """Creates the note.

        Args:
            text: What it says until a checkpoint is restored.
        """
        self.text = text

    def serialize(self) -> str:
        """Returns what is written into the checkpoint."""
        return self.text

    def deserialize(self, string_value: bytes) -> None:
        """Takes in what was written."""
        self.text = string_value.decode()


def _checkpoint(state: TrainingState) -> tf.train.Checkpoint:
    generators = random_generators(state.model)
    return tf.train.Checkpoint(model=state.model, kept=state.kept, random=generators, note=Note(state.record.to_json()))


def _attempt(read: Callable[[], _Read], path: str) -> _Read | None:
    try:
        return read()
    # A damaged file can make any part of the reader fail, and training anew is always right.
    except Exception as error:
        reason = " ".join(str(error).split())
        logging.getLogger(__name__).warning("%s: cannot be read, so the training starts anew: %s", path, reason)
        return None
