"""Exported classifiers, called the way their users call them: the SavedModel's signature, the .tflite's bytes."""

from __future__ import annotations

import contextlib
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import tensorflow as tf

from trainer_module import features
from trainer_module.bundle_files import LABELS_FILE, TFLITE_FILE
from trainer_module.errors import GateError
from trainer_module.machine_faults import machine_fault
from trainer_module.preprocessing import decode_images
from trainer_module.probabilities import are_probabilities
from trainer_module.tflite import TFLiteClassifier
from trainer_module.uri import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Of softmax in 8-bit integers.
_INTEGER_STEP = 1 / 256
_CHANNELS = 3
# Beam's batches grow to hundreds of photos, and with them what the network's layers would take.
_PIECE = 32
# Some of TensorFlow's messages fill a page.
_REASON_LENGTH = 200


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
        # The model's variables live as long as the object that loading returns.
        self._model = tf.saved_model.load(directory)
        self.class_names = self._read_class_names()

    def predict(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Returns float32 probabilities of shape [N, C] for N encoded images."""
        outputs = self._model.signatures["serving_default"](image_bytes=tf.constant(list(encoded)))
        return outputs["probabilities"].numpy()

    def _read_class_names(self) -> list[str]:
        black_pixel = tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)).numpy()
        example = tf.train.Example()
        example.features.feature[features.IMAGE_ENCODED].bytes_list.value.append(black_pixel)
        classify = self._model.signatures["serving_examples"]
        (input_name,) = classify.structured_input_signature[1]
        outputs = classify(**{input_name: tf.constant([example.SerializeToString()])})
        return [name.decode() for name in outputs["classes"].numpy()[0]]


class BundleClassifier:
    """The bytes of a .tflite file with its labels."""

    def __init__(self, directory: str) -> None:
        """Loads model and labels.

        Args:
            directory: Holds model.tflite and labels.txt.

        Raises:
            ValueError: The input is not one RGB image of height and width alike.
        """
        self.class_names = (Path(directory) / LABELS_FILE).read_text(encoding="utf-8").splitlines()
        self._model = TFLiteClassifier(Path(directory) / TFLITE_FILE)
        self._image_size = self._model.input.shape[1] if len(self._model.input.shape) > 1 else 0
        expected = (1, self._image_size, self._image_size, _CHANNELS)
        if self._model.input.shape != expected:
            raise ValueError(f"its input has the shape {list(self._model.input.shape)}, not [1, S, S, {_CHANNELS}]")

    def predict(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Returns float32 probabilities of shape [N, C] for N encoded images."""
        return self._model.predict(decode_images(tf.constant(list(encoded)), self._image_size).numpy())


class CheckedClassifier:
    """A classifier whose every failure is a reason to refuse it; failures of disk, memory and network are none."""

    def __init__(self, name: str, directory: str) -> None:
        """Loads what the directory holds: a .tflite with labels, or else a SavedModel.

        Args:
            name: What messages call the model.
            directory: Holds the exported model.

        Raises:
            GateError: It cannot be loaded, or its labels are not distinct names.
        """
        self._name = name
        with _local(directory) as local, _failing_as_reason(f"the {name} cannot be loaded"):
            self._classifier = _load(local)
        self.class_names = self._classifier.class_names
        if len(set(self.class_names)) < len(self.class_names) or not all(self.class_names):
            raise GateError(f"the {name} has labels that are empty or occur twice")

    def predict(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Classifies images.

        Args:
            encoded: N image files.

        Returns:
            float32 probabilities [N, C].

        Raises:
            GateError: The model fails, or what it answers is not one probability distribution over its labels a photo.
        """
        with _failing_as_reason(f"the {self._name} fails on test photos"):
            probabilities = self._predict(encoded)
        shape = (len(encoded), len(self.class_names))
        if probabilities.shape != shape:
            raise GateError(
                f"the {self._name} answers {list(probabilities.shape)} for {shape[0]} photos and {shape[1]} labels"
            )
        if not np.isfinite(probabilities).all():
            raise GateError(f"the {self._name} answers test photos with NaN or infinity")
        if not are_probabilities(probabilities, self._step()):
            raise GateError(f"the {self._name} answers with numbers that are not probabilities: they do not sum to 1")
        return probabilities

    def _step(self) -> float:
        # Also where a .tflite answers float32: its softmax may be one of integers all the same.
        return _INTEGER_STEP if isinstance(self._classifier, BundleClassifier) else 0.0

    def _predict(self, encoded: Sequence[bytes]) -> np.ndarray:
        pieces = [encoded[start : start + _PIECE] for start in range(0, len(encoded), _PIECE)]
        return np.concatenate([self._classifier.predict(piece) for piece in pieces])


@contextlib.contextmanager
def _failing_as_reason(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if machine_fault(f"{type(error).__name__}: {error}"):
            raise
        raise GateError(f"{what}: {_one_line(error)}") from error


@contextlib.contextmanager
def _local(directory: str) -> Iterator[str]:
    """Yields a local folder with the model, needed until it is loaded: the interpreter reads no object store."""
    if not is_remote(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory() as scratch:
        _download(directory.rstrip("/"), scratch)
        yield scratch


def _load(directory: str) -> Classifier:
    if (Path(directory) / TFLITE_FILE).exists() or (Path(directory) / LABELS_FILE).exists():
        return BundleClassifier(directory)
    return SavedModelClassifier(directory)


def _download(source: str, target: str) -> None:
    for folder, _, names in tf.io.gfile.walk(source):
        local = Path(target) / folder[len(source) :].strip("/")
        local.mkdir(parents=True, exist_ok=True)
        for name in names:
            tf.io.gfile.copy(f"{folder.rstrip('/')}/{name}", str(local / name))


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = textwrap.shorten(lines[0], _REASON_LENGTH, placeholder=" ...") if lines else "no message"
    return f"{type(error).__name__}: {message}"
