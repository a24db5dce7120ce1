"""What a variant costs and what it is worth, measured on its bytes."""

from __future__ import annotations

import dataclasses
import time
import zlib
from typing import TYPE_CHECKING

import numpy as np

from components.compression.flatbuffer import ModelFile
from trainer_module.processors import available_cores
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from pathlib import Path

_WARM_UP_RUNS = 5
_LEAST_RUNS = 5
_MOST_RUNS = 200
_ENOUGH_SECONDS = 0.3


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The figures of one variant.

    Attributes:
        bytes: Size of the file.
        deflated_bytes: Size after zlib at level 9, which is what a download or an app package takes.
        accuracy: Top-1 accuracy on the validation images, in [0, 1].
        balanced_accuracy: Mean over the classes of the same on their images alone.
        agreement: Share of validation images for which the top-1 class is that of the float parent.
        latency_ms: Median milliseconds for one image on one thread.
        latency_p95_ms: 95th percentile of the same.
        latency_all_threads_ms: Median milliseconds for one image with a thread for every available core.
        latency_all_threads_p95_ms: 95th percentile of the same.
        activation_bytes: Most bytes of activations alive at once, the least that a device's arena can do with.
        sparsity: Share of zeros among the weights.
        unique_weights: Most distinct values in one weight tensor.
    """

    bytes: int
    deflated_bytes: int
    accuracy: float
    balanced_accuracy: float
    agreement: float
    latency_ms: float
    latency_p95_ms: float
    latency_all_threads_ms: float
    latency_all_threads_p95_ms: float
    activation_bytes: int
    sparsity: float
    unique_weights: int


def measure(
    path: Path, probabilities: np.ndarray, labels: np.ndarray, parent: np.ndarray, image: np.ndarray
) -> Measurement:
    """Measures one variant.

    Args:
        path: The .tflite file.
        probabilities: Its predictions for the validation images, [N, C].
        labels: Their classes, [N].
        parent: The float parent's predictions for them, [N, C].
        image: uint8 [S, S, 3], the image to time with.

    Returns:
        All figures.
    """
    content = path.read_bytes()
    model_file = ModelFile(path)
    one_thread = time_predictions(TFLiteClassifier(path), image)
    all_threads = time_predictions(TFLiteClassifier(path, threads=available_cores()), image)
    return Measurement(
        bytes=len(content),
        deflated_bytes=deflated_bytes(content),
        accuracy=top1_accuracy(probabilities, labels),
        balanced_accuracy=balanced_accuracy(probabilities, labels),
        agreement=top1_accuracy(probabilities, parent.argmax(axis=1)),
        latency_ms=float(np.median(one_thread)),
        latency_p95_ms=float(np.percentile(one_thread, 95)),
        latency_all_threads_ms=float(np.median(all_threads)),
        latency_all_threads_p95_ms=float(np.percentile(all_threads, 95)),
        activation_bytes=model_file.activation_bytes(),
        sparsity=model_file.sparsity(),
        unique_weights=model_file.unique_weights(),
    )


def deflated_bytes(content: bytes) -> int:
    """Size of a file's content after zlib at level 9, which is what a package or a download takes."""
    return len(zlib.compress(content, level=9))


def top1_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows of `probabilities` [N, C], N > 0, whose largest entry is at the index in `labels` [N] or []."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `top1_accuracy` over the classes that occur in `labels` [N], however few images each has."""
    classes = np.unique(labels)
    return float(np.mean([top1_accuracy(probabilities[labels == each], each) for each in classes]))


def time_predictions(classifier: TFLiteClassifier, image: np.ndarray) -> np.ndarray:
    """Times single predictions after a warm-up, until 0.3 s or 200 runs are reached.

    Args:
        classifier: The loaded variant.
        image: uint8 [S, S, 3].

    Returns:
        Milliseconds of each run, copying the encoded image in and the answer out included.
    """
    encoded = classifier.encode(image[np.newaxis])
    for _ in range(_WARM_UP_RUNS):
        classifier.run(encoded)
    seconds: list[float] = []
    while len(seconds) < _LEAST_RUNS or (len(seconds) < _MOST_RUNS and sum(seconds) < _ENOUGH_SECONDS):
        start = time.perf_counter()
        classifier.run(encoded)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds) * 1000
