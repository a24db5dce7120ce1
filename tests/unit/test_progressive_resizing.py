import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.transformed_files import striped_images, write_transformed
from trainer_module import input_pipeline, training
from trainer_module.progressive_resizing import ProgressiveSizes, ResizingModel
from trainer_module.settings import (
    AccelerationSettings,
    ModelSettings,
    ProgressiveResizingSettings,
    SamSettings,
    TrainerSettings,
    TrainingSettings,
)
from trainer_module.sharpness import SharpnessAwareModel

SIZE = 16


class _Noting(keras.layers.Layer):
    """Notes the size of the images that the network was traced for, in training and in inference."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, inputs, training=None):
        self.seen.append((bool(training), inputs.shape[1]))
        return inputs


def _network():
    image = keras.Input([SIZE, SIZE, 3])
    noting = _Noting()
    features = keras.layers.Conv2D(4, 3, strides=2, padding="same")(noting(image))
    features = keras.layers.BatchNormalization(momentum=0.5)(features)
    probabilities = keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling2D()(features))
    noting.seen.clear()
    return keras.Model(image, probabilities), noting.seen


def _compiled(model, rate=0.1, **how):
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", **how)
    return model


@pytest.fixture(scope="module")
def examples():
    images, labels = striped_images(32, SIZE)
    return images.astype(np.float32), labels


def test_a_step_is_one_on_images_that_were_resized_before(examples):
    images, labels = examples
    network, _ = _network()
    plain = ResizingModel(network)
    weights = plain.get_weights()
    plain.train_at(8)
    loss = _compiled(plain).fit(images, labels, batch_size=32, verbose=0).history["loss"]
    small = tf.image.resize(images, [8, 8])
    ours = plain.get_weights()

    image = keras.Input([8, 8, 3])
    x = image
    for layer in network.layers[2:]:
        x = layer(x)
    expected = keras.Model(image, x)
    expected.set_weights(weights)
    assert _compiled(expected).fit(small, labels, batch_size=32, verbose=0).history["loss"] == pytest.approx(loss)
    for one, other in zip(ours, expected.get_weights(), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (ResizingModel, {}),
        (ResizingModel, {"steps_per_execution": 2}),
        (SharpnessAwareModel, {}),
        (SharpnessAwareModel, {"jit_compile": True}),
    ],
)
def test_every_epoch_has_its_size_and_validation_the_full_one(examples, kind, how):
    network, seen = _network()
    model = _compiled(kind(network), **how)
    sizes = [8, 8, 12, SIZE]
    for first in (0, 2):
        seen.clear()
        model.fit(
            *examples,
            initial_epoch=first,
            epochs=len(sizes),
            validation_data=examples,
            callbacks=[ProgressiveSizes(sizes)],
            verbose=0,
        )
        trained = [size for in_training, size in seen if in_training]
        assert list(dict.fromkeys(trained)) == list(dict.fromkeys(sizes[first:]))
        assert {size for in_training, size in seen if not in_training} <= {SIZE}
    assert model.predict(examples[0], verbose=0) == pytest.approx(network.predict(examples[0], verbose=0))


def test_without_a_size_steps_are_those_of_keras(examples):
    (plain, _), (network, _) = _network(), _network()
    ours = ResizingModel(network)
    ours.set_weights(plain.get_weights())
    histories = [_compiled(model).fit(*examples, epochs=2, shuffle=False, verbose=0).history for model in (plain, ours)]
    assert histories[0] == histories[1]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    directory = tmp_path_factory.mktemp("progressive")
    records = [
        input_pipeline.measure([write_transformed(directory / f"{seed}.gz", *striped_images(64, 2 * SIZE, seed))])
        for seed in (0, 1)
    ]

    def train(**trainer):
        settings = TrainingSettings(
            image_size=2 * SIZE,
            seed=5,
            # The fastest to trace: it has the fewest layers.
            model=ModelSettings(architecture="pooling", width=0.1),
            trainer=TrainerSettings(batch_size=32, **trainer),
            acceleration=AccelerationSettings(mode="manual"),
        )
        return training.train(settings, *records, 2, directory / "logs")

    return train


@pytest.mark.component  # Three trainings.
def test_the_trainings_differ_from_the_first_epoch_on_and_end_at_full_size(train):
    smaller = ProgressiveResizingSettings(initial_scale=0.5, share=0.5)
    plain = train(epochs=2)
    resized = train(epochs=2, progressive_resizing=smaller)
    aware = train(epochs=2, progressive_resizing=smaller, sam=SamSettings(rho=0.5, share=0.5))
    assert plain.history["loss"][0] != resized.history["loss"][0]
    assert resized.history["loss"][0] == aware.history["loss"][0]
    assert resized.history["val_loss"][1] != aware.history["val_loss"][1]
    assert resized.model.input_shape == (None, 2 * SIZE, 2 * SIZE, 3)


@pytest.mark.component  # A whole training.
def test_patience_begins_with_the_first_epoch_at_full_size(train):
    # No step changes anything that counts, so that no epoch is better than the first.
    still = {"epochs": 10, "patience": 2, "optimizer": "sgd", "learning_rate": 1e-12}
    # Four epochs at 28 pixels, then 32.
    smaller = ProgressiveResizingSettings(initial_scale=0.9, share=0.5)
    assert train(**still, progressive_resizing=smaller).record.epochs >= 6
