"""Compression's engine: real models through the real converters and the real interpreter."""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from components.compression import checks
from components.compression.bundle import BundleContent, write_bundle
from components.compression.conversion import INTEGER_VARIANTS, VARIANTS, Converter
from components.compression.data import LabelledImages, Splits
from components.compression.engine import FineTuning, Result, compress
from components.compression.errors import VariantError
from components.compression.flatbuffer import ModelFile
from components.compression.settings import BudgetSettings, CompressionSettings
from trainer_module.acceleration import Acceleration
from trainer_module.errors import UserError
from trainer_module.input_pipeline import from_arrays
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings, TrainingSettings
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE_SIZE = 16
CLASSES = 3
ANY = BudgetSettings(max_accuracy_drop=1.0)


def make_split(seed: int, count: int) -> LabelledImages:
    """Noise in which the class is the brightest channel; the darkest and the brightest grey levels do not occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.integers(20, 120, (count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 80
    return LabelledImages(images, labels.astype(np.int64))


TRAIN = make_split(seed=1, count=256)
VALIDATION = make_split(seed=2, count=60)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    network = build_model(ModelSettings(width=0.25), IMAGE_SIZE, CLASSES)
    network.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    network.fit(TRAIN.images.astype(np.float32), TRAIN.labels, batch_size=32, epochs=4, verbose=0)
    return network


@pytest.fixture(scope="module")
def result(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(model, tmp_path_factory.mktemp("variants"), budget=BudgetSettings(max_accuracy_drop=0.02))


def run(
    network: keras.Model,
    directory: Path,
    *,
    train: LabelledImages = TRAIN,
    validation: LabelledImages = VALIDATION,
    budget: BudgetSettings = ANY,
    input_type: str = "uint8",
) -> Result:
    settings = CompressionSettings(stages=["quantize"], budget=budget, input_type=input_type)
    return compress(network, Splits(train, validation), settings, directory, class_names=["red", "grün", "blue"])


def tiny_model(*layers: keras.layers.Layer) -> keras.Model:
    """The given layers between the pooled pixels and the probabilities."""
    image = keras.Input([IMAGE_SIZE, IMAGE_SIZE, 3], name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    for layer in layers:
        x = layer(x)
    return keras.Model(image, keras.layers.Softmax()(x))


def dense(kernel: np.ndarray) -> keras.layers.Layer:
    return keras.layers.Dense(kernel.shape[1], kernel_initializer=keras.initializers.Constant(kernel))


def dropped(found: Result) -> dict[str, str]:
    return {entry["name"]: entry["reason"] for entry in found.report["dropped"]}


def test_all_variants_pass_on_a_plain_model(result: Result) -> None:
    assert dropped(result) == {}
    assert [row["name"] for row in result.report["variants"]] == list(VARIANTS)


def test_accuracies_are_those_of_the_files(result: Result) -> None:
    assert result.report["parent"]["validation_accuracy"] > 0.9
    for row in result.report["variants"]:
        path = result.selected.path.with_name(f"{row['name']}.tflite")
        predicted = TFLiteClassifier(path).predict(VALIDATION.images).argmax(axis=1)
        assert row["accuracy"] == pytest.approx(np.mean(predicted == VALIDATION.labels))
        assert row["agreement"] > 0.95
        assert row["bytes"] == path.stat().st_size


def test_figures_are_plausible(result: Result) -> None:
    rows = {row["name"]: row for row in result.report["variants"]}
    assert rows["float16"]["bytes"] < rows["float32"]["bytes"]
    assert rows["int8"]["deflated_bytes"] < rows["float16"]["deflated_bytes"]
    assert rows["int8"]["unique_weights"] <= 255 < rows["float32"]["unique_weights"]
    for row in rows.values():
        assert 0 < row["latency_ms"] <= row["latency_p95_ms"]
        assert row["latency_all_threads_ms"] > 0
        assert row["deflated_bytes"] < row["bytes"]


def test_labels_are_inside_every_file(result: Result) -> None:
    for path in result.selected.path.parent.iterdir():
        assert zipfile.ZipFile(path).read("labels.txt").decode() == "red\ngrün\nblue\n"


@pytest.mark.parametrize("variant", sorted(INTEGER_VARIANTS))
def test_the_weights_of_a_large_network_are_in_its_file(variant: str, tmp_path: Path) -> None:
    """More than a megabyte of them is written behind the FlatBuffer by LiteRT's quantizer."""
    network = build_model(ModelSettings(architecture="naive", width=0.5), IMAGE_SIZE, CLASSES)
    content = Converter(network, TRAIN.images[:16], tmp_path / "traced").convert(variant)
    assert len(content) > 2**20
    (tmp_path / "model.tflite").write_bytes(content)
    answers = TFLiteClassifier(tmp_path / "model.tflite").predict(TRAIN.images[:16])
    np.testing.assert_allclose(answers, network.predict(TRAIN.images[:16].astype(np.float32), verbose=0), atol=0.02)


