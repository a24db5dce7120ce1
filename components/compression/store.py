"""Finished fine-tunings, kept so that a compression that was killed goes on where it was."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Sequence

_PARTIAL = ".partial"


class Store:
    """Lists of weights by name, in a directory of their own; each is there as a whole or not at all."""

    def __init__(self, directory: str | None) -> None:
        """Opens the store.

        Args:
            directory: Path or URI of TensorFlow's filesystem layer; it must belong to these very inputs and settings.
                None keeps nothing.
        """
        self._directory = directory

    def load(self, name: str) -> list[np.ndarray] | None:
        """Returns what was saved under the name; None if nothing was, or it cannot be read."""
        if self._directory is None or not tf.io.gfile.exists(self._path(name)):
            return None
        try:
            with tf.io.gfile.GFile(self._path(name), "rb") as file, np.load(io.BytesIO(file.read())) as arrays:
                return [arrays[f"arr_{number}"] for number in range(len(arrays))]
        # A damaged file can make any part of the reader fail, and doing the work anew is always right.
        except Exception as error:
            logging.getLogger(__name__).warning("%s: cannot be read, the work is done anew: %s", name, error)
            return None

    def save(self, name: str, weights: Sequence[np.ndarray]) -> None:
        """Keeps weights under a name."""
        if self._directory is None:
            return
        content = io.BytesIO()
        np.savez(content, *weights)
        tf.io.gfile.makedirs(self._directory)
        partial = self._path(name) + _PARTIAL
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(content.getvalue())
        tf.io.gfile.rename(partial, self._path(name), overwrite=True)

    def clear(self) -> None:
        """Removes everything."""
        if self._directory is not None and tf.io.gfile.exists(self._directory):
            tf.io.gfile.rmtree(self._directory)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}.npz"
