"""Models that Keras 3 has written, rebuilt for compression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from pipeline import keras3
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import tf_keras

SIZE = 16
_RNG = np.random.default_rng(1)
# Of a colour each.
PIXELS = (_RNG.integers(0, 200, (8, 1, 1, 3)) + _RNG.integers(0, 56, (8, SIZE, SIZE, 3))).astype(np.float32)


def classes(x: Any) -> Any:
    """Ends a network so that its answers differ from image to image, whatever its weights."""
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return layers.Dense(3, activation="softmax")(layers.LayerNormalization()(x))


def tutorial(image: Any) -> Any:
    augmentation = keras.Sequential(
        [layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomContrast(0.1), layers.GaussianNoise(1.0)]
    )
    base = keras.Sequential(
        [
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6),
            keras.Sequential([layers.DepthwiseConv2D(3, padding="same"), layers.Conv2D(8, 1, activation="relu")]),
        ]
    )
    base.trainable = False
    x = base(augmentation(image) / 127.5 - 1, training=False)
    return classes(layers.Dropout(0.2)(x))


def arithmetic(image: Any) -> Any:
    x = layers.Conv2D(4, 3)((1 - image / 255) * np.array([1, 2, 0.5], np.float32))
    y = layers.Conv2D(4, 1)(x)
    gate = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    x = ops.maximum(x + y, y - x) * gate
    return classes(ops.concatenate([ops.relu(x), -x, ops.cast(2 * y + 1, "float32")], axis=-1))


def reversed_channels(image: Any) -> Any:
    # As preprocess_input of ResNet and VGG does.
    x = ops.stack([image[..., channel] for channel in (2, 1, 0)], axis=-1) - np.array([103.9, 116.8, 123.7], np.float32)
    return classes(layers.Conv2D(4, 3)(layers.Concatenate()([x, image[..., ::-1], image[:, :, :, :2]])))


def activations(image: Any) -> Any:
    x = layers.Rescaling(1 / 64, offset=-2)(image)
    functions = ("hard_silu", "hard_sigmoid", "leaky_relu", "silu", "gelu", "elu", "selu", "mish", "relu6")
    made = [layers.Conv2D(4, 1, activation=function)(x) for function in functions]
    made += [layers.Activation("softplus")(x), ops.tanh(x), ops.hard_silu(x), layers.Activation("hard_sigmoid")(x)]
    slopes = layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform")
    bent = layers.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2)
    made += [layer(x) for layer in (slopes, bent, layers.LeakyReLU(0.3), layers.ELU(0.5))]
    x = layers.LayerNormalization()(layers.GlobalAveragePooling2D()(layers.Concatenate()(made)))
    return layers.Softmax()(layers.Dense(3, activation=layers.LeakyReLU(0.2))(x))


def normalizations(image: Any) -> Any:
    adapted = layers.Normalization()
    adapted.adapt(PIXELS)
    known = layers.Normalization(mean=[0.0, 0.1, 0.2], variance=[1.0, 2.0, 3.0])
    x = layers.Conv2D(8, 3)(layers.Rescaling([1.0, 0.5, 2.0])(known(adapted(image))))
    x = layers.GroupNormalization(groups=4)(layers.LayerNormalization()(x))
    return classes(layers.BatchNormalization(scale=False)(layers.UnitNormalization()(x)))


def shapes(image: Any) -> Any:
    x = layers.ZeroPadding2D(((0, 1), (1, 0)))(image / 64 - 2)
    x = layers.SeparableConv2D(8, 3, depth_multiplier=2, activation="gelu")(x)
    x = layers.MaxPooling2D()(layers.UpSampling2D(2, interpolation="bilinear")(layers.Cropping2D(1)(x)))
    x = layers.AveragePooling2D(2, padding="same")(layers.Conv2DTranspose(4, 3, strides=2)(x))
    others = [layers.Conv2D(4, 3, padding="same")(layers.LayerNormalization()(x)) for _ in range(4)]
    x = layers.Average()([x, layers.Maximum()(others[:2]), layers.Minimum()(others[2:])])
    x = layers.Multiply()([layers.Subtract()([x, others[0]]), layers.Add()(others)])
    x = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    return classes(layers.Flatten()(layers.Permute((2, 1))(layers.Reshape((2, 4))(x))))


def shared(image: Any) -> Any:
    convolution, relu = layers.Conv2D(3, 3, padding="same"), layers.ReLU()
    inside = keras.Input((SIZE, SIZE, 3))
    twice = keras.Model(inside, [layers.Conv2D(3, 1)(inside), layers.Conv2D(3, 1)(inside)])
    first, second = twice(relu(convolution(image / 255)))
    third, _ = twice(relu(convolution(first + second - 0.5)))
    return classes(third)


def odd_names(image: Any) -> Any:
    inner = keras.Sequential([layers.Conv2D(4, 3, name="conv")])
    return classes(inner(layers.Conv2D(3, 3, name="conv")(layers.Conv2D(3, 3, name="1 conv: 3x3")(image / 255))))


NETWORKS = [tutorial, arithmetic, reversed_channels, activations, normalizations, shapes, shared, odd_names]


def saved(path: Path, network: Callable[[Any], Any], **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), **options)
    model = keras.Model(image, network(image))
    # So that no statistics are left at zero and one, and no biases at zero.
    rng = np.random.default_rng(2)
    for layer in model.layers:
        if not isinstance(layer, layers.Normalization):
            values = [value + rng.uniform(0, 0.1, value.shape).astype(value.dtype) for value in layer.get_weights()]
            layer.set_weights(values)
    model.save(path)
    return model


def require_same(rebuilt: tf_keras.Model, model: Any, tolerance: float = 1e-5) -> None:
    wanted = np.asarray(model(PIXELS, training=False), np.float32)
    assert np.ptp(wanted, axis=0).max() > 0.01
    np.testing.assert_allclose(rebuilt(PIXELS, training=False).numpy(), wanted, atol=tolerance)


@pytest.mark.parametrize(
    ("network", "suffix"),
    [*((network, ".keras") for network in NETWORKS), (tutorial, ".h5"), (arithmetic, ".h5"), (normalizations, ".h5")],
)
def test_a_network_is_rebuilt_without_models_in_it(network: Callable[[Any], Any], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    model = saved(path, network)
    assert keras3.wrote(path)
    rebuilt = keras3.read(path).rebuilt()
    require_same(rebuilt, model)
    assert not any(hasattr(layer, "layers") for layer in rebuilt.layers)


def test_arithmetic_on_pixels_is_one_layer_and_what_was_frozen_learns(tmp_path: Path) -> None:
    saved(tmp_path / "model.keras", tutorial)
    rebuilt = keras3.read(tmp_path / "model.keras").rebuilt()
    kinds = [type(layer).__name__ for layer in rebuilt.layers]
    assert kinds[:5] == ["InputLayer", "Rescaling", "Conv2D", "BatchNormalization", "ReLU"]
    assert (kinds[-1], rebuilt.layers[-1].activation.__name__) == ("Dense", "softmax")
    assert (rebuilt.layers[1].scale, rebuilt.layers[1].offset) == (1 / 127.5, -1)
    assert not any(kind.startswith(("Random", "Gaussian")) for kind in kinds)
    assert "Dropout" in kinds
    assert all(layer.trainable for layer in rebuilt.layers)


def test_a_shared_layer_stays_shared(tmp_path: Path) -> None:
    model = saved(tmp_path / "model.keras", shared)
    assert keras3.read(tmp_path / "model.keras").rebuilt().count_params() == model.count_params()


def test_a_keras_application_is_rebuilt(tmp_path: Path) -> None:
    image = keras.Input((32, 32, 3), batch_size=1)
    base = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.25)
    model = keras.Model(image, classes(base(keras.applications.mobilenet.preprocess_input(image))))
    model.save(tmp_path / "model.keras")
    rebuilt = keras3.read(tmp_path / "model.keras").rebuilt()
    assert rebuilt.count_params() == model.count_params()
    assert rebuilt.input_shape == (None, 32, 32, 3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_reduced_precision_becomes_float32(policy: str, tmp_path: Path) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = saved(
            tmp_path / "model.keras", lambda image: classes(layers.Conv2D(4, 3)(layers.Rescaling(0.01)(image)))
        )
    finally:
        keras.config.set_dtype_policy(before)
    rebuilt = keras3.read(tmp_path / "model.keras").rebuilt()
    require_same(rebuilt, model, tolerance=0.05)
    assert {weight.dtype.name for weight in rebuilt.weights} == {"float32"}


def test_integer_pixels_a_dictionary_and_a_directory_are_taken(tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="image")
    model = keras.Model({"image": image}, {"answer": classes(layers.Conv2D(4, 3)(image / 255))})
    model.save(tmp_path / "model", zipped=False)
    assert keras3.wrote(tmp_path / "model")
    rebuilt = keras3.read(tmp_path / "model").rebuilt()
    wanted = model({"image": PIXELS.astype(np.uint8)})["answer"]
    np.testing.assert_allclose(rebuilt(PIXELS), wanted, atol=1e-5)


def test_sequential_models_around_models_are_rebuilt(tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Sequential([keras.Model(image, classes(layers.Conv2D(4, 3)(image)))])
    model.save(tmp_path / "model.keras")
    require_same(keras3.read(tmp_path / "model.keras").rebuilt(), model)


class Own(layers.Layer):
    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (lambda image: classes(Own(name="mine")(image)), r"its layer 'mine' \(Own of Keras 3\) cannot be rebuilt"),
        (lambda image: classes(ops.sort(image)), r"its layer 'sort' \(Sort of Keras 3\) cannot be rebuilt"),
        (lambda image: classes(2 / (image + 1)), r"\(TrueDivide of Keras 3\) cannot .*: such arithmetic has no layer"),
        (lambda image: classes(image[:, 1:]), r"\(GetItem of Keras 3\) cannot .*: it takes a part of its input"),
        (
            lambda image: classes(layers.Conv2D(4, 3, activation="squareplus", name="c")(image)),
            r"its layer 'c' \(Conv2D of Keras 3\) .*: Keras 2 has no activation 'squareplus'",
        ),
        (
            lambda image: classes(image * np.ones((SIZE, SIZE, 3), np.float32)),
            r"\(Multiply of Keras 3\) .* of shape \(16, 16, 3\) is neither one number nor one for each channel",
        ),
        (lambda image: classes(ops.cast(image, "int32")), "computes in int32; give the model in floating point"),
        # What both Keras call the same, and compute otherwise.
        (
            lambda image: classes(layers.Conv2D(4, 3)(layers.Resizing(9, 9, antialias=True)(image))),
            r"rebuilt for compression, its answers differ by .* from those in Keras 3",
        ),
    ],
)
def test_what_cannot_be_rebuilt_is_named(network: Callable[[Any], Any], named: str, tmp_path: Path) -> None:
    saved(tmp_path / "model.keras", network)
    with pytest.raises(UserError, match=named):
        keras3.read(tmp_path / "model.keras").rebuilt()


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(image)))
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="give the model in floating point"):
        keras3.read(tmp_path / "model.keras")


def test_a_model_without_an_input_is_refused(tmp_path: Path) -> None:
    keras.Sequential([layers.Flatten(), layers.Dense(3)]).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"begin the model with Input\(\[S, S, 3\]\)"):
        keras3.read(tmp_path / "model.keras")


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path / "model.keras", odd_names)
    model.set_weights([np.full_like(value, np.nan) for value in model.get_weights()])
    model.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="its answers are not finite"):
        keras3.read(tmp_path / "model.keras").rebuilt()


def test_files_of_others_are_not_taken_for_those_of_keras_3(tmp_path: Path) -> None:
    (tmp_path / "photo.keras").write_bytes(b"\xff\xd8 not a model")
    assert not keras3.wrote(tmp_path / "photo.keras")
    assert not keras3.wrote(tmp_path)
