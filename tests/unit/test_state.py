import math

import pytest

from trainer_module import acceleration
from trainer_module.state import Record

PROBE = acceleration.Probe(acceleration.Acceleration(jit=True), None, math.inf, "rejected")
CHOICE = acceleration.Choice(acceleration.Acceleration(), "auto", "_DefaultStrategy", "CPU", (PROBE,), 1.5)


def _record(*losses):
    record = Record(CHOICE, seconds=3.25)
    for loss in losses:
        record.add_epoch({"loss": loss, "val_loss": loss})
    return record


def test_a_record_survives_being_written():
    record = _record(0.5, math.nan)
    read = Record.from_json(record.to_json())
    assert (read.choice, read.seconds, read.epochs) == (CHOICE, 3.25, 2)
    assert read.history["loss"] == pytest.approx([0.5, math.nan], nan_ok=True)


@pytest.mark.parametrize("text", ["", "null", "{}", '{"choice": 1}'])
def test_anything_else_is_no_record(text):
    with pytest.raises(ValueError, match="validation error"):
        Record.from_json(text)


def test_the_best_epoch_is_the_first_with_the_lowest_loss_that_is_a_number():
    assert _record().best_epoch is None
    assert _record(math.nan).best_epoch is None
    assert _record(math.nan, 0.5, 0.25, 0.25, -math.inf).best_epoch == 2


def test_accuracy_goes_before_loss_and_loss_decides_between_equals():
    record = Record(CHOICE)
    for accuracy, loss in [(0.8, 0.1), (0.9, 0.6), (0.9, 0.5), (0.9, 0.7), (0.95, math.nan)]:
        record.add_epoch({"loss": 1.0, "val_accuracy": accuracy, "val_loss": loss})
    assert record.best_epoch == 2


def test_with_class_weights_an_epoch_that_knows_only_the_frequent_class_is_not_the_best():
    record = Record(CHOICE)
    for accuracy, balanced in [(0.998, 0.5), (0.97, 0.8), (0.96, 0.9), (0.95, 0.9)]:
        record.add_epoch({"val_loss": 1.0, "val_accuracy": accuracy, "val_balanced_accuracy": balanced})
    assert record.best_epoch == 2
    assert not record.is_over(epochs=9, patience=2)


@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ([], False),
        ([3.0, 2.0, 2.5], False),
        ([3.0, 2.0, 2.5, 2.0], True),
        ([3.0, 4.0, 2.0, 4.0], False),
        ([math.nan, math.nan], True),
        ([5.0, 4.0, 3.0, 2.0, 1.0], True),
    ],
)
def test_a_training_is_over_after_all_epochs_or_without_progress(losses, over):
    assert _record(*losses).is_over(epochs=5, patience=2) is over


def test_epochs_of_the_prelude_end_nothing():
    falling_back = _record(1.0, 4.0, 4.0, 4.0)
    assert falling_back.is_over(epochs=9, patience=2)
    assert falling_back.is_over(epochs=9, patience=2, prelude=2)
    assert not falling_back.is_over(epochs=9, patience=2, prelude=3)
    assert falling_back.is_over(epochs=4, patience=2, prelude=3)


def test_a_loss_that_is_not_a_number_is_divergence():
    assert not _record(1.0, 2.0).has_diverged()
    assert _record(1.0, math.inf).has_diverged()
