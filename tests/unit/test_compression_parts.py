"""The parts of compression that need no training: channels, few bits, sensitivities, the search, the store."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from pydantic import ValidationError

from components.compression import channel_pruning, checks, search, sensitivity, stages
from components.compression.clustering import clusterable
from components.compression.conversion import Converter
from components.compression.data import LabelledImages, Splits
from components.compression.engine import compress
from components.compression.errors import VariantError
from components.compression.integer_kernels import ClusteredKernel, SteppedKernel, best_steps
from components.compression.kernels import choose, require_known_layers
from components.compression.measurement import top1_accuracy
from components.compression.narrow_kernels import integer_range, pack_bits, unpack_bits
from components.compression.precision import computing_in
from components.compression.quantization_aware import fake_quantized
from components.compression.settings import CompressionSettings
from components.compression.store import Store
from trainer_module.architectures import ARCHITECTURES
from trainer_module.errors import UserError
from trainer_module.folding import fold_batch_norm
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 16
IMAGES = np.random.default_rng(0).integers(0, 256, (32, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = np.arange(32) % 4


def unfolded(architecture: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    network = build_model(ModelSettings(architecture=architecture, dropout=0.0), SIZE, 4)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Zero gammas, with which blocks start, would make every branch silent.
            layer.gamma.assign(np.random.default_rng(1).uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(np.random.default_rng(2).uniform(-0.5, 0.5, layer.beta.shape))
    return network


def folded(architecture: str) -> keras.Model:
    return fold_batch_norm(unfolded(architecture))


def certain(model: keras.Model) -> keras.Model:
    """Makes a network so sure of the `answers` it gives, of several classes, that every change costs something."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    pixels = IMAGES.astype(np.float32)
    model(pixels, training=True)
    logits = model.get_layer("logits")
    mean = keras.Model(model.input, logits.output)(pixels).numpy().mean(axis=0)
    logits.set_weights([100 * logits.kernel, 100 * (logits.bias - mean)])
    return model


def answers(model: keras.Model) -> np.ndarray:
    return model.predict(IMAGES.astype(np.float32), verbose=0).argmax(axis=1)


def silence(layer: keras.layers.Layer, channels: np.ndarray | slice) -> None:
    """Makes channels of a convolution, or of the batch normalisation after one, zero for every image."""
    factor, bias, *statistics = layer.get_weights()
    bias[channels] = 0
    # Depthwise kernels end with the multiplier of their channels, which is 1.
    np.moveaxis(factor, -2 if isinstance(layer, keras.layers.DepthwiseConv2D) else -1, 0)[channels] = 0
    layer.set_weights([factor, bias, *statistics])


@pytest.mark.parametrize("architecture", ["lean", "residual", "densenet", "separable", "naive"])
def test_channels_go_and_the_network_stays_whole(architecture: str) -> None:
    model = folded(architecture)
    smaller, changed = channel_pruning.remove_channels(model, 0.2, IMAGES, LABELS)
    most = 0.8 * channel_pruning.multiply_accumulates(model)
    assert channel_pruning.multiply_accumulates(smaller) <= most
    assert changed
    assert all(left % 8 == 0 for left in changed.values())
    assert smaller.input_shape == model.input_shape
    assert smaller.output_shape == model.output_shape
    assert np.isfinite(smaller.predict(IMAGES.astype(np.float32), verbose=0)).all()


def test_sixteens_go_before_eights() -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    features = image
    for channels in (32, 48, 16):
        features = keras.layers.Conv2D(channels, 3, activation="relu", name=f"of_{channels}")(features)
    features = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(image, keras.layers.Dense(4, activation="softmax")(features))
    _, changed = channel_pruning.remove_channels(model, 0.6, IMAGES, LABELS)
    assert changed == {"of_32": 16, "of_48": 16}
    _, changed = channel_pruning.remove_channels(model, 0.8, IMAGES, LABELS)
    assert 8 in changed.values()


