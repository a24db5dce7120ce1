"""Ways to break a release that a gate must notice. Each takes an honest one and leaves a broken one beside it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.tools import flatbuffer_utils

from benchmarks.gate_bench import (
    CLASS_NAMES,
    SIZE,
    GateBench,
    Release,
    train_network,
    write_edge_bundle,
    write_examples,
)
from components.compression.conversion import Converter
from trainer_module.export import ServingModel, save_serving_model

if TYPE_CHECKING:
    from collections.abc import Callable

_FOLDER = "Format-Serving"


@dataclasses.dataclass(frozen=True)
class Kind:
    """One way to break a release.

    Attributes:
        name: What was done.
        gate: Which gate must refuse.
        apply: Does it, in an empty directory.
    """

    name: str
    gate: str
    apply: Callable[[GateBench, Path], Release]


def _bundle(bench: GateBench, work: Path) -> Path:
    """Returns the files of a copy of the honest bundle."""
    shutil.copytree(bench.honest.tflite, work / "tflite")
    return work / "tflite" / _FOLDER


def _with_bundle(bench: GateBench, work: Path) -> Release:
    return dataclasses.replace(bench.honest, tflite=work / "tflite")


def _sign(bundle: Path, **changes: Any) -> None:
    """Makes model.json fit the files again: the sabotage of someone who knows the format."""
    manifest = json.loads((bundle / "model.json").read_text())
    manifest["sha256"] = {
        name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in ("model.tflite", "labels.txt")
    }
    manifest["labels"] = (bundle / "labels.txt").read_text().splitlines()
    (bundle / "model.json").write_text(json.dumps(manifest | changes))


def _labels(change: Callable[[list[str]], list[str]], bench: GateBench, work: Path) -> Release:
    bundle = _bundle(bench, work)
    (bundle / "labels.txt").write_text("".join(f"{name}\n" for name in change(list(CLASS_NAMES))))
    _sign(bundle)
    return _with_bundle(bench, work)


def _content(change: Callable[[bytes], bytes], bench: GateBench, work: Path) -> Release:
    bundle = _bundle(bench, work)
    file = bundle / "model.tflite"
    file.write_bytes(change(file.read_bytes()))
    _sign(bundle)
    return _with_bundle(bench, work)


def _manifest(changes: dict[str, dict[str, Any]], bench: GateBench, work: Path) -> Release:
    bundle = _bundle(bench, work)
    manifest = json.loads((bundle / "model.json").read_text())
    for key, change in changes.items():
        manifest[key] |= change
    (bundle / "model.json").write_text(json.dumps(manifest))
    return _with_bundle(bench, work)


def _network(change: Callable[[keras.Model], keras.Model], variant: str, bench: GateBench, work: Path) -> Release:
    """Ships another network as .tflite than the one that was trained."""
    broken = change(_copy(bench.network))
    (work / "tflite").mkdir()
    content = Converter(broken, bench.train.images[:256], work / "conversion").convert(variant)
    write_edge_bundle(content, CLASS_NAMES, work / "tflite" / _FOLDER, variant)
    return _with_bundle(bench, work)


def _calibrated_on_black(bench: GateBench, work: Path) -> Release:
    (work / "tflite").mkdir()
    black = np.zeros_like(bench.train.images[:256])
    content = Converter(_copy(bench.network), black, work / "conversion").convert("int8")
    write_edge_bundle(content, CLASS_NAMES, work / "tflite" / _FOLDER)
    return _with_bundle(bench, work)


def _saved_network(change: Callable[[keras.Model], keras.Model], bench: GateBench, work: Path) -> Release:
    """Ships another network as SavedModel than the one that was trained."""
    directory = work / "saved_model"
    # Unfolded, because folding is checked and would not let NaN through.
    save_serving_model(change(_copy(bench.network)), str(directory / _FOLDER), CLASS_NAMES, SIZE, fold=False)
    return dataclasses.replace(bench.honest, saved_model=directory)


def _copy(network: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def _always(answer: int, network: keras.Model) -> keras.Model:
    kernel, bias = network.layers[-2].get_weights()
    network.layers[-2].set_weights([kernel * 0, np.where(np.arange(len(bias)) == answer, 9.0, 0.0)])
    return network


def _forget(forgotten: int, network: keras.Model) -> keras.Model:
    kernel, bias = network.layers[-2].get_weights()
    network.layers[-2].set_weights([kernel, np.where(np.arange(len(bias)) == forgotten, -50.0, bias)])
    return network


def _noise(network: keras.Model) -> keras.Model:
    rng = np.random.default_rng(0)
    network.set_weights([weight + rng.normal(0, 0.5, weight.shape) for weight in network.get_weights()])
    return network


def _pruned(network: keras.Model) -> keras.Model:
    def prune(weight: np.ndarray) -> np.ndarray:
        return np.where(np.abs(weight) < np.quantile(np.abs(weight), 0.9), 0, weight)

    network.set_weights([prune(weight) if weight.ndim > 1 else weight for weight in network.get_weights()])
    return network


def _not_a_number(network: keras.Model) -> keras.Model:
    kernel, bias = network.layers[-2].get_weights()
    network.layers[-2].set_weights([kernel, np.full_like(bias, np.nan)])
    return network


def _before(layer: Callable[[Any], Any], network: keras.Model) -> keras.Model:
    """Puts something between the photo and the network."""
    pixels = keras.Input((SIZE, SIZE, 3))
    return keras.Model(pixels, network(layer(pixels)))


def _logits(network: keras.Model) -> keras.Model:
    return keras.Model(network.input, network.layers[-2].output)


def _other_size(network: keras.Model) -> keras.Model:
    del network
    return keras.Sequential([keras.layers.Flatten(input_shape=(SIZE, SIZE, 3)), keras.layers.Dense(3, "softmax")])


def _signatures(
    change: Callable[[ServingModel, dict[str, Any]], dict[str, Any]], bench: GateBench, work: Path
) -> Release:
    module = ServingModel(_copy(bench.network), CLASS_NAMES, SIZE)
    tf.saved_model.save(module, str(work / "saved_model" / _FOLDER), change(module, module.signatures()))
    return dataclasses.replace(bench.honest, saved_model=work / "saved_model")


def _wrong_input_name(module: ServingModel, signatures: dict[str, Any]) -> dict[str, Any]:
    honest = signatures["serving_default"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def renamed(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return honest(image_bytes=image)

    module.renamed = renamed
    return {**signatures, "serving_default": renamed}


def _other_classify(module: ServingModel, signatures: dict[str, Any]) -> dict[str, Any]:
    honest = signatures["serving_examples"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def reversed_scores(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = honest(inputs=inputs)
        return {"classes": answers["classes"], "scores": tf.reverse(answers["scores"], [1])}

    module.reversed_scores = reversed_scores
    return {**signatures, "serving_examples": reversed_scores}


def _permuted_saved_model(bench: GateBench, work: Path) -> Release:
    names = [*CLASS_NAMES[1:], CLASS_NAMES[0]]
    save_serving_model(_copy(bench.network), str(work / "saved_model" / _FOLDER), names, SIZE)
    return dataclasses.replace(bench.honest, saved_model=work / "saved_model")


def _changed_after_the_manifest(bench: GateBench, work: Path) -> Release:
    bundle = _bundle(bench, work)
    content = bytearray((bundle / "model.tflite").read_bytes())
    content[-1] ^= 0xFF
    (bundle / "model.tflite").write_bytes(content)
    return _with_bundle(bench, work)


def _undertrained(bench: GateBench, work: Path) -> Release:
    return bench.export(train_network(bench.train, seed=2, epochs=1), work)


def _examples(keep: Callable[[np.ndarray], np.ndarray], name: str | None, bench: GateBench, work: Path) -> Release:
    kept = keep(bench.test.labels)
    names = [CLASS_NAMES[label] for label in bench.test.labels[kept]]
    if name:
        names[0] = name
    write_examples(work / "examples", bench.test.images[kept], names)
    return dataclasses.replace(bench.honest, examples=work / "examples")


def _zero_scales(content: bytes) -> bytes:
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    for tensor in model.subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            tensor.quantization.scale = np.zeros_like(tensor.quantization.scale)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _flip_bits(content: bytes) -> bytes:
    """Inverts a stretch in the middle of the file."""
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 1500]) + content[middle + 1500 :]


def _other_task(bench: GateBench, work: Path) -> Release:
    """Puts a .tflite with three classes beside the ten labels."""
    broken = _other_size(bench.network)
    content = Converter(broken, bench.train.images[:256], work / "conversion").convert("float32")
    bundle = _bundle(bench, work)
    (bundle / "model.tflite").write_bytes(content)
    _sign(bundle)
    return _with_bundle(bench, work)


_reverse_channels = functools.partial(_before, lambda pixels: pixels[..., ::-1])
_unscaled = functools.partial(_before, lambda pixels: pixels / 255)

KINDS = [
    Kind("two labels swapped", "fidelity", functools.partial(_labels, lambda names: [names[1], names[0], *names[2:]])),
    Kind("a label missing", "fidelity", functools.partial(_labels, lambda names: names[:-1])),
    Kind("a label too many", "fidelity", functools.partial(_labels, lambda names: [*names, "10"])),
    Kind("a label twice", "fidelity", functools.partial(_labels, lambda names: [*names[:-1], names[0]])),
    Kind(".tflite cut in half", "fidelity", functools.partial(_content, lambda content: content[: len(content) // 2])),
    Kind(".tflite empty", "fidelity", functools.partial(_content, lambda _: b"")),
    Kind(".tflite with damaged bytes", "fidelity", functools.partial(_content, _flip_bits)),
    Kind(".tflite whose scales are 0", "fidelity", functools.partial(_content, _zero_scales)),
    Kind(".tflite of another task", "fidelity", _other_task),
    Kind(
        ".tflite always answers one class",
        "fidelity",
        functools.partial(_network, functools.partial(_always, 3), "int8"),
    ),
    Kind(".tflite forgot one class", "fidelity", functools.partial(_network, functools.partial(_forget, 3), "int8")),
    Kind(".tflite answers NaN", "fidelity", functools.partial(_network, _not_a_number, "float32")),
    Kind(".tflite answers logits", "fidelity", functools.partial(_network, _logits, "float32")),
    Kind(".tflite reads BGR", "fidelity", functools.partial(_network, _reverse_channels, "int8")),
    Kind(".tflite wants pixels in [0, 1]", "fidelity", functools.partial(_network, _unscaled, "float32")),
    Kind(".tflite pruned to a tenth, not retrained", "fidelity", functools.partial(_network, _pruned, "int8")),
    Kind(".tflite with noise on its weights", "fidelity", functools.partial(_network, _noise, "int8")),
    Kind(".tflite calibrated on black photos", "fidelity", _calibrated_on_black),
    Kind("model.json names another input", "serving", functools.partial(_manifest, {"input": {"name": "picture"}})),
    Kind("model.json with another scale", "serving", functools.partial(_manifest, {"input": {"scale": 0.5}})),
    Kind("model.json of another file", "serving", _changed_after_the_manifest),
    Kind("SavedModel with a misnamed input", "fidelity", functools.partial(_signatures, _wrong_input_name)),
    Kind(
        "SavedModel without Classify",
        "fidelity",
        functools.partial(_signatures, lambda _, own: {"serving_default": own["serving_default"]}),
    ),
    Kind("SavedModel whose Classify differs", "serving", functools.partial(_signatures, _other_classify)),
    Kind("SavedModel with shifted labels", "fidelity", _permuted_saved_model),
    Kind(
        "SavedModel always answers one class",
        "fidelity",
        functools.partial(_saved_network, functools.partial(_always, 3)),
    ),
    Kind("SavedModel answers NaN", "fidelity", functools.partial(_saved_network, _not_a_number)),
    Kind("trained for one epoch only", "release", _undertrained),
    Kind("a test class that was never trained", "fidelity", functools.partial(_examples, np.isfinite, "eleven")),
    Kind("a class without test photos", "fidelity", functools.partial(_examples, lambda labels: labels != 4, None)),
    Kind("no test photos", "fidelity", functools.partial(_examples, lambda labels: labels < 0, None)),
]
