"""Exported classifiers, called the way their users call them: the SavedModel's signature, the .tflite's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from trainer_module.preprocessing import decode_images

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class TFLiteClassifier:
    """The bytes of a .tflite file, through the LiteRT interpreter.

    Quantisation follows the LiteRT specification: q = round(x / scale) + zero_point, clipped to the type's range.
    """

    def __init__(self, directory: str) -> None:
        """Loads model and labels.

        Args:
            directory: Holds model.tflite and labels.txt.
        """
        self.class_names = (Path(directory) / LABELS_FILE).read_text(encoding="utf-8").splitlines()
        self._interpreter = Interpreter(model_content=(Path(directory) / TFLITE_FILE).read_bytes(), num_threads=1)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self._image_size = int(self._input["shape"][1])

    def predict(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Returns float32 probabilities of shape [N, C] for N encoded images."""
        pixels = decode_images(tf.constant(list(encoded)), self._image_size).numpy()
        return np.concatenate([self._predict_one(image[np.newaxis]) for image in pixels])

    def _predict_one(self, pixels: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], _quantize(pixels, self._input))
        self._interpreter.invoke()
        return _dequantize(self._interpreter.get_tensor(self._output["index"]), self._output)


def load_classifier(directory: str) -> Classifier:
    """Loads what the directory holds: a .tflite with labels, or else a SavedModel."""
    if (Path(directory) / TFLITE_FILE).exists():
        return TFLiteClassifier(directory)
    return SavedModelClassifier(directory)


def _quantize(pixels: np.ndarray, tensor: dict) -> np.ndarray:
    scale, zero_point = tensor["quantization"]
    if not scale:
        return pixels.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.round(pixels / scale) + zero_point, limits.min, limits.max).astype(tensor["dtype"])


def _dequantize(values: np.ndarray, tensor: dict) -> np.ndarray:
    scale, zero_point = tensor["quantization"]
    if not scale:
        return values.astype(np.float32)
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)
