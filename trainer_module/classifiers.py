"""Exported classifiers, called the way their users call them: the SavedModel's signature, the .tflite's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import tensorflow as tf

from trainer_module.preprocessing import decode_images
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

TFLITE_FILE = "model.tflite"
LABELS_FILE = "labels.txt"


class Classifier(Protocol):
    """Anything that names the class of encoded images."""

    class_names: list[str]

    def predict(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Returns float32 probabilities of shape [N, C] for N encoded images."""
        ...


class SavedModelClassifier:
    """A SavedModel, through its `serving_default` signature from raw image bytes."""

    def __init__(self, directory: str) -> None:
        """Loads the SavedModel.

        Args:
            directory: Holds saved_model.pb.
        """
        self._signatures = tf.saved_model.load(directory).signatures
        self.class_names = self._read_class_names()

    def predict(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Returns float32 probabilities of shape [N, C] for N encoded images."""
        outputs = self._signatures["serving_default"](image_bytes=tf.constant(list(encoded)))
        return outputs["probabilities"].numpy()

    def _read_class_names(self) -> list[str]:
        black_pixel = tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)).numpy()
        example = tf.train.Example()
        example.features.feature["image/encoded"].bytes_list.value.append(black_pixel)
        outputs = self._signatures["serving_examples"](examples=tf.constant([example.SerializeToString()]))
        return [name.decode() for name in outputs["classes"].numpy()[0]]


class BundleClassifier:
    """The bytes of a .tflite file with its labels."""

    def __init__(self, directory: str) -> None:
        """Loads model and labels.

        Args:
            directory: Holds model.tflite and labels.txt.
        """
        self.class_names = (Path(directory) / LABELS_FILE).read_text(encoding="utf-8").splitlines()
        self._model = TFLiteClassifier(Path(directory) / TFLITE_FILE)

    def predict(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Returns float32 probabilities of shape [N, C] for N encoded images."""
        image_size = self._model.input.shape[1]
        return self._model.predict(decode_images(tf.constant(list(encoded)), image_size).numpy())


def load_classifier(directory: str) -> Classifier:
    """Loads what the directory holds: a .tflite with labels, or else a SavedModel."""
    if (Path(directory) / TFLITE_FILE).exists():
        return BundleClassifier(directory)
    return SavedModelClassifier(directory)
