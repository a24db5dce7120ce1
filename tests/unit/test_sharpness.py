from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.transformed_files import striped_images, write_transformed
from trainer_module import acceleration, input_pipeline, training
from trainer_module.distillation import DistilledModel
from trainer_module.settings import AccelerationSettings, ModelSettings, SamSettings, TrainerSettings, TrainingSettings
from trainer_module.sharpness import SharpnessAwareEpochs, SharpnessAwareModel

RATE, RHO = 0.5, 0.3


def _network(normalised=False):
    pixels = keras.Input([4])
    hidden = keras.layers.BatchNormalization(momentum=0.5)(pixels) if normalised else pixels
    return keras.Model(pixels, keras.layers.Dense(3, activation="softmax", name="dense")(hidden))


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 4)).astype(np.float32), rng.integers(3, size=32)


def _step(model, examples, rate=RATE, sample_weight=None, **how):
    """Does one sharpness-aware step on all examples; returns the reported metrics."""
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", **how)
    model.become_sharpness_aware()
    return model.fit(*examples, batch_size=32, shuffle=False, sample_weight=sample_weight, verbose=0).history


def _gradients(kernel, bias, images, labels):
    """Of the mean cross-entropy of a softmax regression."""
    logits = images @ kernel + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = (powers / powers.sum(axis=1, keepdims=True) - np.eye(3)[labels]) / len(labels)
    return images.T @ errors, errors.sum(axis=0)


@pytest.mark.parametrize("how", [{}, {"jit_compile": True}, {"steps_per_execution": 2}])
def test_a_step_follows_the_gradient_from_the_worst_weights_nearby(examples, how):
    model = SharpnessAwareModel(_network(), RHO)
    kernel, bias = (weights.astype(np.float64) for weights in model.get_weights())
    _step(model, examples, **how)
    uphill = _gradients(kernel, bias, *examples)
    scale = RHO / np.sqrt(sum((gradient**2).sum() for gradient in uphill))
    nearby = _gradients(kernel + scale * uphill[0], bias + scale * uphill[1], *examples)
    # A plain step would end elsewhere.
    assert abs(nearby[0] - uphill[0]).max() > 0.01
    for before, gradient, after in zip((kernel, bias), nearby, model.get_weights(), strict=True):
        assert after == pytest.approx(before - RATE * gradient, abs=1e-5)


def test_until_told_otherwise_steps_are_those_of_keras(examples):
    plain, ours = _network(normalised=True), SharpnessAwareModel(_network(normalised=True), RHO)
    ours.set_weights(plain.get_weights())
    histories = []
    for model in (plain, ours):
        model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
        histories.append(model.fit(*examples, epochs=3, shuffle=False, verbose=0).history)
    assert histories[0] == histories[1]
    assert all((a == b).all() for a, b in zip(plain.get_weights(), ours.get_weights(), strict=True))


def test_moving_averages_and_reported_loss_are_those_of_the_weights_themselves(examples):
    plain, ours = _network(normalised=True), SharpnessAwareModel(_network(normalised=True), rho=10.0)
    ours.set_weights(plain.get_weights())
    plain.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    reported = plain.fit(*examples, batch_size=32, shuffle=False, verbose=0).history
    assert _step(ours, examples, rate=0.0) == reported
    # At a rate of 0 the weights are exactly what they were, too.
    assert all((a == b).all() for a, b in zip(plain.get_weights(), ours.get_weights(), strict=True))


def test_no_gradient_no_step(examples):
    model = SharpnessAwareModel(_network(), RHO)
    before = model.get_weights()
    _step(model, examples, sample_weight=np.zeros(32))
    assert all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True))


def test_an_overflow_under_loss_scaling_costs_one_step_and_not_the_training(examples):
    with acceleration.computing("float16"):
        model = SharpnessAwareModel(_network(), RHO)
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=2.0**24)
        model.compile(optimizer, "sparse_categorical_crossentropy")
    model.become_sharpness_aware()
    losses = model.fit(*examples, batch_size=32, epochs=40, verbose=0).history["loss"]
    assert optimizer.loss_scale < 2.0**24
    assert losses[-1] < losses[0]
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


def test_a_students_whole_objective_is_sharpness_aware(examples):
    teacher = _network()
    student = DistilledModel(_network(), teacher, weight=1.0, temperature=1.0, rho=RHO)
    kernel, bias = (weights.astype(np.float64) for weights in student.get_weights())
    _step(student, examples)
    images, _ = examples
    wanted = teacher.predict(images, verbose=0)

    def gradients(kernel, bias):
        logits = images @ kernel + bias
        errors = (tf.nn.softmax(logits).numpy() - wanted) / len(images)
        return images.T @ errors, errors.sum(axis=0)

    uphill = gradients(kernel, bias)
    scale = RHO / np.sqrt(sum((gradient**2).sum() for gradient in uphill))
    nearby = gradients(kernel + scale * uphill[0], bias + scale * uphill[1])
    assert student.get_weights()[0] == pytest.approx(kernel - RATE * nearby[0], abs=1e-5)


def test_a_teacher_answers_once_a_step(examples):
    asked = []

    class Asked(keras.layers.Layer):
        def call(self, inputs):
            tf.py_function(lambda: asked.append(1), [], [])
            return inputs

    pixels = keras.Input([4])
    teacher = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(Asked()(pixels)))
    asked.clear()
    _step(DistilledModel(_network(), teacher, weight=1.0, temperature=1.0, rho=RHO), examples)
    assert len(asked) == 1


@pytest.mark.parametrize(("epochs", "first"), [(1, 0), (2, 1), (5, 4), (10, 8)])
def test_at_least_one_epoch_is_sharpness_aware_however_few_there_are(epochs, first):
    switched = []
    callback = SharpnessAwareEpochs(SamSettings(rho=RHO, share=0.2), epochs)
    for epoch in range(epochs):
        callback.set_model(SimpleNamespace(become_sharpness_aware=lambda epoch=epoch: switched.append(epoch)))
        callback.on_epoch_begin(epoch)
    assert switched == list(range(first, epochs))


@pytest.mark.component  # Two trainings.
def test_the_last_epochs_are_sharpness_aware(tmp_path):
    records = [
        input_pipeline.measure([write_transformed(tmp_path / f"{seed}.gz", *striped_images(64, 16, seed))])
        for seed in (0, 1)
    ]

    def losses(rho):
        settings = TrainingSettings(
            image_size=16,
            seed=5,
            model=ModelSettings(architecture="pooling", width=0.1),
            trainer=TrainerSettings(epochs=5, batch_size=32, sam=SamSettings(rho=rho, share=0.4)),
            acceleration=AccelerationSettings(mode="manual"),
        )
        return training.train(settings, *records, 2, tmp_path / str(rho)).history["val_loss"]

    plain, aware = losses(0.0), losses(0.5)
    assert plain[:3] == aware[:3]
    assert plain[3:] != aware[3:]
