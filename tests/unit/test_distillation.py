import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from trainer_module import distillation
from trainer_module.settings import DistillationSettings, ModelSettings, TrainerSettings, TrainingSettings

TEACHER = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]], np.float32)
STUDENT = np.array([[0.3, 0.3, 0.4], [0.0, 0.0, 1.0]], np.float32)


def _softened(probabilities, temperature):
    powers = np.maximum(probabilities, 1e-20) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_imitation_loss_is_the_scaled_divergence(temperature):
    losses = distillation.imitation_loss(tf.constant(TEACHER), tf.constant(STUDENT), temperature).numpy()
    wanted, found = (_softened(values.astype(np.float64), temperature) for values in (TEACHER, STUDENT))
    assert losses == pytest.approx(temperature**2 * (wanted * np.log(wanted / found)).sum(axis=1), rel=1e-4)


def test_a_perfect_imitation_costs_nothing():
    losses = distillation.imitation_loss(tf.constant(TEACHER), tf.constant(TEACHER), 2.0).numpy()
    assert losses == pytest.approx([0, 0], abs=1e-6)


def test_the_gradient_is_finite_where_a_probability_is_zero():
    # Logits so far apart that the smaller probability underflows.
    logits = tf.Variable([[200.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        # As float16 training scales it.
        loss = 2.0**15 * distillation.imitation_loss(tf.constant(TEACHER[:1]), tf.nn.softmax(logits), 1.0)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def _network(units=2):
    pixels = keras.Input([4])
    hidden = keras.layers.Dense(units, activation="relu")(pixels)
    return keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(hidden))


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    return rng.normal(size=(64, 4)).astype(np.float32) + 3 * labels[:, None].astype(np.float32), labels


@pytest.mark.parametrize(("weight", "obeys_teacher", "jit"), [(0.0, False, False), (1.0, True, True)])
def test_the_weight_decides_between_labels_and_teacher(examples, weight, obeys_teacher, jit):
    keras.utils.set_random_seed(0)
    images, labels = examples
    teacher = _network()
    teacher.compile("adam", "sparse_categorical_crossentropy")
    # It has learned everything the wrong way round.
    teacher.optimizer.learning_rate = 0.1
    teacher.fit(images, 1 - labels, epochs=20, verbose=0)
    student = distillation.DistilledModel(_network(units=8), teacher, weight, temperature=2.0)
    student.compile(
        keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy", steps_per_execution=2, jit_compile=jit
    )
    student.fit(images, labels, epochs=20, verbose=0)
    answers = student.predict(images, verbose=0).argmax(axis=1)
    assert (answers == (1 - labels if obeys_teacher else labels)).mean() > 0.9


def test_sample_weights_count_for_both_parts_of_the_loss(examples):
    images, labels = examples
    student = distillation.DistilledModel(_network(), _network(), weight=0.5, temperature=2.0)
    student.compile("sgd", "sparse_categorical_crossentropy")
    before = student.get_weights()
    student.fit(images, labels, sample_weight=np.zeros(len(labels)), verbose=0)
    assert all((old == new).all() for old, new in zip(before, student.get_weights(), strict=True))


def test_the_teacher_is_no_part_of_the_student(examples):
    plain = _network()
    student = distillation.DistilledModel(plain, _network(units=100), weight=0.5, temperature=2.0)
    assert student.count_params() == plain.count_params()
    assert [weight.name for weight in student.weights] == [weight.name for weight in plain.weights]


def test_the_teacher_is_trained_like_the_student_but_for_network_and_epochs():
    wanted = DistillationSettings(teacher="pooling", width=3.0, epochs=3)
    student = TrainingSettings(
        image_size=32, model=ModelSettings(dropout=0.3), trainer=TrainerSettings(ema=0.9, distillation=wanted)
    )
    teacher = distillation.teacher_settings(student)
    assert (teacher.model.architecture, teacher.model.width, teacher.model.dropout) == ("pooling", 3.0, 0.3)
    assert (teacher.trainer.epochs, teacher.trainer.ema) == (3, 0.9)
    assert teacher.trainer.distillation.teacher == "none"


def test_a_teacher_trains_as_long_as_the_student_by_default():
    trainer = TrainerSettings(epochs=17, distillation=DistillationSettings(teacher="lean"))
    teacher = distillation.teacher_settings(TrainingSettings(image_size=32, trainer=trainer))
    assert teacher.trainer.epochs == 17
