"""What the server counts and measures, for Prometheus; sums over all workers where there are several."""

import functools
import os
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

# Read by prometheus_client when it is imported.
SHARED_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
# The route of requests that fit none, and of those that were refused before one was looked for.
UNMATCHED: Final = "unmatched"

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))

REQUESTS: Final = Counter("trimline_requests", "Answered requests.", ["route", "status"])
REQUEST_SECONDS: Final = Histogram(
    "trimline_request_seconds", "From the headers of a request to the end of its answer.", ["route"], buckets=_SECONDS
)
STAGE_SECONDS: Final = Histogram(
    "trimline_stage_seconds",
    "Time of one request in a stage: queue, decode (JSON, image files, resizing), invoke (the interpreter), encode.",
    ["stage"],
    buckets=_SECONDS,
)
QUEUED: Final = Gauge("trimline_queued_requests", "Requests that wait for an interpreter.", multiprocess_mode="livesum")
RUNNING: Final = Gauge("trimline_running_requests", "Requests being computed.", multiprocess_mode="livesum")
MODEL: Final = Gauge(
    "trimline_model_version", "The version that is served.", ["label"], multiprocess_mode="livemostrecent"
)
RELOADS: Final = Counter("trimline_reloads", "Changes of the served versions.")
REFUSED: Final = Gauge(
    "trimline_refused_versions", "Pushed versions that could not be loaded.", multiprocess_mode="livemax"
)
PREDICTIONS: Final = Counter("trimline_predictions", "Images by the class they were given.", ["version", "label"])
CONFIDENCE: Final = Histogram(
    "trimline_confidence", "Probability of the class that an image was given.", ["version"], buckets=_TENTHS
)
BRIGHTNESS: Final = Histogram(
    "trimline_image_brightness",
    "Mean luma (ITU-R BT.601) in [0, 1], as in the statistics of the training photos.",
    ["version"],
    buckets=_TENTHS,
)

# Looking a child up by its labels costs more than counting with it.
stage_seconds: Final = functools.cache(STAGE_SECONDS.labels)
requests_of: Final = functools.cache(REQUESTS.labels)
request_seconds_of: Final = functools.cache(REQUEST_SECONDS.labels)
_predictions_of = functools.lru_cache(10_000)(PREDICTIONS.labels)
_confidence_of = functools.lru_cache(100)(CONFIDENCE.labels)
_brightness_of = functools.lru_cache(100)(BRIGHTNESS.labels)

# ITU-R BT.601, as in JPEG and in the ingest's statistics.
_LUMA = np.array([0.299, 0.587, 0.114]) / 255


def observe_images(
    version: str, pixels: NDArray[np.uint8], labels: list[str], confidences: NDArray[np.float32]
) -> None:
    """Counts classified images: class, confidence and brightness.

    Args:
        version: Version of the model.
        pixels: RGB pixels, uint8 [N, S, S, 3].
        labels: The N classes given.
        confidences: Their probabilities, float32 [N].
    """
    confidence, brightness = _confidence_of(version), _brightness_of(version)
    # A sixteenth of the pixels tells as much of the mean.
    means = pixels[:, ::4, ::4].mean(axis=(1, 2)) @ _LUMA
    for label, probability, luma in zip(labels, confidences, means, strict=True):
        _predictions_of(version, label).inc()
        confidence.observe(float(probability))
        brightness.observe(float(luma))


def exposition() -> bytes:
    """Returns all metrics in Prometheus' text format: of all workers, or of this process where it is the only one."""
    if SHARED_DIR_VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
