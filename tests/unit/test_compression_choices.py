"""Compression's choices that need no model: the variant that ships and the images that calibrate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.compression.data import LabelledImages, choose_representative
from components.compression.measurement import Measurement, balanced_accuracy
from components.compression.selection import Budget, excesses, loses_too_much, select
from trainer_module.errors import UserError
from trainer_module.tflite import TensorSpec

LARGE = Measurement(
    bytes=1000,
    deflated_bytes=900,
    accuracy=0.95,
    balanced_accuracy=0.95,
    agreement=1.0,
    latency_ms=2.0,
    latency_p95_ms=3.0,
    latency_all_threads_ms=1.0,
    latency_all_threads_p95_ms=1.5,
    activation_bytes=5000,
    sparsity=0.0,
    unique_weights=99,
)
SMALL = dataclasses.replace(LARGE, bytes=400, deflated_bytes=350, accuracy=0.90, latency_ms=1.0)
MEASUREMENTS = {"large": LARGE, "small": SMALL}


def test_with_class_weights_a_variant_without_the_rare_class_is_not_inside_the_budget() -> None:
    blind = dataclasses.replace(SMALL, accuracy=0.949, balanced_accuracy=0.5)
    measurements = {"large": LARGE, "blind": blind}
    assert select(measurements, 0.95, Budget(max_accuracy_drop=0.01)) == "blind"
    assert select(measurements, 0.95, Budget(max_accuracy_drop=0.01, balanced=True)) == "large"
    (excess,) = excesses(blind, 0.95, Budget(max_accuracy_drop=0.01, balanced=True))
    assert excess.reason.startswith("balanced accuracy drop 0.4500 >")


def test_balanced_accuracy_is_the_mean_over_the_classes_that_occur() -> None:
    probabilities = np.eye(3)[[0, 0, 0, 0, 2]]
    assert balanced_accuracy(probabilities, np.array([0, 0, 0, 0, 1])) == 0.5
    assert balanced_accuracy(probabilities, np.array([0, 0, 0, 1, 2])) == pytest.approx(2 / 3)


def test_smallest_inside_the_budget() -> None:
    assert select(MEASUREMENTS, 0.95, Budget(max_accuracy_drop=0.05)) == "small"
    assert select(MEASUREMENTS, 0.95, Budget(max_accuracy_drop=0.049)) == "large"


def test_the_size_is_what_remains_after_deflation() -> None:
    measurements = {"small file": SMALL, "small download": dataclasses.replace(SMALL, bytes=500, deflated_bytes=300)}
    assert select(measurements, 0.95, Budget(max_accuracy_drop=0.1)) == "small download"


def test_of_equal_sizes_the_more_accurate() -> None:
    measurements = {"worse": SMALL, "better": dataclasses.replace(SMALL, deflated_bytes=355, accuracy=0.94)}
    assert select(measurements, 0.95, Budget(max_accuracy_drop=0.1)) == "better"


def test_of_equally_accurate_ones_the_one_that_agrees_more() -> None:
    measurements = {"more": SMALL, "less": dataclasses.replace(SMALL, agreement=0.9)}
    assert select(measurements, 0.95, Budget(max_accuracy_drop=0.1)) == "more"


def test_of_equally_good_ones_the_smaller_and_then_the_first_whatever_their_measured_time() -> None:
    slow, fast = dataclasses.replace(SMALL, latency_ms=9.0), dataclasses.replace(SMALL, latency_ms=0.1)
    smaller = dataclasses.replace(slow, deflated_bytes=SMALL.deflated_bytes - 1)
    assert select({"slow": slow, "fast": fast}, 0.95, Budget(max_accuracy_drop=0.1)) == "slow"
    assert select({"fast": fast, "slow": slow}, 0.95, Budget(max_accuracy_drop=0.1)) == "fast"
    assert select({"fast": fast, "smaller": smaller}, 0.95, Budget(max_accuracy_drop=0.1)) == "smaller"


def test_limits_are_inclusive() -> None:
    assert excesses(SMALL, 0.95, Budget(max_accuracy_drop=0.95 - 0.90, max_bytes=400, max_latency_ms=1.0)) == []


def test_a_drop_of_exactly_the_limit_fits_although_floating_point_makes_it_more() -> None:
    assert 0.98 - 0.96 > 0.02
    assert excesses(dataclasses.replace(SMALL, accuracy=0.96), 0.98, Budget(max_accuracy_drop=0.02)) == []
    assert not loses_too_much(0.96, 0.98, 0.02)
    assert loses_too_much(0.95, 0.98, 0.02)


def test_gain_in_accuracy_is_no_drop() -> None:
    assert excesses(LARGE, 0.90, Budget(max_accuracy_drop=0.0)) == []


@pytest.mark.parametrize(
    ("budget", "nearest"),
    [
        (Budget(0.1, max_bytes=300), r"small: 400 bytes > compression\.budget\.max_bytes 300"),
        (Budget(0.1, max_latency_ms=0.5), r"small: 1 ms > compression\.budget\.max_latency_ms 0\.5"),
        (
            Budget(0.001, max_bytes=900),
            r"small: accuracy drop 0\.0500 > compression\.budget\.max_accuracy_drop 0\.001",
        ),
        (Budget(0.001, max_bytes=999), "large: 1000 bytes"),
    ],
)
def test_nearest_miss_is_named(budget: Budget, nearest: str) -> None:
    with pytest.raises(UserError, match=nearest):
        select(MEASUREMENTS, 0.95, budget)


def make_train(counts: list[int]) -> LabelledImages:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = labels
    images[:, 1, 1, 1] = np.arange(len(labels)) % 256
    return LabelledImages(images, labels)


def test_rare_classes_calibrate_as_much_as_they_can() -> None:
    chosen = choose_representative(make_train([200, 3, 50]), seed=0, count=30)
    assert np.bincount(chosen[:, 0, 0, 0]).tolist() == [14, 3, 13]


def test_representative_images_follow_the_seed() -> None:
    train = make_train([50, 50])
    chosen = choose_representative(train, seed=4, count=20)
    np.testing.assert_array_equal(chosen, choose_representative(train, seed=4, count=20))
    assert (chosen != choose_representative(train, seed=5, count=20)).any()


def test_small_train_split_is_used_whole() -> None:
    train = make_train([2, 3])
    assert len(choose_representative(train, seed=0)) == 5


def test_stored_values_are_rounded_and_clipped() -> None:
    spec = TensorSpec("image", (1, 2, 2, 3), "int8", scale=2.0, zero_point=-128)
    np.testing.assert_array_equal(spec.encode(np.array([0, 3.2, 255, 9999])), np.array([-128, -126, 0, 127], np.int8))
    np.testing.assert_array_equal(spec.decode(np.array([-128, -126], np.int8)), np.array([0, 4], np.float32))
