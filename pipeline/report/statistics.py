"""What TFDV says of the photos, and how far they have drifted since the run before."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import tfx  # noqa: F401  # isort: skip (stands in for a module of tfx-bsl that TFDV imports and that is gone)
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from trainer_module import features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics, FeatureNameStatistics

_STATISTICS_FILE = "FeatureStats.pb"
_NAMES = {
    features.IMAGE_WIDTH: "width",
    features.IMAGE_HEIGHT: "height",
    features.IMAGE_BRIGHTNESS: "brightness",
    features.CLASS_TEXT: "class",
}
# TFDV measures only what has a threshold. Nothing is judged here: any will do.
_ANY_THRESHOLD = 1.0


@dataclasses.dataclass(frozen=True)
class NumericFeature:
    """TFDV's figures of one number that every photo has.

    Attributes:
        split: The photos it is about.
        name: "width" and "height" in pixels as stored, "brightness" as mean luma in [0, 1].
        photos: How many have it.
        minimum, mean, median, maximum, deviation: Of its values.
        histogram: Lower end, upper end and number of photos of TFDV's equally wide buckets.
    """

    split: str
    name: str
    photos: int
    minimum: float
    mean: float
    median: float
    maximum: float
    deviation: float
    histogram: tuple[tuple[float, float, float], ...]


@dataclasses.dataclass(frozen=True)
class Drift:
    """How far a feature lies from what it was.

    Attributes:
        split: The photos it is about.
        name: As in `NumericFeature`, or "class".
        divergence: Jensen-Shannon divergence of the two distributions: 0 for the same, 1 for nothing in common.
    """

    split: str
    name: str
    divergence: float


def numeric_features(uri: str) -> list[NumericFeature]:
    """Reads the figures of every split.

    Args:
        uri: StatisticsGen's artifact.

    Returns:
        Features in the order of splits and names; a split without photos has none.
    """
    return [
        _numeric(split, statistics)
        for split, dataset in _datasets(uri)
        for statistics in dataset.features
        if statistics.HasField("num_stats") and _name(statistics) in _NAMES
    ]


def drift(uri: str, previous_uri: str, schema_uri: str) -> list[Drift]:
    """Compares the statistics of two runs, with TFDV's drift comparator.

    Args:
        uri: StatisticsGen's artifact.
        previous_uri: That of the run before.
        schema_uri: SchemaGen's artifact.

    Returns:
        One entry for each split and feature that both have.
    """
    schema = tfdv.load_schema_text(f"{schema_uri}/schema.pbtxt")
    for feature in schema.feature:
        if feature.name in _NAMES:
            feature.drift_comparator.jensen_shannon_divergence.threshold = _ANY_THRESHOLD
    previous = dict(_datasets(previous_uri))
    return [
        found
        for split, dataset in _datasets(uri)
        if split in previous
        for found in _split_drift(split, dataset, previous[split], schema)
    ]


def _split_drift(
    split: str, now: DatasetFeatureStatistics, before: DatasetFeatureStatistics, schema: schema_pb2.Schema
) -> Iterator[Drift]:
    current, previous = (statistics_pb2.DatasetFeatureStatisticsList(datasets=[dataset]) for dataset in (now, before))
    anomalies = tfdv.validate_statistics(current, schema, previous_statistics=previous)
    for info in anomalies.drift_skew_info:
        for measurement in info.drift_measurements:
            yield Drift(split, _NAMES[info.path.step[0]], measurement.value)


def _datasets(uri: str) -> Iterator[tuple[str, DatasetFeatureStatistics]]:
    for split in features.SPLITS:
        path = f"{uri}/Split-{split}/{_STATISTICS_FILE}"
        (dataset,) = tfdv.load_stats_binary(path).datasets
        if dataset.num_examples:
            yield split, dataset


def _name(statistics: FeatureNameStatistics) -> str:
    return "/".join(statistics.path.step)


def _numeric(split: str, statistics: FeatureNameStatistics) -> NumericFeature:
    figures = statistics.num_stats
    equally_wide = next((h for h in figures.histograms if h.type == statistics_pb2.Histogram.STANDARD), None)
    buckets = equally_wide.buckets if equally_wide else ()
    return NumericFeature(
        split=split,
        name=_NAMES[_name(statistics)],
        photos=figures.common_stats.num_non_missing,
        minimum=figures.min,
        mean=figures.mean,
        median=figures.median,
        maximum=figures.max,
        deviation=figures.std_dev,
        histogram=tuple((bucket.low_value, bucket.high_value, bucket.sample_count) for bucket in buckets),
    )
