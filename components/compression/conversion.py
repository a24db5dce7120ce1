"""From a float Keras classifier to the bytes of its .tflite variants."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from ai_edge_litert.schema_py_generated import BuiltinOperator
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.utils import qsv_utils
from tensorflow.lite.python.util import modify_model_io_type

from components.compression import model_metadata, packing
from components.compression.errors import VariantError
from components.compression.integer_kernels import largest_weights
from components.compression.narrow_kernels import narrow_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import tf_keras as keras
    from ai_edge_litert.schema_py_generated import ModelT, TensorT

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
_SIGNATURE = "serving_default"
# The axis of a kernel's output channels.
_CHANNEL_AXES = {
    BuiltinOperator.CONV_2D: 0,
    BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    BuiltinOperator.FULLY_CONNECTED: 0,
}
# MLIR also spells out every scale of every tensor.
_LONGEST_REASON = 200


class Converter:
    """Converts one classifier into any of `VARIANTS`.

    Every variant takes one image [1, S, S, 3] named `image` and answers [1, C] named `probabilities`. The integer
    variants take and give uint8 unless told otherwise, the others float32; pixels are in [0, 255] before the input's
    quantisation.
    """

    def __init__(
        self,
        model: keras.Model,
        representative: np.ndarray,
        directory: Path,
        *,
        float_ends: bool = False,
        labels: str = "",
    ) -> None:
        """Traces the model once for all conversions.

        Args:
            model: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C].
            representative: uint8 images [M, S, S, 3], M > 0, that set the ranges of the activations.
            directory: Where the SavedModel that the converter reads is written.
            float_ends: Whether the integer variants take and give float32.
            labels: Names of the C classes, a line for each, which every file then holds.
        """
        self._end_type = tf.float32 if float_ends else tf.uint8
        self._labels = labels
        self._saved_model = str(directory)
        self._representative = _with_full_range(representative)
        _save_for_conversion(model, self._saved_model, representative.shape[1])

    def convert(self, variant: str, *, narrow: bool = False) -> bytes:
        """Makes one variant.

        Args:
            variant: One of `VARIANTS`.
            narrow: Whether kernels that use no more than 4 bits are packed, and those of no more than 2 more so.

        Returns:
            Content of the .tflite file.

        Raises:
            VariantError: TensorFlow or LiteRT could not convert the model, or no kernel is narrow.
        """
        try:
            with _without_chatter():
                model = packing.unpack(VARIANTS[variant](self))
                _name_ends(model)
                model_metadata.describe(model, has_labels=bool(self._labels))
                if narrow:
                    narrow_weights(model)
                content = packing.pack(model)
                return model_metadata.with_labels(content, self._labels) if self._labels else content
        # The converters raise whatever their parts raise, and one variant's failure must not end the others.
        except Exception as error:
            raise VariantError(f"conversion failed: {_first_line(error)}") from error

    @functools.cached_property
    def _float32_bytes(self) -> bytes:
        return self._converter().convert()

    def _float32(self) -> bytes:
        return self._float32_bytes

    def _float16(self) -> bytes:
        converter = self._converter(tf.lite.Optimize.DEFAULT)
        converter.target_spec.supported_types = [tf.float16]
        return converter.convert()

    def _dynamic(self) -> bytes:
        return self._converter(tf.lite.Optimize.DEFAULT).convert()

    def _int8(self) -> bytes:
        converter = self._converter(tf.lite.Optimize.DEFAULT)
        converter.representative_dataset = self._samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = self._end_type
        return converter.convert()

    def _int8_litert(self) -> bytes:
        recipes = recipe_manager.RecipeManager()
        recipes.load_quantization_recipe(recipe.static_wi8_ai8())
        # The quantizer knows no uint8: the ends stay float here, and TensorFlow's utility makes them uint8 below.
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            recipes.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
        # By default it averages the ranges of the samples, which clips the extremes: on CIFAR-10 the int8 model agreed
        # with its parent on 85% of the images, with the ranges' extremes on 93%.
        ranges = calibrator.Calibrator(self._float32_bytes, qsv_update_func=qsv_utils.min_max_update)
        ranges.calibrate({_SIGNATURE: [{INPUT_NAME: sample} for [sample] in self._samples()]}, recipes)
        quantization = quantizer.Quantizer(self._float32_bytes, recipes.get_quantization_recipe())
        known = ranges.get_model_qsvs() | _kernel_ranges(self._float32_bytes)
        quantized = bytes(quantization.quantize(known).quantized_model)
        if self._end_type == tf.float32:
            return quantized
        # It writes the weights of large models behind the FlatBuffer, where TensorFlow's utility would lose them.
        return modify_model_io_type(packing.pack(packing.unpack(quantized)), tf.uint8, tf.uint8)

    def _converter(self, *optimizations: tf.lite.Optimize) -> tf.lite.TFLiteConverter:
        converter = tf.lite.TFLiteConverter.from_saved_model(self._saved_model)
        converter.optimizations = list(optimizations)
        return converter

    def _samples(self) -> Iterator[list[np.ndarray]]:
        for image in self._representative:
            yield [image[np.newaxis].astype(np.float32)]


VARIANTS: dict[str, Callable[[Converter], bytes]] = {
    "float32": Converter._float32,
    "float16": Converter._float16,
    "dynamic": Converter._dynamic,
    "int8": Converter._int8,
    "int8_litert": Converter._int8_litert,
}
INTEGER_VARIANTS = frozenset({"int8", "int8_litert"})


def _save_for_conversion(model: keras.Model, directory: str, image_size: int) -> None:
    @tf.function(input_signature=[tf.TensorSpec([1, image_size, image_size, 3], tf.float32, name=INPUT_NAME)])
    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT_NAME: model(image, training=False)}

    # Only the weights: with the whole Keras model each layer is traced and saved too, which is thrice as slow.
    module = tf.Module()
    module.weights = model.weights
    tf.saved_model.save(module, directory, signatures={_SIGNATURE: classify.get_concrete_function()})


def _kernel_ranges(content: bytes) -> dict[str, dict[str, np.ndarray]]:
    """Finds the range of every channel of a float file's kernels, by tensor name, as LiteRT's quantizer takes it.

    By itself it gives a channel without weights a step of 1e-9 / 127, with which no bias fits into its 32 bits.
    """
    model = packing.unpack(content)
    found: dict[str, dict[str, np.ndarray]] = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            axis = _CHANNEL_AXES.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
            if axis is None:
                continue
            kernel, *biases = (graph.tensors[index] for index in operator.inputs[1:] if index >= 0)
            values = _stored_floats(model, kernel)
            if not len(values):
                continue
            values = values.reshape(kernel.shape)
            largest = largest_weights(values, tuple(other for other in range(values.ndim) if other != axis))
            if not largest.any():
                # What such a kernel's outputs are; where they are 0, any step will do.
                largest += max((np.abs(_stored_floats(model, bias)).max(initial=0.0) for bias in biases), default=0.0)
            if largest.any():
                found[kernel.name.decode()] = {"min": -largest, "max": largest}
    return found


def _stored_floats(model: ModelT, tensor: TensorT) -> np.ndarray:
    stored = model.buffers[tensor.buffer].data
    return np.frombuffer(b"" if stored is None else bytes(stored), np.float32)


def _with_full_range(images: np.ndarray) -> np.ndarray:
    """Blackens and whitens one pixel each, so that the calibrated input range is that of all pixel values."""
    images = images.copy()
    images[0, 0, 0] = 0
    images[0, -1, -1] = 255
    return images


def _name_ends(model: ModelT) -> None:
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name = INPUT_NAME.encode()
    graph.tensors[graph.outputs[0]].name = OUTPUT_NAME.encode()


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Keeps the converters' progress bars, prints and deprecation notices away from the user's terminal."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # MLIR puts the call stack in front of what it has to say.
    line = re.sub(r"<unknown>:0: error: loc\(.*\): ", " ", lines[0])
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
