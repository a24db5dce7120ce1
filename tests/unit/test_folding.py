import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from trainer_module.architectures import ARCHITECTURES
from trainer_module.errors import UserError
from trainer_module.export import FOLDING_TOLERANCE, save_serving_model
from trainer_module.folding import fold_batch_norm
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings

SIZE = 32

# The second processor stands for a GPU: what is not told where to compute, computes there.
EXPORT_BESIDE_A_GPU = """
import sys

import tensorflow as tf
import tf_keras as keras

from trainer_module.export import save_serving_model

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
devices = []


class Witness(keras.layers.Layer):
    def call(self, inputs):
        if tf.executing_eagerly():
            devices.append(inputs.device)
        return inputs


with keras.utils.custom_object_scope({"Witness": Witness}), tf.device("CPU:1"):
    image = keras.Input([8, 8, 3])
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3)(image))
    x = keras.layers.GlobalAveragePooling2D()(Witness()(x))
    save_serving_model(keras.Model(image, keras.layers.Softmax()(x)), sys.argv[1], list("abcdefgh"), 8)
print(*devices)
"""


@pytest.fixture(autouse=True)
def _same_weights_in_every_run():
    keras.utils.set_random_seed(0)


def _images(count=16, seed=0):
    """Blurred noise, because smooth areas are what photos have and noise lacks."""
    coarse = np.random.default_rng(seed).uniform(-50, 300, (count, 5, 5, 3))
    return np.clip(tf.image.resize(coarse, (SIZE, SIZE)), 0, 255).astype(np.float32)


def _as_if_trained(model, seed=0):
    """Gives the batch normalisations the statistics of real activations, and scales and shifts of their own."""
    rng = np.random.default_rng(seed)
    for layer in _norms(model):
        channels = layer.moving_mean.shape[0]
        layer.momentum = 0.0
        if layer.scale:
            layer.gamma.assign(rng.uniform(0.3, 2.0, channels))
        if layer.center:
            layer.beta.assign(rng.normal(0, 0.5, channels))
    model(_images(32, seed=9), training=True)
    return model


def _norms(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def _difference(model, other):
    answers, others = model(_images(), training=False).numpy(), other(_images(), training=False).numpy()
    assert answers.std(axis=0).max() > 0.01, "the answers do not depend on the image"
    return np.abs(answers - others).max()


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_network_answers_the_same_without_batch_normalization(architecture):
    model = _as_if_trained(build_model(ModelSettings(architecture=architecture, width=0.25), SIZE, 5))
    folded = fold_batch_norm(model)
    assert _norms(model)
    assert not _norms(folded)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in folded.layers)
    assert _difference(model, folded) < FOLDING_TOLERANCE


