"""What a .tflite file holds, read from the file itself and not from the model it was made of."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType
from ai_edge_litert.tools import flatbuffer_utils

from components.compression.narrow_kernels import PACKED_TYPES, unpack_bits

if TYPE_CHECKING:
    from pathlib import Path

_FLOATS = {TensorType.FLOAT16: np.float16, TensorType.FLOAT32: np.float32, TensorType.FLOAT64: np.float64}
_WEIGHTS = {TensorType.FLOAT16: np.float16, TensorType.FLOAT32: np.float32, TensorType.INT8: np.int8}
_BYTES = {TensorType.FLOAT16: 2, TensorType.INT8: 1, TensorType.UINT8: 1, TensorType.INT16: 2, TensorType.INT64: 8}
_PACKED_BITS = {kind: bits for bits, kind in PACKED_TYPES.items()}
_OPERATOR_NAMES = {code: name for name, code in vars(BuiltinOperator).items() if not name.startswith("_")}


class ModelFile:
    """The tensors of a .tflite file."""

    def __init__(self, path: Path) -> None:
        """Parses the file.

        Args:
            path: The .tflite file.
        """
        self._model = flatbuffer_utils.read_model(str(path))

    def float_tensors(self, *, ends: bool = True) -> list[str]:
        """Names, or else numbers, of the tensors of a float type, weights and activations, with or without both ends.

        Not those on the way from a packed kernel to the integers that it holds: nothing is computed with them.
        """
        names = []
        for graph in self._model.subgraphs:
            left_out = {*self._unpacked(graph), *(() if ends else (*graph.inputs, *graph.outputs))}
            names += [
                (tensor.name or b"").decode() or f"tensor {index}"
                for index, tensor in enumerate(graph.tensors)
                if tensor.type in _FLOATS and index not in left_out
            ]
        return names

    @functools.cached_property
    def kernels(self) -> list[Kernel]:
        """All kernels: constants of two or more dimensions, which leaves biases and shapes out; in the order of use."""
        found = {}
        for graph in self._model.subgraphs:
            unpacked = self._unpacked(graph)
            users = [operator for operator in graph.operators if operator.outputs[0] not in unpacked]
            for number, operator in enumerate(users):
                for index in operator.inputs:
                    tensor = graph.tensors[unpacked.get(index, index)]
                    if index >= 0 and tensor.buffer not in found and self._is_kernel(tensor):
                        found[tensor.buffer] = Kernel(f"{number}_{self._operator_name(operator)}", self._values(tensor))
        return list(found.values())

    def sparsity(self) -> float:
        """Share of zeros among all weights, in [0, 1]."""
        size = sum(kernel.values.size for kernel in self.kernels)
        zeros = size - sum(int(np.count_nonzero(kernel.values)) for kernel in self.kernels)
        return zeros / size if size else 0.0

    def unique_weights(self) -> int:
        """Most distinct values in one weight tensor, which is what clustering bounds."""
        return max((kernel.unique for kernel in self.kernels), default=0)

    def cut_biases(self) -> int:
        """Counts the biases at the ends of their 32 bits, which is where a converter puts those that are beyond."""
        found = 0
        for tensor in (tensor for graph in self._model.subgraphs for tensor in graph.tensors):
            # Constants of 32 bits without a scale are shapes and the like.
            scaled = tensor.quantization is not None and tensor.quantization.scale is not None
            if scaled and tensor.type == TensorType.INT32 and self._is_constant(tensor):
                stored = np.frombuffer(bytes(self._model.buffers[tensor.buffer].data), np.int32)
                found += int(np.count_nonzero(np.abs(stored.astype(np.int64)) >= np.iinfo(np.int32).max))
        return found

    def activation_bytes(self) -> int:
        """Most bytes of activations that are alive at once when the operators run in order.

        It is the least memory that an arena can do with; runtimes add what their kernels need.
        """
        return max(map(self._peak, self._model.subgraphs), default=0)

    def _unpacked(self, graph: flatbuffer_utils.SubGraphT) -> dict[int, int]:
        """Returns the tensors that conversions make of packed constants, each with its constant."""
        found: dict[int, int] = {}
        for operator in graph.operators:
            if self._operator_name(operator) == "cast":
                source = found.get(operator.inputs[0], operator.inputs[0])
                if self._is_constant(graph.tensors[source]) and graph.tensors[source].type in _PACKED_BITS:
                    found[operator.outputs[0]] = source
        return found

    def _peak(self, graph: flatbuffer_utils.SubGraphT) -> int:
        sizes = {
            index: self._bytes(tensor) for index, tensor in enumerate(graph.tensors) if not self._is_constant(tensor)
        }
        last = len(graph.operators)
        first_use = dict.fromkeys(map(int, graph.inputs), 0)
        last_use = dict.fromkeys(map(int, graph.outputs), last)
        for number, operator in enumerate(graph.operators):
            for index in (*operator.inputs, *operator.outputs):
                first_use.setdefault(int(index), number)
                last_use[int(index)] = max(number, last_use.get(int(index), 0))
        return max(
            sum(
                size for index, size in sizes.items() if first_use.get(index, last) <= number <= last_use.get(index, -1)
            )
            for number in range(last)
        )

    @staticmethod
    def _bytes(tensor: flatbuffer_utils.TensorT) -> int:
        return math.prod(tensor.shape if tensor.shape is not None else ()) * _BYTES.get(tensor.type, 4)

    def _is_constant(self, tensor: flatbuffer_utils.TensorT) -> bool:
        return self._model.buffers[tensor.buffer].data is not None

    def _is_kernel(self, tensor: flatbuffer_utils.TensorT) -> bool:
        return (
            self._is_constant(tensor)
            and (tensor.type in _WEIGHTS or tensor.type in _PACKED_BITS)
            and tensor.shape is not None
            and len(tensor.shape) >= 2
        )

    def _values(self, tensor: flatbuffer_utils.TensorT) -> np.ndarray:
        stored = bytes(self._model.buffers[tensor.buffer].data)
        if tensor.type in _PACKED_BITS:
            packed = np.frombuffer(stored, np.uint8)
            values = unpack_bits(packed, math.prod(tensor.shape), _PACKED_BITS[tensor.type])
        else:
            values = np.frombuffer(stored, _WEIGHTS[tensor.type])
        return values.reshape(tensor.shape)

    def _operator_name(self, operator: flatbuffer_utils.OperatorT) -> str:
        return _OPERATOR_NAMES[self._model.operatorCodes[operator.opcodeIndex].builtinCode].lower()


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One weight tensor.

    Quantised kernels are symmetric (zero point 0) by TFLite's quantisation specification, so a stored 0 is a zero
    weight in every type.

    Attributes:
        name: Position and kind of the operator that uses it.
        values: As stored.
    """

    name: str
    values: np.ndarray

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return float(np.mean(self.values == 0))

    @property
    def unique(self) -> int:
        """Number of distinct values."""
        return len(np.unique(self.values))

    def to_json(self) -> dict[str, Any]:
        """Returns what is known of it as plain JSON values."""
        return {
            "name": self.name,
            "shape": list(self.values.shape),
            "sparsity": self.sparsity,
            "unique_weights": self.unique,
        }
