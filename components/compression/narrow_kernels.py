"""Kernels of 4 and 2 bits in a .tflite file.

Kernels that use no more than 4 of their 8 bits are packed two weights to a byte, which the runtime unpacks itself, and
those that use no more than 2, four to a byte, which operators in the file unpack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import (
    BuiltinOperator,
    BuiltinOptions,
    CastOptionsT,
    OperatorCodeT,
    OperatorT,
    TensorT,
    TensorType,
)

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, SubGraphT

WIDE_BITS = 8
# By the bits of a weight.
PACKED_TYPES = {2: TensorType.INT2, 4: TensorType.INT4}
_NARROWED_OPERATORS = frozenset({BuiltinOperator.CONV_2D, BuiltinOperator.FULLY_CONNECTED})
_KERNEL_INPUT = 1
# What the two operators and their results that unpack a kernel of 2 bits take in a file, as measured.
_UNPACKING_BYTES = 130
# The first version of the operator that reads 2-bit integers.
_CAST_VERSION = 8


def integer_range(bits: int) -> tuple[int, int]:
    """Returns the least and the greatest integer that stand for a weight of so many bits.

    As many on either side of zero, as TFLite's specification wants it of 8 bits. Of 2 bits it would waste one of four.
    """
    greatest = 2 ** (bits - 1) - 1
    return (-greatest - 1 if bits == 2 else -greatest), greatest


def narrow_weights(model: ModelT) -> None:
    """Packs the kernels of plain convolutions and dense layers that use no more than 4 bits.

    Args:
        model: A full-integer model as objects; it is changed. It answers the same up to the rounding of activations:
            XNNPACK has no convolution with such weights, so the runtime's own kernels compute these layers.

    Raises:
        ValueError: There is no such kernel.
    """
    packed = 0
    for graph in model.subgraphs:
        unpacked: dict[int, int] = {}
        operators = []
        for operator in graph.operators:
            if _code(model, operator) in _NARROWED_OPERATORS:
                packed += _pack_kernel(model, graph, operator)
                operators += _unpacking(model, graph, operator, unpacked)
            operators.append(operator)
        graph.operators = operators
    if not packed:
        raise ValueError("none of the kernels uses 4 bits or less")


def stored_bits(bits: int, weights: int, *, dense: bool) -> int:
    """Returns the bits that a weight takes in a file.

    Args:
        bits: That it needs.
        weights: Number of the kernel's weights.
        dense: Whether it is a dense layer's kernel.

    Returns:
        2 for convolutions whose kernel, and all that unpacks it, is smaller that way; otherwise 4, or 8.
    """
    if bits <= 2 and not dense and weights // 4 > _UNPACKING_BYTES:
        return 2
    return 4 if bits <= 4 else WIDE_BITS


def pack_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Packs integers of 2 or 4 bits.

    Args:
        values: int8 [N] that so few bits hold in two's complement.
        bits: Bits of a value.

    Returns:
        uint8 [ceil(N * bits / 8)], the first value of each byte in its lowest bits.
    """
    per_byte = 8 // bits
    padded = np.append(values, np.zeros(-len(values) % per_byte, np.int8)).view(np.uint8) & (2**bits - 1)
    shifted = padded.reshape(-1, per_byte) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(shifted, axis=1)


def unpack_bits(packed: np.ndarray, count: int, bits: int) -> np.ndarray:
    """Returns the first `count` int8 values of what `pack_bits` packed with so many bits."""
    parts = packed[:, np.newaxis] >> np.arange(0, 8, bits, dtype=np.uint8) & (2**bits - 1)
    values = parts.ravel()[:count].astype(np.int8)
    return np.where(values >= 2 ** (bits - 1), values - 2**bits, values).astype(np.int8)


def _code(model: ModelT, operator: OperatorT) -> int:
    return model.operatorCodes[operator.opcodeIndex].builtinCode


def _pack_kernel(model: ModelT, graph: SubGraphT, operator: OperatorT) -> bool:
    """Packs an operator's kernel if it is not yet and can be; returns whether it did."""
    tensor = graph.tensors[operator.inputs[_KERNEL_INPUT]]
    stored = model.buffers[tensor.buffer].data
    if tensor.type != TensorType.INT8 or stored is None:
        return False
    values = np.frombuffer(bytes(stored), np.int8)
    used = next((bits for bits in PACKED_TYPES if _fits(values, bits)), WIDE_BITS)
    bits = stored_bits(used, len(values), dense=_code(model, operator) == BuiltinOperator.FULLY_CONNECTED)
    if bits not in PACKED_TYPES:
        return False
    model.buffers[tensor.buffer].data = pack_bits(values, bits)
    tensor.type = PACKED_TYPES[bits]
    return True


def _fits(values: np.ndarray, bits: int) -> bool:
    low, high = integer_range(bits)
    return bool(low <= values.min() and values.max() <= high)


def _unpacking(model: ModelT, graph: SubGraphT, operator: OperatorT, unpacked: dict[int, int]) -> list[OperatorT]:
    """Has an operator take its kernel as 8 bits if it has 2, and returns what unpacks it unless something did before.

    The runtime's convolutions know 8 and 4 bits, and its only conversion of 2 is to floating point.
    """
    index = int(operator.inputs[_KERNEL_INPUT])
    packed = graph.tensors[index]
    if packed.type != TensorType.INT2:
        return []
    casts: list[OperatorT] = []
    if index not in unpacked:
        source = index
        for kind in (TensorType.FLOAT32, TensorType.INT8):
            graph.tensors.append(_unpacked_tensor(packed, kind))
            target = len(graph.tensors) - 1
            casts.append(_cast(model, graph, source, target))
            source = target
        unpacked[index] = source
    operator.inputs = np.array(operator.inputs, np.int32)
    operator.inputs[_KERNEL_INPUT] = unpacked[index]
    return casts


def _unpacked_tensor(packed: TensorT, kind: int) -> TensorT:
    tensor = TensorT()
    tensor.shape = packed.shape
    tensor.type = kind
    tensor.quantization = packed.quantization if kind == TensorType.INT8 else None
    return tensor


def _cast(model: ModelT, graph: SubGraphT, source: int, target: int) -> OperatorT:
    operator = OperatorT()
    operator.opcodeIndex = _operator_code(model, BuiltinOperator.CAST, _CAST_VERSION)
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
    operator.builtinOptionsType = BuiltinOptions.CastOptions
    operator.builtinOptions = CastOptionsT()
    operator.builtinOptions.inDataType = graph.tensors[source].type
    operator.builtinOptions.outDataType = graph.tensors[target].type
    return operator


def _operator_code(model: ModelT, builtin: int, version: int) -> int:
    for place, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            code.version = max(code.version, version)
            return place
    code = OperatorCodeT()
    # Old runtimes look for codes below 127 in the older of the two fields.
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
