import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from trainer_module import optimization
from trainer_module.errors import UserError
from trainer_module.settings import TrainerSettings

OPTIMIZERS = ["adamw", "sgd"]
# A schedule so long that its first steps all have the peak rate.
CONSTANT_RATE = {"warmup_share": 0.0, "epochs": 10_000}


def _step(optimizer, variables, gradient):
    optimizer.apply_gradients([(tf.fill(variable.shape, gradient), variable) for variable in variables])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_kernels_decay(name):
    model = keras.Sequential([keras.layers.Dense(3, input_shape=(2,)), keras.layers.BatchNormalization()])
    model.set_weights([np.ones_like(weights) for weights in model.get_weights()])
    settings = TrainerSettings(optimizer=name, learning_rate=0.5, weight_decay=0.1, **CONSTANT_RATE)
    _step(optimization.optimizer(settings, 1000), model.trainable_variables, 0.0)
    values = {variable.name.split("/")[-1]: variable.numpy() for variable in model.trainable_variables}
    assert values.pop("kernel:0") == pytest.approx(np.full((2, 3), 0.95))
    assert set(values) == {"bias:0", "gamma:0", "beta:0"}
    assert all((value == 1).all() for value in values.values())


def test_sgd_has_nesterov_momentum():
    variable = tf.Variable(0.0)
    settings = TrainerSettings(optimizer="sgd", learning_rate=1.0, weight_decay=0.0, **CONSTANT_RATE)
    optimizer = optimization.optimizer(settings, 1000)
    moves = []
    for _ in range(3):
        before = variable.numpy()
        _step(optimizer, [variable], 1.0)
        moves.append(before - variable.numpy())
    momentum = [1.0, 1.9, 2.71]
    assert moves == pytest.approx([1 + 0.9 * speed for speed in momentum])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_rises_and_falls_again(name):
    settings = TrainerSettings(optimizer=name, learning_rate=0.5, warmup_share=0.2, epochs=10)
    optimizer = optimization.optimizer(settings, 10)
    variable = tf.Variable(0.0)
    rates = []
    for step in (0, 10, 20, 60, 100):
        optimizer.iterations.assign(step)
        _step(optimizer, [variable], 0.0)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([0, 0.25, 0.5, 0.25, 0], abs=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_moving_average_forgets_the_first_weights_fast_and_then_reaches_its_decay(name):
    settings = TrainerSettings(optimizer=name, learning_rate=0.1, weight_decay=0.0, ema=0.5, **CONSTANT_RATE)
    optimizer = optimization.optimizer(settings, 1000)
    variable = tf.Variable(100.0)
    average = 100.0
    for step in range(20):
        _step(optimizer, [variable], 1.0)
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * float(variable)
    optimizer.finalize_variable_values([variable])
    assert float(variable) == pytest.approx(average, rel=1e-6)


def test_without_a_moving_average_none_is_kept():
    optimizer = optimization.optimizer(TrainerSettings(ema=0.0), 10)
    optimizer.build([tf.Variable(0.0)])
    assert not any("average" in variable.name for variable in optimizer.variables)


def test_the_loss_of_each_example_is_the_smoothed_cross_entropy():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    labels = np.array([0, 1])
    losses = optimization.label_loss(0.3, 3)(tf.constant(labels), tf.constant(probabilities)).numpy()
    smoothed = 0.7 * np.eye(3)[labels] + 0.1
    assert losses == pytest.approx(-(smoothed * np.log(probabilities)).sum(axis=1), rel=1e-5)


def test_class_weights_make_classes_count_the_same():
    counts = np.array([10, 30, 60])
    weights = optimization.class_weights(counts)
    assert weights * counts == pytest.approx([100 / 3] * 3)


def test_a_class_without_images_cannot_be_balanced():
    with pytest.raises(UserError, match=r"trainer.class_weights=balanced: 1 of 3 classes"):
        optimization.class_weights(np.array([10, 0, 60]))