@pytest.mark.parametrize("architecture", ["lean", "residual", "densenet"])
def test_batch_normalisation_knows_what_is_left(architecture: str) -> None:
    narrow, _ = channel_pruning.remove_channels(unfolded(architecture), 0.1, IMAGES, LABELS)
    pixels = IMAGES.astype(np.float32)
    # As the images are one batch.
    of_batch = narrow(pixels, training=True).numpy()
    np.testing.assert_allclose(narrow.predict(pixels, verbose=0), of_batch, atol=0.06)
    np.testing.assert_allclose(fold_batch_norm(narrow).predict(pixels, verbose=0), of_batch, atol=0.06)


@pytest.mark.parametrize(("network", "layer"), [(folded, "conv"), (unfolded, "bn")])
def test_silent_channels_go_first_and_nothing_changes(network: Callable[[str], keras.Model], layer: str) -> None:
    model = network("residual")
    silence(model.get_layer(f"stage1_block1_first_{layer}"), np.arange(32) % 2 == 1)
    smaller, changed = channel_pruning.remove_channels(certain(model), 1e-4, IMAGES, answers(model))
    assert changed == {"stage1_block1_first_conv": 16}
    pixels = IMAGES.astype(np.float32)
    np.testing.assert_allclose(smaller.predict(pixels, verbose=0), model.predict(pixels, verbose=0), atol=1e-4)


def bottleneck(_: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    stem = features = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(image)
    for channels, size in ((16, 1), (24, 3), (32, 1)):
        name = f"stage1_block1_of_{channels}"
        features = keras.layers.Conv2D(channels, size, padding="same", activation="relu", name=name)(features)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([features, stem]))
    return keras.Model(image, keras.layers.Softmax()(keras.layers.Dense(4, name="logits")(features)))


def joined(_: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    features = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    for block in ("stage1_block0", "stage1_block1"):
        inner = keras.layers.Conv2D(32, 1, activation="relu", name=f"{block}_of_32")(features)
        inner = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name=f"{block}_of_16")(inner)
        features = keras.layers.Concatenate(name=f"{block}_join")([features, inner])
    features = keras.layers.DepthwiseConv2D(3, name="depthwise")(features)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(24, 1, activation="relu")(features))
    return keras.Model(image, keras.layers.Softmax()(keras.layers.Dense(4, name="logits")(features)))


@pytest.mark.parametrize(
    ("network", "architecture"),
    [(folded, "residual"), (folded, "lean"), (folded, "densenet"), (bottleneck, "bottleneck"), (joined, "joined")],
)
def test_a_silent_block_goes_as_a_whole_and_nothing_changes(
    network: Callable[[str], keras.Model], architecture: str
) -> None:
    model = network(architecture)
    block = [layer for layer in model.layers if layer.name.startswith("stage1_block1_") and layer.weights]
    for layer in block:
        silence(layer, slice(None))
    positions = [np.prod(layer.output_shape[1:3]) * layer.get_weights()[0].size for layer in block]
    share = 0.999 * sum(positions) / channel_pruning.multiply_accumulates(model)
    smaller, changed = channel_pruning.remove_channels(certain(model), share, IMAGES, answers(model))
    # What takes the joined channels by themselves has fewer of them.
    taking = {"depthwise": 32} if architecture == "joined" else {}
    assert changed == {layer.name: 0 for layer in block} | taking
    assert not [layer.name for layer in smaller.layers if layer.name.startswith("stage1_block1_")]
    pixels = IMAGES.astype(np.float32)
    np.testing.assert_allclose(smaller.predict(pixels, verbose=0), model.predict(pixels, verbose=0), atol=1e-5)


@pytest.mark.parametrize("axis", [1, -1])
def test_what_is_joined_otherwise_than_channel_by_channel_keeps_its_channels(axis: int) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    parts = [keras.layers.Conv2D(16, 3, padding="same", name=f"part{number}")(image) for number in range(2)]
    inner = keras.layers.Conv2D(64, 3, padding="same", activation="relu", name="inner")(image)
    features = keras.layers.Concatenate(axis)(parts)
    # Of two groups on one side of the sum, of one on the other.
    other = keras.layers.Conv2D(features.shape[-1], 1, name="other")(inner)
    if axis == 1:
        other = keras.layers.UpSampling2D((2, 1))(other)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([features, other]))
    model = keras.Model(image, keras.layers.Softmax()(keras.layers.Dense(4, name="logits")(features)))
    _, changed = channel_pruning.remove_channels(model, 0.3, IMAGES, LABELS)
    assert set(changed) == {"inner"}