@pytest.mark.parametrize("architecture", ["lean", "separable"])
def test_channels_that_hardly_vary_fold_as_well(architecture):
    model = build_model(ModelSettings(architecture=architecture, width=0.25), SIZE, 5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = layer.get_weights()[0]
            kernel[:, :, 0] = 0.0
            kernel[:, :, 1] *= 1e-5
            layer.set_weights([kernel])
    _as_if_trained(model)
    assert min(norm.moving_variance.numpy().min() for norm in _norms(model)) == 0.0
    assert _difference(model, fold_batch_norm(model)) < FOLDING_TOLERANCE


def test_the_model_itself_stays_as_it_is():
    model = _as_if_trained(build_model(ModelSettings(width=0.25), SIZE, 5))
    before = model.get_weights()
    folded = fold_batch_norm(model)
    folded.set_weights([np.zeros_like(weight) for weight in folded.get_weights()])
    assert all((one == other).all() for one, other in zip(model.get_weights(), before, strict=True))


def _imprecise_model():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        return _as_if_trained(build_model(ModelSettings(width=0.25), SIZE, 3))
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_a_folded_model_computes_in_the_precision_of_the_model():
    folded = fold_batch_norm(_imprecise_model())
    assert folded.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert folded.input.dtype == folded.output.dtype == "float32"


def _varied_model():
    """A network with everything that may stand around a convolution; the names say what has to happen to them."""
    layers = keras.layers
    image = keras.Input([SIZE, SIZE, 3])
    x = layers.Conv2D(8, 3, strides=2, bias_initializer=keras.initializers.Constant(50.0))(
        layers.Rescaling(1 / 255)(image)
    )
    x = layers.Dropout(0.0)(x)
    x = layers.BatchNormalization(scale=False, name="folded_without_scale")(x)
    x = layers.ReLU(6.0, name="folded_relu6")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)
    x = layers.BatchNormalization(center=False, name="folded_depthwise")(x)
    x = layers.Activation("swish", name="folded_swish")(x)
    x = layers.BatchNormalization(name="kept_after_activation")(x)
    gate = layers.Conv2D(16, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    gate = layers.BatchNormalization(name="kept_after_nonlinear_convolution")(gate)
    x = layers.Multiply()([x, gate])
    both = layers.Conv2D(16, 3, groups=2, padding="same", name="consumed_twice")(x)
    x = layers.Add()([both, layers.BatchNormalization(name="kept_beside_another_consumer")(both)])
    x = layers.ReLU(name="kept_after_add")(x)
    grouped = layers.Conv2D(16, 3, groups=2, padding="same", name="grouped")(x)
    grouped = layers.BatchNormalization(name="folded_before_two_consumers")(grouped)
    x = layers.Concatenate()([grouped, layers.ReLU(name="kept_beside_add")(grouped)])
    x = layers.ReLU(negative_slope=0.1, name="kept_leaky")(layers.Conv2D(8, 1)(x))
    shared_convolution, shared_norm = layers.Conv2D(8, 1), layers.BatchNormalization(name="kept_shared")
    x = layers.Add()([shared_norm(shared_convolution(branch)) for branch in (x, layers.AveragePooling2D(1)(x))])
    x = layers.BatchNormalization(name="kept_after_pooling")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Softmax()(layers.Dense(4)(x)))


def test_only_what_a_convolution_can_compute_is_folded():
    model = _as_if_trained(_varied_model())
    folded = fold_batch_norm(model)
    named = {layer.name for layer in model.layers if layer.name.startswith(("kept", "folded"))}
    left = {layer.name for layer in folded.layers if layer.name.startswith(("kept", "folded"))}
    assert left == {name for name in named if name.startswith("kept")}
    assert _difference(model, folded) < FOLDING_TOLERANCE


def _export(model, directory, **options):
    save_serving_model(model, str(directory), ["a", "b", "c"], SIZE, **options)
    return (directory / "saved_model.pb").read_bytes()


def test_the_exported_model_is_folded_and_answers_as_the_trained_one(tmp_path):
    model = _as_if_trained(build_model(ModelSettings(width=0.25), SIZE, 3))
    graph = _export(model, tmp_path / "folded", images=_images().astype(np.uint8))
    assert b"FusedBatchNorm" not in graph
    assert b"FusedBatchNorm" in _export(model, tmp_path / "plain", fold=False)
    images = _images(8, seed=5).astype(np.uint8)
    expected = model(images.astype(np.float32), training=False).numpy()
    for directory in ("folded", "plain"):
        answer = tf.saved_model.load(str(tmp_path / directory)).signatures["serving_images"](images=tf.constant(images))
        np.testing.assert_allclose(answer["probabilities"], expected, atol=FOLDING_TOLERANCE)
        assert [label.decode() for label in answer["label"].numpy()] == ["abc"[index] for index in expected.argmax(1)]


def _broken_model():
    model = build_model(ModelSettings(width=0.25), SIZE, 3)
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("build", [_imprecise_model, _broken_model])
def test_a_folded_model_that_answers_otherwise_is_not_written(tmp_path, build):
    with pytest.raises(UserError, match=r"^acceleration\.fold_batch_norm=true: folding changes the probabilities"):
        _export(build(), tmp_path / "model", images=_images().astype(np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.component  # A process that loads TensorFlow.
def test_folding_is_checked_where_float32_is_no_less(tmp_path):
    command = [sys.executable, "-c", EXPORT_BESIDE_A_GPU, str(tmp_path / "model")]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=300)
    assert [device[-5:] for device in run.stdout.split()] == ["CPU:0", "CPU:0"]


def test_a_sequential_model_folds_too():
    layers = [
        keras.layers.Conv2D(8, 3, use_bias=False, input_shape=[SIZE, SIZE, 3]),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ]
    model = _as_if_trained(keras.Sequential(layers))
    folded = fold_batch_norm(model)
    assert not _norms(folded)
    assert _difference(model, folded) < FOLDING_TOLERANCE
