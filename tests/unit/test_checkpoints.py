from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from trainer_module import acceleration, checkpoints
from trainer_module.state import Record, TrainingState

CHOICE = acceleration.Choice(acceleration.Acceleration(), "manual", "", "", (), 0.0)


def _network(units=2):
    keras.backend.experimental.enable_tf_random_generator()
    network = keras.Sequential([keras.layers.Dropout(0.5, input_shape=(3,)), keras.layers.Dense(units)])
    keras.backend.experimental.disable_tf_random_generator()
    return network


def _state(units=2):
    model = _network(units)
    model.compile("adam", "mse")
    return TrainingState(model, _network(units), Record(CHOICE))


def _write_epoch(state, directory, epoch=0, loss=1.0):
    state.record.add_epoch({"loss": loss, "val_loss": loss})
    checkpoints.CheckpointWriter(str(directory), state).on_epoch_end(epoch)


@pytest.fixture
def written(tmp_path):
    """Writes a checkpoint and returns its directory and the state."""
    state = _state()
    state.model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    _write_epoch(state, tmp_path)
    return tmp_path, state


def test_everything_comes_back(written):
    directory, old = written
    new = _state()
    assert checkpoints.saved_record(str(directory)) == old.record
    assert checkpoints.restore(str(directory), new)
    for part in ("model", "kept"):
        pairs = zip(getattr(old, part).get_weights(), getattr(new, part).get_weights(), strict=True)
        assert all((a == b).all() for a, b in pairs)
    assert new.model.optimizer.iterations == 1
    pairs = zip(old.model.optimizer.variables, new.model.optimizer.variables, strict=True)
    assert all((a.numpy() == b.numpy()).all() for a, b in pairs)
    ones = tf.ones((4, 3))
    assert (old.model(ones, training=True).numpy() == new.model(ones, training=True).numpy()).all()


def test_only_the_latest_checkpoint_is_kept(written):
    directory, state = written
    _write_epoch(state, directory, epoch=1)
    assert sorted(path.name for path in directory.iterdir()) == [
        "checkpoint",
        "ckpt-2.data-00000-of-00001",
        "ckpt-2.index",
    ]
    assert checkpoints.saved_record(str(directory)).epochs == 2


def test_an_epoch_that_diverged_is_not_written(written):
    directory, state = written
    _write_epoch(state, directory, epoch=1, loss=float("nan"))
    assert checkpoints.saved_record(str(directory)).epochs == 1


def test_without_a_checkpoint_there_is_no_record(tmp_path):
    assert checkpoints.saved_record(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize("damage", ["half of the index", "no record", "another record"])
def test_a_record_that_cannot_be_read_is_a_warning(written, caplog, damage):
    directory, _ = written
    if damage == "half of the index":
        _cut(directory / "ckpt-1.index")
    elif damage == "no record":
        tf.train.Checkpoint(step=tf.Variable(1)).write(str(directory / "ckpt-1"))
    else:
        tf.train.Checkpoint(note=checkpoints.Note('{"epoch": 1}')).write(str(directory / "ckpt-1"))
    assert checkpoints.saved_record(str(directory)) is None
    _assert_one_warning(caplog, directory)


@pytest.mark.parametrize("damage", ["half of the weights", "another network"])
def test_weights_that_cannot_be_read_are_a_warning(written, caplog, damage):
    directory, _ = written
    if damage == "half of the weights":
        _cut(directory / "ckpt-1.data-00000-of-00001")
    assert not checkpoints.restore(str(directory), _state(units=5 if damage == "another network" else 2))
    _assert_one_warning(caplog, directory)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _assert_one_warning(caplog, directory):
    (warning,) = [record.getMessage() for record in caplog.records if record.name == checkpoints.__name__]
    assert warning.startswith(f"{directory}/ckpt-1: cannot be read")
    assert "\n" not in warning


def test_other_settings_or_data_have_another_fingerprint():
    causes = ({"seed": 1}, ["train.gz"])
    assert checkpoints.fingerprint(*causes) == checkpoints.fingerprint(*causes)
    others = [({"seed": 2}, ["train.gz"]), ({"seed": 1}, ["other.gz"]), ({"seed": 1}, ["train.gz"], "more")]
    assert len({checkpoints.fingerprint(*each) for each in [causes, *others]}) == 4