def test_more_channels_than_there_are_cannot_go() -> None:
    with pytest.raises(VariantError, match=r"compression\.channel_sparsity"):
        channel_pruning.remove_channels(folded("residual"), 0.999, IMAGES, LABELS)


@pytest.mark.parametrize(
    ("bits", "values", "stored"), [(4, [-7, 7, 0, -1, 3], [0x79, 0xF0, 0x03]), (2, [-2, 1, 0, -1, 1], [0xC6, 0x01])]
)
def test_few_bits_are_packed_lowest_first_and_come_back(bits: int, values: list[int], stored: list[int]) -> None:
    packed = pack_bits(np.array(values, np.int8), bits)
    assert packed.tolist() == stored
    assert unpack_bits(packed, len(values), bits).tolist() == values


@pytest.mark.parametrize(("bits", "low", "high"), [(2, -2, 1), (4, -7, 7), (8, -127, 127)])
def test_stepped_kernel_is_whole_multiples_of_a_channels_step_and_keeps_zeros(bits: int, low: int, high: int) -> None:
    values = np.random.default_rng(0).normal(size=(3, 3, 8, 5)).astype(np.float32)
    values[np.abs(values) < 0.5] = 0
    kernel = SteppedKernel(values, (3,), bits)
    kernel.build()
    exported = kernel.exported(1.0).numpy()
    multiples = exported / kernel.step().numpy()
    np.testing.assert_allclose(multiples, np.rint(multiples), atol=1e-3)
    assert multiples.min() > low - 1e-3
    assert multiples.max() < high + 1e-3
    assert np.abs(multiples).max() == pytest.approx(-low, abs=1e-3)
    assert (exported[values == 0] == 0).all()
    np.testing.assert_allclose(kernel.trained().numpy(), exported, atol=1e-6)


def test_learned_steps_get_gradients() -> None:
    kernel = SteppedKernel(np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), None, 4)
    kernel.build()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(kernel.trained() ** 2)
    gradients = tape.gradient(loss, kernel.trainable_variables)
    assert all(np.abs(gradient.numpy()).sum() > 0 for gradient in gradients)


def test_clustered_kernel_keeps_its_clusters_and_zero() -> None:
    centres = np.array([-1.0, -0.3, 0.0, 0.2, 0.9], np.float32)
    values = centres[np.random.default_rng(0).integers(0, 5, (1, 1, 16, 8))]
    kernel = ClusteredKernel(values, (3,))
    kernel.build()
    kernel.centres.assign(kernel.centres + 0.013)
    exported = kernel.exported(1.0).numpy()
    assert len(np.unique(exported)) == 5
    np.testing.assert_array_equal(exported == 0, values == 0)
    step = np.abs(exported).max() / 127
    np.testing.assert_allclose(exported / step, np.rint(exported / step), atol=1e-3)


def test_best_steps_beat_the_largest_magnitude() -> None:
    values = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    values[0] = 8.0

    def error(steps: np.ndarray) -> float:
        return float(np.square(np.clip(np.rint(values / steps), -7, 7) * steps - values).sum())

    largest = np.abs(values).max(axis=0, keepdims=True) / 7
    assert error(best_steps(values, (1, 3), (-7, 7))) < error(largest)


def test_a_channel_without_weights_has_a_step_like_the_others() -> None:
    values = np.random.default_rng(0).normal(size=(3, 3, 8, 4)).astype(np.float32)
    values[..., 1] = 0
    values[..., 2] *= 1e-9
    steps = best_steps(values, (1, 1, 1, 4), (-7, 7))
    assert steps.min() > 0.1 * steps.max()
    assert best_steps(0 * values, (1, 1, 1, 4), (-127, 127)).min() > 1e-7


