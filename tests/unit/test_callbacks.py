import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer_module import acceleration, optimization
from trainer_module.callbacks import EpochKeeper, EpochProgress, WeightAverage, replay_history
from trainer_module.settings import TrainerSettings
from trainer_module.state import Record, TrainingState

IMAGES = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
LABELS = (IMAGES.sum(axis=1) > 0).astype(np.int64)
CHOICE = acceleration.Choice(acceleration.Acceleration(), "manual", "", "", (), 0.0)


def _network():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.layers.Dense(2, activation="softmax", input_shape=(4,))])


def _fit(ema, *callbacks, epochs=3):
    model = _network()
    optimizer = optimization.optimizer(TrainerSettings(epochs=epochs, learning_rate=0.1, ema=ema), 4)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    averaging = [WeightAverage()] if ema else []
    return model.fit(
        IMAGES,
        LABELS,
        batch_size=16,
        shuffle=False,
        epochs=epochs,
        validation_data=(IMAGES, LABELS),
        callbacks=[*callbacks, *averaging],
        verbose=0,
    ).history


def test_the_average_is_validated_and_kept_while_training_goes_on_with_the_raw_weights():
    plain = _fit(0.0)
    state = TrainingState(_network(), _network(), Record(CHOICE))
    averaged = _fit(0.9, EpochKeeper(state, patience=10))
    assert averaged["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert averaged["val_loss"] != pytest.approx(plain["val_loss"], rel=1e-3)
    state.kept.compile(loss="sparse_categorical_crossentropy")
    assert state.kept.evaluate(IMAGES, LABELS, verbose=0) == pytest.approx(min(averaged["val_loss"]), rel=1e-5)


def test_progress_counts_the_epochs_of_both_trainings_and_has_the_metrics(kept_reports):
    history = _fit(0.0, EpochProgress("Trainer", "training", epochs_before=5, epochs_after=2))
    progress = json.loads(kept_reports.read_text())["Trainer"]
    assert (progress["epoch"], progress["epochs"]) == (8, 10)
    assert progress["step"] == progress["steps"] == 4
    assert progress["metrics"] == {name: pytest.approx(values[-1]) for name, values in history.items()}


def test_what_is_no_number_is_not_reported_as_one(kept_reports):
    callback = EpochProgress("Trainer", "training")
    callback.set_params({"steps": 4, "epochs": 1})
    callback.on_epoch_end(0, {"loss": float("nan"), "accuracy": 0.5})
    assert json.loads(kept_reports.read_text())["Trainer"]["metrics"] == {"loss": None, "accuracy": 0.5}


def test_earlier_epochs_appear_in_tensorboard(tmp_path):
    history = {"loss": [0.5, 0.25], "accuracy": [0.5, 0.75], "val_loss": [0.75, 0.5], "val_accuracy": [0.25, 0.5]}
    replay_history(history, tmp_path)
    for split, prefix in (("train", ""), ("validation", "val_")):
        events = EventAccumulator(str(tmp_path / split)).Reload()
        for name in ("loss", "accuracy"):
            # TensorFlow 2 writes scalars as tensors.
            logged = {event.step: tf.make_ndarray(event.tensor_proto) for event in events.Tensors(f"epoch_{name}")}
            assert logged == dict(enumerate(history[prefix + name]))
