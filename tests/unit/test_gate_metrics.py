import numpy as np
import pytest

from trainer_module.evaluation import bucket_name
from trainer_module.gate_metrics import area_under_roc, calibration_error, rank


@pytest.mark.parametrize(
    ("value", "name"), [(0, "below 32"), (31, "below 32"), (32, "32 to 64"), (100, "64 to 128"), (128, "128 or more")]
)
def test_buckets_have_names_that_say_their_bounds(value, name):
    assert bucket_name(value, (32, 64, 128)) == name


def test_the_area_under_the_curve_counts_pairs_in_order_and_half_of_the_ties():
    assert area_under_roc(np.array([0.0, 0, 3]), np.array([5.0, 0, 0])) == 1
    assert area_under_roc(np.array([2.0, 0, 0]), np.array([0.0, 0, 4])) == 0
    assert area_under_roc(np.array([0.0, 2, 0]), np.array([0.0, 7, 0])) == 0.5
    assert np.isnan(area_under_roc(np.array([0.0, 0]), np.array([1.0, 0])))


def test_of_equal_scores_the_first_comes_first_and_not_all_of_them():
    scores = np.array([0.0, 1, 0, 0, 0.5])
    assert [rank(scores, label) for label in range(5)] == [2, 0, 3, 4, 1]


def test_calibration_is_the_distance_of_confidence_from_accuracy():
    # Ten photos at 0.9 of which eight are right, ten at 0.5 of which five are.
    error = calibration_error(np.array([10.0, 10]), np.array([5.0, 9.0]), np.array([5.0, 8.0]))
    assert error == pytest.approx(0.05)