@pytest.fixture(scope="module")
def silent() -> keras.Model:
    """A network whose answers are mostly the biases of channels without weights, in one layer all of them."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    first, some, every = (keras.layers.Conv2D(4, 3) for _ in range(3))
    features = first(keras.layers.Rescaling(1 / 255)(image))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([some(features), every(features)]))
    rng = np.random.default_rng(0)
    for layer, channels in ((first, slice(2)), (some, slice(2)), (every, slice(None))):
        silence(layer, channels)
        layer.bias.assign(rng.uniform(-1.0, 1.0, 4))
    return keras.Model(image, keras.layers.Softmax()(features))


@pytest.mark.parametrize("name", ["int8", "int8_litert", "qat"])
def test_channels_without_weights_keep_their_biases(silent: keras.Model, name: str, tmp_path: Path) -> None:
    model, variant = (fake_quantized(silent, 8, IMAGES), "int8") if name == "qat" else (silent, name)
    path = tmp_path / "model.tflite"
    path.write_bytes(Converter(model, IMAGES, tmp_path / "saved").convert(variant))
    checks.check_biases(path)
    wanted = silent.predict(IMAGES.astype(np.float32), verbose=0)
    np.testing.assert_allclose(TFLiteClassifier(path).predict(IMAGES), wanted, atol=0.02)


@pytest.mark.parametrize("architecture", ["lean", "densenet"])
def test_fake_quantised_model_of_8_bits_answers_much_the_same(architecture: str) -> None:
    model = folded(architecture)
    quantized = fake_quantized(model, 8, IMAGES)
    pixels = IMAGES.astype(np.float32)
    wanted = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(quantized(pixels, training=False).numpy(), wanted, atol=0.06)
    np.testing.assert_allclose(
        quantized(pixels, training=True).numpy(), quantized(pixels, training=False).numpy(), atol=0.03
    )


def _named_ending(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    layers = keras.layers
    if name == "activation":
        return lambda features: layers.Activation("softmax")(layers.Dense(4)(layers.Activation("tanh")(features)))
    hidden = layers.Dense(8, activation=name)
    return lambda features: layers.Dense(4, activation="softmax")(hidden(features))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ending", ["activation", "sigmoid", "softmax", "tanh"])
def test_activations_of_a_fixed_range_become_integers_wherever_they_are_written(
    ending: str, bits: int, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    gate = keras.layers.Conv2D(8, 3, activation="sigmoid")(keras.layers.Rescaling(1 / 255)(image))
    features = keras.layers.Conv2D(8, 3, activation="relu")(gate)
    model = keras.Model(image, _named_ending(ending)(keras.layers.GlobalAveragePooling2D()(features)))
    folded = fold_batch_norm(model)
    pixels = IMAGES.astype(np.float32)
    wanted = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(folded.predict(pixels, verbose=0), wanted, atol=1e-6)
    path = tmp_path / "model.tflite"
    quantized = fake_quantized(folded, bits, IMAGES)
    path.write_bytes(Converter(quantized, IMAGES, tmp_path / "saved").convert("int8"))
    checks.check_integer_only(path)
    expected = quantized(pixels, training=False).numpy()
    np.testing.assert_allclose(TFLiteClassifier(path).predict(IMAGES), expected, atol=0.02)


def test_what_is_joined_has_one_scale_so_that_nothing_is_rounded_twice(tmp_path: Path) -> None:
    quantized = fake_quantized(folded("densenet"), 8, IMAGES)
    path = tmp_path / "model.tflite"
    path.write_bytes(Converter(quantized, IMAGES, tmp_path / "saved").convert("int8"))
    interpreter = Interpreter(model_path=str(path))
    operations = Counter(operation["op_name"] for operation in interpreter._get_ops_details())
    assert operations["CONCATENATION"] == sum(stage.depth for stage in ARCHITECTURES["densenet"].stages)
    # From uint8 and back, and what pooling rounds.
    assert operations["QUANTIZE"] <= 4
    pixels = IMAGES.astype(np.float32)
    np.testing.assert_allclose(
        TFLiteClassifier(path).predict(IMAGES), quantized(pixels, training=False).numpy(), atol=0.02
    )


def test_equal_harm_spares_the_sensitive_layer_and_reaches_the_target() -> None:
    harm = {"tough": np.linspace(0, 0.1, len(sensitivity.LEVELS)), "tender": np.linspace(0, 5, len(sensitivity.LEVELS))}
    sizes = {"tough": 3000, "tender": 1000}
    shares = sensitivity.equal_harm(harm, sizes, 0.6)
    assert shares["tough"] > shares["tender"]
    assert sum(shares[name] * sizes[name] for name in sizes) / 4000 == pytest.approx(0.6, abs=0.01)
    assert sensitivity.equal_harm(harm, sizes, 0.0) == pytest.approx({"tough": 0, "tender": 0}, abs=1e-3)


def test_probe_leaves_the_model_as_it_was() -> None:
    model = folded("residual")
    before = [weights.copy() for weights in model.get_weights()]
    harm = sensitivity.Probe(model, IMAGES).pruning_harm(["stage0_block0_first_conv"])
    assert harm["stage0_block0_first_conv"][0] == pytest.approx(0, abs=1e-6)
    assert (np.diff(harm["stage0_block0_first_conv"]) >= 0).all()
    for kept, weights in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weights)


def test_fewer_bits_do_more_harm_and_leave_the_model_as_it_was() -> None:
    model = folded("residual")
    before = [weights.copy() for weights in model.get_weights()]
    probe = sensitivity.Probe(model, IMAGES)
    name = "stage0_block0_first_conv"
    harm = probe.rounding_harm({name: sensitivity.WIDTHS})[name]
    assert 0 <= harm[8] < harm[4] <= harm[3] <= harm[2]
    assert harm[4] < harm[2]
    for bits in sensitivity.WIDTHS:
        channel = probe.with_few_bits(name, bits)[..., 0]
        assert len(np.unique(channel)) <= len(range(*integer_range(bits))) + 1
    # The file has one step in all for a dense layer.
    assert len(np.unique(probe.with_few_bits("logits", 4))) <= len(range(*integer_range(4))) + 1
    for kept, weights in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weights)


def test_bits_go_where_they_do_the_least_harm() -> None:
    harm = {"tough": {8: 0.0, 4: 0.01, 3: 0.03, 2: 0.05}, "tender": {8: 0.0, 4: 0.01, 3: 5.0, 2: 9.0}}
    sizes = {"tough": 3000, "tender": 3000}
    assert sensitivity.least_harmful_bits(harm, sizes, 8) == {"tough": 8, "tender": 8}
    assert sensitivity.least_harmful_bits(harm, sizes, 4) == {"tough": 4, "tender": 4}
    assert sensitivity.least_harmful_bits(harm, sizes, 3) == {"tough": 2, "tender": 4}
    assert sensitivity.least_harmful_bits(harm, sizes, 2) == {"tough": 2, "tender": 2}
    assert sensitivity.least_harmful_bits(harm, {"tough": 3000, "tender": 30}, 4) == {"tough": 4, "tender": 4}


def test_no_layer_gets_bits_that_were_not_measured_of_it() -> None:
    harm = {"large": {8: 0.0, 4: 0.01, 2: 0.03}, "small": {8: 0.0, 4: 0.02}}
    sizes = {"large": 3000, "small": 3000}
    assert sensitivity.least_harmful_bits(harm, sizes, 3) == {"large": 2, "small": 4}
    assert sensitivity.least_harmful_bits(harm, sizes, 2) == {"large": 2, "small": 4}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["lean", "residual"])
def test_a_network_in_the_trainers_precision_has_the_same_weights_and_answers(
    architecture: str, precision: str
) -> None:
    model = unfolded(architecture)
    other = computing_in(model, precision)
    for kept, weights in zip(model.weights, other.weights, strict=True):
        assert weights.dtype == tf.float32
        np.testing.assert_array_equal(kept.numpy(), weights.numpy())
    convolution = other.get_layer("stem_conv")
    assert convolution.compute_dtype == precision
    assert other.output.dtype == other.input.dtype == other.get_layer("rescale").output.dtype == tf.float32
    assert keras.mixed_precision.global_policy().name == "float32"
    pixels = IMAGES.astype(np.float32)
    wanted = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(other.predict(pixels, verbose=0), wanted, atol=0.05 if precision != "float32" else 1e-6)
    other.layers[2].set_weights([0 * weights for weights in other.layers[2].get_weights()])
    np.testing.assert_array_equal(model.predict(pixels, verbose=0), wanted)


@pytest.mark.parametrize(
    ("most", "estimates", "tried", "found"),
    [
        (0.7, {0.3: 0.9, 0.5: 0.9, 0.7: 0.2, 0.9: 0.1}, [0.5, 0.7, 0.9], 0.7),
        (0.3, {0.3: 0.9, 0.5: 0.9, 0.7: 0.9, 0.9: 0.1}, [0.7, 0.5, 0.3], 0.3),
        (0.9, {0.3: 0.1, 0.5: 0.1, 0.7: 0.1, 0.9: 0.1}, [0.3, 0.5, 0.7, 0.9], 0.9),
    ],
)
def test_search_begins_at_the_evidence_and_ends_at_the_border(
    most: float, estimates: dict[float, float], tried: list[float], found: float
) -> None:
    attempts: list[float] = []

    def attempt(level: float) -> float:
        attempts.append(level)
        return level

    result = search.furthest(sorted(estimates), estimates.__getitem__, 0.95, attempt, lambda made: made <= most)
    assert (attempts, result) == (tried, found)


def test_search_that_finds_nothing_says_so() -> None:
    with pytest.raises(VariantError, match="not even the mildest"):
        search.furthest([1, 2], lambda _: 1.0, 1.0, lambda level: level, lambda _: False)


@pytest.mark.parametrize(
    ("milder", "reason"), [(VariantError("no time was left"), "no time was left"), (1, "not even the mildest")]
)
def test_search_that_cannot_make_the_mildest_says_why(milder: VariantError | int, reason: str) -> None:
    made = {1: milder, 2: VariantError("diverged"), 3: 3}

    def attempt(level: int) -> int:
        if isinstance(made[level], VariantError):
            raise made[level]
        return made[level]

    with pytest.raises(VariantError, match=reason):
        search.furthest([1, 2, 3], lambda _: 1.0, 1.0, attempt, lambda _: False)


@pytest.mark.parametrize(("parent_accuracy", "fits"), [(0.98, True), (1.0, False)])
def test_search_takes_what_is_exactly_at_the_limit(parent_accuracy: float, fits: bool) -> None:
    images = np.zeros((50, SIZE, SIZE, 3), np.uint8)
    # It finds class 0 in every image, which is right for 48.
    labels = np.array([1, 1, *[0] * 48])
    image = keras.Input([SIZE, SIZE, 3])
    model = keras.Model(image, keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(image)))
    job = SimpleNamespace(
        validation=LabelledImages(images, labels),
        accuracy=top1_accuracy,
        parent_accuracy=parent_accuracy,
        settings=CompressionSettings(budget={"max_accuracy_drop": 0.02}),
    )
    assert stages._fits(job, model) is fits


def test_layers_are_left_out_as_at_the_level_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    image = keras.Input([SIZE, SIZE, 3])
    coarse, fine = (keras.layers.Conv2D(16, 3, name=name) for name in ("coarse", "fine"))
    features = keras.layers.GlobalAveragePooling2D()(fine(coarse(image)))
    model = keras.Model(image, keras.layers.Dense(4, activation="softmax", name="logits")(features))
    coarse.kernel.assign(np.resize(np.linspace(0.1, 1, 20), coarse.kernel.shape.as_list()))
    job = SimpleNamespace(
        tuner=object(),
        settings=CompressionSettings(clusters="auto"),
        calibration=LabelledImages(IMAGES, LABELS),
        skipped={},
    )

    def search_goes_on_after_what_it_takes(*arguments: object) -> stages.Staged:
        *_, attempt, _ = arguments
        taken = attempt(32)
        assert attempt(16).clustered == ("coarse", "fine")
        return taken

    monkeypatch.setattr(stages, "_searched", search_goes_on_after_what_it_takes)
    monkeypatch.setattr(stages.clustering, "cluster", lambda model, *_: model)
    assert stages._clustered(job, model, "clustered").clustered == ("fine",)
    reasons = {skip.layer: skip.reason for skip in job.skipped["cluster"]}
    assert reasons == {"coarse": "only 20 distinct weights", "logits": "only 64 weights"}


def test_the_budget_is_a_cause_only_of_a_search() -> None:
    one, other = {"max_bytes": 1000}, {"max_bytes": 2000}

    def causes(budget: dict, **settings: object) -> dict:
        return CompressionSettings.model_validate({"budget": budget} | settings).causes()

    assert causes(one) == causes(other)
    for searched in ("sparsity", "clusters", "bits"):
        assert causes(one, **{searched: "auto"}) != causes(other, **{searched: "auto"})


def test_store_gives_back_what_it_was_given_and_nothing_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "kept"))
    assert store.load("work") is None
    weights = [np.arange(3.0), np.ones((2, 2), np.float32), *(np.zeros(1) for _ in range(12))]
    store.save("work", weights)
    for kept, given in zip(store.load("work") or [], weights, strict=True):
        np.testing.assert_array_equal(kept, given)
    (tmp_path / "kept/work.npz").write_bytes(b"half a fi")
    assert store.load("work") is None
    store.clear()
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity": 1.0},
        {"sparsity": -0.1},
        {"clusters": 1},
        {"bits": []},
        {"bits": [5]},
        {"channel_epochs": 0},
        {"clusters": 300},
        {"stages": ["qat", "qat"]},
    ],
)
def test_impossible_settings_are_refused_by_name(settings: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        CompressionSettings.model_validate(settings)


def test_unknown_layers_are_refused_by_name() -> None:
    image = keras.Input([SIZE, SIZE, 3])
    x = keras.layers.Conv2D(8, 3)(image)
    x = keras.layers.UnitNormalization(name="odd")(x)
    answer = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(UserError, match="'odd'"):
        require_known_layers(keras.Model(image, answer), ["prune"])


@pytest.mark.parametrize(
    ("stage", "shared"),
    [
        ("qat", keras.layers.ReLU),
        ("cluster", keras.layers.ReLU),
        ("prune_channels", keras.layers.ReLU),
        # It is gone in the folded network, but not in the one that loses channels.
        ("prune_channels", lambda name: keras.layers.Dropout(0.1, name=name)),
    ],
)
def test_layers_that_are_called_twice_are_refused_by_name(
    stage: str, shared: Callable[..., keras.layers.Layer], tmp_path: Path
) -> None:
    model = with_shared(shared(name="shared"))
    photos = LabelledImages(IMAGES, LABELS)
    settings = CompressionSettings(stages=["quantize", "prune", stage])
    with pytest.raises(UserError, match=f"{stage} cannot work on layer 'shared', which is called 2 times"):
        compress(model, Splits(photos, photos), settings, tmp_path)


def with_shared(shared: keras.layers.Layer) -> keras.Model:
    image = features = keras.Input([SIZE, SIZE, 3])
    for channels in (8, 16):
        features = shared(keras.layers.Conv2D(channels, 3)(features))
    answer = keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(features))
    return keras.Model(image, answer)


@pytest.mark.parametrize(
    ("wanted", "shared"),
    [
        (["prune"], keras.layers.ReLU()),
        (["prune", "cluster", "qat"], keras.layers.Dropout(0.1)),
        (["prune", "cluster", "qat"], keras.layers.MaxPooling2D()),
    ],
)
def test_layers_that_are_called_twice_are_taken_where_that_does_not_matter(
    wanted: list[str], shared: keras.layers.Layer
) -> None:
    require_known_layers(fold_batch_norm(with_shared(shared)), wanted)


def test_a_pooling_that_is_called_twice_is_rebuilt_for_quantisation() -> None:
    model = fold_batch_norm(with_shared(keras.layers.MaxPooling2D(name="shared")))
    rebuilt = fake_quantized(model, 8, IMAGES)
    pixels = tf.cast(IMAGES, tf.float32)
    assert np.abs(rebuilt(pixels, training=False) - model(pixels, training=False)).max() < 0.05


def test_small_and_depthwise_layers_are_left_out() -> None:
    model = folded("lean")
    chosen, skipped = choose(model)
    assert {skip.layer for skip in skipped} >= {"stage1_block0_depthwise", "logits"}
    few, left_out = clusterable(chosen, 10_000)
    assert few == []
    assert len(left_out) == len(chosen)
