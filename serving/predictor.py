"""Prediction with the LiteRT interpreter."""

import math
import queue
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from serving.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, TensorSpec
from serving.errors import ServingError
from serving.preprocessing import MAX_PIXELS, decode_image, to_pixels


class Scored(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class _Tensor:
    """An input or output of the interpreter, as the interpreter itself describes it.

    Real and quantised values are tied by real = scale * (quantised - zero_point), from the TensorFlow Lite 8-bit
    quantization specification.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    @classmethod
    def of(cls, details: dict[str, Any]) -> Self:
        scale, zero_point = details["quantization"]
        shape = tuple(int(size) for size in details["shape"])
        return cls(details["name"], details["index"], shape, np.dtype(details["dtype"]), scale, zero_point)

    def quantization_table(self) -> NDArray[Any] | None:
        """Returns the tensor's value for each of the 256 values of a pixel; None where they are equal."""
        levels = np.arange(256)
        if self.dtype.kind == "f":
            return levels.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        table = np.clip(np.rint(levels / self.scale + self.zero_point), limits.min, limits.max).astype(self.dtype)
        return None if self.dtype == np.uint8 and np.array_equal(table, levels) else table

    def dequantize(self, values: NDArray[Any]) -> NDArray[np.float32]:
        if self.dtype.kind == "f":
            return values.astype(np.float32)
        return np.float32(self.scale) * (values.astype(np.float32) - np.float32(self.zero_point))

    def differs_from(self, spec: TensorSpec) -> bool:
        return (
            (self.name, self.shape, self.dtype.name) != (spec.name, spec.shape, spec.dtype)
            or not math.isclose(self.scale, spec.scale or 0.0, rel_tol=1e-5)
            or self.zero_point != (spec.zero_point or 0)
        )


class Predictor:
    """Classifies images with the model of a bundle.

    Safe to use from several threads: an interpreter serves one call at a time, so each call borrows one from a pool and
    waits while all are in use. LiteRT releases Python's global lock while it computes.

    It can be pickled, for other processes: the copy makes its own interpreters from the same bytes.
    """

    def __init__(self, bundle: Bundle, num_threads: int = 1, interpreters: int = 1) -> None:
        """Builds the interpreters.

        Args:
            bundle: The model.
            num_threads: Threads that one interpreter computes with.
            interpreters: Size of the pool, which is how many threads can predict at the same time.

        Raises:
            ServingError: The model cannot be loaded, or is not the one that model.json describes.
        """
        self._bundle = bundle
        self._num_threads = num_threads
        pool = [_build_interpreter(bundle, num_threads) for _ in range(interpreters)]
        self._input, self._output = _check_tensors(pool[0], bundle)
        self._quantized = self._input.quantization_table()
        self._pool_size = interpreters
        self._pool: queue.LifoQueue[Interpreter] = queue.LifoQueue()
        for interpreter in pool:
            self._pool.put(interpreter)

    def __reduce__(self) -> tuple[type["Predictor"], tuple[Bundle, int, int]]:
        return type(self), (self._bundle, self._num_threads, self._pool_size)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self._bundle.labels

    @property
    def image_size(self) -> int:
        """Height and width of the model's input, in pixels."""
        return self._bundle.image_size

    def prepare(self, data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Decodes and resizes one image file.

        Args:
            data: The content of the file.
            max_pixels: Most pixels that are decoded.

        Returns:
            RGB pixels, uint8 [image_size, image_size, 3].

        Raises:
            ServingError: It is not a decodable image.
        """
        return to_pixels(decode_image(data, max_pixels), self.image_size)

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Computes class probabilities.

        Images run one by one: the interpreter's graph has a batch of one, and so an answer never depends on the
        company in which an image came.

        Args:
            pixels: RGB pixels, uint8 [N, image_size, image_size, 3].

        Returns:
            Probabilities, float32 [N, number of labels]. Those of a quantised model are multiples of its output's scale
            and may not add up to exactly 1.

        Raises:
            ServingError: The pixels have another type or shape, or the interpreter fails.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self._input.shape[1:]:
            expected = ", ".join(str(size) for size in self._input.shape[1:])
            raise ServingError(f"pixels are {pixels.dtype} {list(pixels.shape)}, the model takes uint8 [N, {expected}]")
        with self._borrowed_interpreter() as interpreter:
            return self._run(interpreter, pixels)

    def predict_with_all(self, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        """Computes class probabilities with each interpreter of the pool in turn, while nobody else uses it.

        Args:
            pixels: As for `predict`.

        Yields:
            What one interpreter answers, as `predict` returns it.

        Raises:
            ServingError: An interpreter fails.
        """
        with ExitStack() as borrowed:
            for _ in range(self._pool_size):
                interpreter = borrowed.enter_context(self._borrowed_interpreter())
                try:
                    yield self._run(interpreter, pixels)
                except RuntimeError as error:
                    raise ServingError(f"{self._bundle.directory}: the model fails: {_one_line(error)}") from error

    def predict_images(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Decodes image files and computes their class probabilities.

        Args:
            images: The contents of N files.

        Returns:
            Probabilities, float32 [N, number of labels].

        Raises:
            ServingError: One is not a decodable image; the message names its index.
        """
        pixels = np.empty((len(images), *self._input.shape[1:]), np.uint8)
        for index, data in enumerate(images):
            try:
                pixels[index] = self.prepare(data)
            except ServingError as error:
                raise ServingError(f"image {index}: {error}") from error
        return self.predict(pixels)

    def top(self, probabilities: NDArray[np.float32], k: int = 1) -> list[list[Scored]]:
        """Names the most probable classes.

        Args:
            probabilities: float32 [N, number of labels].
            k: How many classes per image; all of them where there are fewer.

        Returns:
            For each image, its classes from the most probable one down; equals are in the order of the labels.
        """
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        return [
            [Scored(self.labels[index], float(row[index])) for index in best]
            for row, best in zip(probabilities, order, strict=True)
        ]

    def _run(self, interpreter: Interpreter, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities = np.empty((len(pixels), len(self.labels)), np.float32)
        for row, image in enumerate(pixels):
            values = image if self._quantized is None else self._quantized[image]
            interpreter.set_tensor(self._input.index, values[np.newaxis])
            interpreter.invoke()
            probabilities[row] = self._output.dequantize(interpreter.get_tensor(self._output.index))[0]
        return probabilities

    @contextmanager
    def _borrowed_interpreter(self) -> Iterator[Interpreter]:
        interpreter = self._pool.get()
        try:
            yield interpreter
        finally:
            self._pool.put(interpreter)


def _build_interpreter(bundle: Bundle, num_threads: int) -> Interpreter:
    try:
        interpreter = Interpreter(model_content=bundle.model, num_threads=num_threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ServingError(
            f"{bundle.directory / MODEL_FILE}: LiteRT cannot load it: {_one_line(error)}; push it again"
        ) from error
    return interpreter


def _check_tensors(interpreter: Interpreter, bundle: Bundle) -> tuple[_Tensor, _Tensor]:
    path = bundle.directory / MODEL_FILE
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ServingError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs, where one of each is served")
    found = _Tensor.of(inputs[0]), _Tensor.of(outputs[0])
    for role, tensor, spec in zip(
        ("input", "output"), found, (bundle.manifest.input, bundle.manifest.output), strict=True
    ):
        if tensor.differs_from(spec):
            raise ServingError(
                f"{path}: its {role} tensor is not the one that {MANIFEST_FILE} describes: it is {tensor}"
            )
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