def test_integer_variants_take_floats_if_wanted(model: keras.Model, tmp_path: Path) -> None:
    found = run(model, tmp_path, input_type="float32")
    assert dropped(found) == {}
    for name in INTEGER_VARIANTS:
        classifier = TFLiteClassifier(tmp_path / f"{name}.tflite")
        assert (classifier.input.dtype, classifier.output.dtype) == ("float32", "float32")
        assert ModelFile(tmp_path / f"{name}.tflite").unique_weights() <= 255


def test_smallest_variant_inside_the_budget_ships(result: Result) -> None:
    fitting = [row for row in result.report["variants"] if row["within_budget"]]
    selected = next(row for row in fitting if row["name"] == result.selected.name)
    assert result.report["selected"] == result.selected.name
    assert selected["deflated_bytes"] <= 1.02 * min(row["deflated_bytes"] for row in fitting)


@pytest.mark.parametrize("name", sorted(INTEGER_VARIANTS))
def test_integer_variants_take_and_give_uint8(result: Result, name: str) -> None:
    interpreter = Interpreter(str(result.selected.path.with_name(f"{name}.tflite")))
    [image], [probabilities] = interpreter.get_input_details(), interpreter.get_output_details()
    assert (image["name"], image["dtype"], image["quantization"]) == ("image", np.uint8, (1.0, 0))
    assert (probabilities["name"], probabilities["dtype"]) == ("probabilities", np.uint8)
    assert tuple(image["shape"]) == (1, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}}


def test_float_variants_take_pixels_up_to_255(result: Result, model: keras.Model) -> None:
    classifier = TFLiteClassifier(result.selected.path.with_name("float32.tflite"))
    assert (classifier.input.dtype, classifier.input.scale, classifier.input.zero_point) == ("float32", None, None)
    expected = model.predict(VALIDATION.images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(classifier.predict(VALIDATION.images), expected, atol=1e-5)


def test_only_the_integer_variants_are_free_of_floats(result: Result) -> None:
    for name in VARIANTS:
        path = result.selected.path.with_name(f"{name}.tflite")
        if name in INTEGER_VARIANTS:
            checks.check_integer_only(path)
        else:
            with pytest.raises(VariantError, match="floating point"):
                checks.check_integer_only(path)


def test_input_range_short_of_white_is_found(result: Result, tmp_path: Path) -> None:
    content = flatbuffer_utils.read_model(str(result.selected.path.with_name("int8.tflite")))
    graph = content.subgraphs[0]
    graph.tensors[graph.inputs[0]].quantization.scale = [0.5]
    flatbuffer_utils.write_model(content, str(tmp_path / "short.tflite"))
    with pytest.raises(VariantError, match=r"0\.0 to 127\.5, not 0 to 255"):
        checks.check_covers_pixels(checks.load(tmp_path / "short.tflite"))


def test_a_bias_that_does_not_fit_into_its_bits_is_found(result: Result, tmp_path: Path) -> None:
    path = result.selected.path.with_name("int8.tflite")
    checks.check_biases(path)
    content = flatbuffer_utils.read_model(str(path))
    bias = next(
        tensor
        for tensor in content.subgraphs[0].tensors
        if tensor.type == flatbuffer_utils.TensorType.INT32 and getattr(tensor.quantization, "scale", None) is not None
    )
    stored = np.frombuffer(bytes(content.buffers[bias.buffer].data), np.int32).copy()
    stored[0] = np.iinfo(np.int32).min
    content.buffers[bias.buffer].data = stored.view(np.uint8)
    flatbuffer_utils.write_model(content, str(tmp_path / "cut.tflite"))
    with pytest.raises(VariantError, match="biases do not fit into 32 bits"):
        checks.check_biases(tmp_path / "cut.tflite")


def test_broken_file_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"not a model")
    with pytest.raises(VariantError, match="does not load"):
        checks.load(path)


def test_weights_are_read_from_the_file(tmp_path: Path) -> None:
    kernel = np.array([[0.5, 0, 0], [0, -0.5, 0], [0, 0, 0.25]], np.float32)
    path = tmp_path / "sparse.tflite"
    path.write_bytes(Converter(tiny_model(dense(kernel)), TRAIN.images[:4], tmp_path / "saved").convert("float32"))
    model_file = ModelFile(path)
    assert model_file.sparsity() == pytest.approx(6 / 9)
    assert model_file.unique_weights() == 4


def test_variant_with_broken_predictions_is_dropped(tmp_path: Path) -> None:
    # In float16 a weight of 1e-9 is 0, and so the scores' sum.
    network = tiny_model(dense(np.eye(3, dtype=np.float32) * 1e-9), keras.layers.Lambda(normalize))
    found = run(network, tmp_path)
    assert "60 of 60 validation images are not finite" in dropped(found)["float16"]
    assert "fails on an image" in dropped(found)["int8"]
    assert "float32" in {row["name"] for row in found.report["variants"]}
    assert found.selected.name not in dropped(found)


