"""What a .tflite file holds, read from the file itself and not from the model it was made of."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import TensorType
from ai_edge_litert.tools import flatbuffer_utils

if TYPE_CHECKING:
    from pathlib import Path

_FLOATS = {TensorType.FLOAT16: np.float16, TensorType.FLOAT32: np.float32, TensorType.FLOAT64: np.float64}
_WEIGHTS = {TensorType.FLOAT16: np.float16, TensorType.FLOAT32: np.float32, TensorType.INT8: np.int8}


class ModelFile:
    """The tensors of a .tflite file."""

    def __init__(self, path: Path) -> None:
        """Parses the file.

        Args:
            path: The .tflite file.
        """
        self._model = flatbuffer_utils.read_model(str(path))

    def float_tensors(self) -> list[str]:
        """Names of all tensors of a float type, weights and activations."""
        return [
            tensor.name.decode()
            for graph in self._model.subgraphs
            for tensor in graph.tensors
            if tensor.type in _FLOATS
        ]

    @functools.cached_property
    def weights(self) -> list[np.ndarray]:
        """Stored values of all kernels: constants of two or more dimensions, which leaves biases and shapes out.

        Quantised kernels come as stored. They are symmetric (zero point 0) by TFLite's quantisation specification,
        so a stored 0 is a zero weight in every type.
        """
        return [
            np.frombuffer(bytes(self._model.buffers[tensor.buffer].data), _WEIGHTS[tensor.type])
            for graph in self._model.subgraphs
            for tensor in graph.tensors
            if self._is_kernel(tensor)
        ]

    def sparsity(self) -> float:
        """Share of zeros among all weights, in [0, 1]."""
        size = sum(weights.size for weights in self.weights)
        zeros = size - sum(int(np.count_nonzero(weights)) for weights in self.weights)
        return zeros / size if size else 0.0

    def unique_weights(self) -> int:
        """Most distinct values in one weight tensor, which is what clustering bounds."""
        return max((len(np.unique(weights)) for weights in self.weights), default=0)

    def _is_kernel(self, tensor: flatbuffer_utils.TensorT) -> bool:
        constant = self._model.buffers[tensor.buffer].data is not None
        return constant and tensor.type in _WEIGHTS and tensor.shape is not None and len(tensor.shape) >= 2