def normalize(scores: tf.Tensor) -> tf.Tensor:
    return scores / tf.reduce_sum(scores, axis=1, keepdims=True)


def test_int8_variant_that_falls_back_to_float_is_dropped(tmp_path: Path) -> None:
    # TFLite has no integer sine, and the converter leaves the float one in although it was told not to.
    found = run(tiny_model(dense(np.eye(3, dtype=np.float32) * 9), keras.layers.Lambda(tf.sin)), tmp_path)
    assert "floating point" in dropped(found)["int8"]
    assert "floating point" in dropped(found)["int8_litert"]
    assert [row["name"] for row in found.report["variants"]] == ["float32", "float16", "dynamic"]


@pytest.mark.parametrize("sparsity", [0.5, 0.95, "auto"])
def test_a_network_that_is_too_small_to_prune_is_quantised(tmp_path: Path, sparsity: float | str) -> None:
    rng = np.random.default_rng(0)
    layers = [dense(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 80), (80, CLASSES))]
    found = compress(
        tiny_model(*layers),
        Splits(TRAIN, VALIDATION, from_arrays(TRAIN.images, TRAIN.labels)),
        CompressionSettings(stages=["prune", "quantize"], sparsity=sparsity, budget=ANY),
        tmp_path,
        fine_tuning=FineTuning(TrainingSettings(image_size=IMAGE_SIZE), Acceleration()),
    )
    assert set(dropped(found)) == {"pruned"}
    assert all(f"{layer.name}: only 240 weights" in dropped(found)["pruned"] for layer in layers)
    assert found.selected.name in INTEGER_VARIANTS


@pytest.mark.component  # Every conversion is tried.
def test_no_variant_left_names_all_reasons(tmp_path: Path) -> None:
    network = tiny_model(dense(np.eye(3, dtype=np.float32)), keras.layers.Lambda(lambda x: tf.math.igamma(x, x)))
    with pytest.raises(
        UserError, match=r"no variant passed .*float32: conversion failed.*'tf\.Igamma' op.*; int8: conversion failed"
    ):
        run(network, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_model_that_predicts_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite"):
        run(tiny_model(dense(np.full((3, 3), np.nan, np.float32))), tmp_path)


def test_a_model_that_answers_no_probabilities_is_refused(tmp_path: Path) -> None:
    image = keras.Input([IMAGE_SIZE, IMAGE_SIZE, 3])
    logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(UserError, match=r"answers no probabilities.*ends with softmax"):
        run(keras.Model(image, logits), tmp_path)


def test_nothing_fits_names_the_limit(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"compression\.budget\.max_bytes 10"):
        run(model, tmp_path, budget=BudgetSettings(max_accuracy_drop=1.0, max_bytes=10))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train": LabelledImages(TRAIN.images[:0], TRAIN.labels[:0])}, "train split is empty"),
        ({"validation": LabelledImages(TRAIN.images[:0], TRAIN.labels[:0])}, "validation split is empty"),
    ],
)
def test_bad_input_is_refused_before_any_conversion(
    model: keras.Model, tmp_path: Path, overrides: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(model, tmp_path, **overrides)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def content_of(result: Result) -> Callable[[list[str]], BundleContent]:
    lineage = {"model": 7, "transform_graph": 5}
    chosen = result.selected
    return lambda names: BundleContent(chosen.name, chosen.path, names, chosen.measurement, lineage)


def test_bundle_holds_what_a_device_needs(
    result: Result, content_of: Callable[[list[str]], BundleContent], tmp_path: Path
) -> None:
    write_bundle(content_of(["rouge", "grün", "蓝"]), tmp_path / "bundle")
    description = json.loads((tmp_path / "bundle/model.json").read_text(encoding="utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle/labels.txt").read_text(encoding="utf-8") == "rouge\ngrün\n蓝\n"
    for name, digest in description["sha256"].items():
        assert hashlib.sha256((tmp_path / "bundle" / name).read_bytes()).hexdigest() == digest
    assert description["labels"] == ["rouge", "grün", "蓝"]
    assert description["input"]["image_size"] == IMAGE_SIZE
    assert description["input"]["shape"] == [1, IMAGE_SIZE, IMAGE_SIZE, 3]
    assert description["output"]["shape"] == [1, CLASSES]
    assert description["lineage"] == {"model": 7, "transform_graph": 5}
    assert description["metrics"]["validation_accuracy"] == result.selected.measurement.accuracy
    predicted = TFLiteClassifier(tmp_path / "bundle/model.tflite").predict(VALIDATION.images)
    assert np.mean(predicted.argmax(axis=1) == VALIDATION.labels) == result.selected.measurement.accuracy


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [(["a", "b\nc", "d"], UserError, "line break"), (["a", "b"], ValueError, "3 outputs for the 2 class names")],
)
def test_bundle_is_not_half_written(
    content_of: Callable[[list[str]], BundleContent],
    tmp_path: Path,
    names: list[str],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        write_bundle(content_of(names), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
