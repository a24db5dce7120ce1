"""Writes a .tflite file without the bytes that no runtime needs.

The converters write every vector, and every operator's options, anew wherever they occur, and one 64-bit zero point per
channel for weights that are symmetric by specification. In a small network that is a fifth of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT

_FILE_IDENTIFIER = b"TFL3"
# What the schema's `force_align` asks of buffers, and the Python builder does not do by itself.
_BUFFER_ALIGNMENT = 16


def pack(model: ModelT) -> bytes:
    """Writes a model as the content of a .tflite file; the model answers what it answered before.

    Vectors, strings, options and quantisations of equal content are written once and referred to from everywhere, which
    the FlatBuffers format allows; the description of the model and the names of inner tensors are left out.

    Args:
        model: The model as objects; it is changed, and good for nothing but being packed.

    Returns:
        Content of the file, with every buffer aligned to 16 bytes.
    """
    model.description = None
    for graph in model.subgraphs:
        ends = {*graph.inputs, *graph.outputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in ends:
                tensor.name = None
            if tensor.shape is not None:
                tensor.shape = np.asarray(tensor.shape, np.int32)
            tensor.quantization = _shared(tensor.quantization)
        for operator in graph.operators:
            operator.builtinOptions = _shared(operator.builtinOptions)
    builder = SharingBuilder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())


def unpack(content: bytes) -> ModelT:
    """Reads the content of a .tflite file as objects."""
    return flatbuffer_utils.read_model_from_bytearray(content)


def _shared(table: Any) -> _SharedTable | None:
    return None if table is None else _SharedTable(table)


class _SharedTable:
    """Stands for a table in the model, and is written where the first of equal content was."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def Pack(self, builder: SharingBuilder) -> int:  # noqa: N802 (the name is the generated code's)
        return builder.share_table(self._table)


class SharingBuilder(flatbuffers.Builder):
    """Writes each vector and string once, and each table that is to be shared."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._tables: dict[tuple[Any, ...], int] = {}
        self._vectors: dict[tuple[str, bytes], int] = {}
        self._strings: dict[bytes, int] = {}

    def share_table(self, table: Any) -> int:
        """Writes a table, unless one of the same type and content is written already; returns where it is."""
        key = (type(table), *map(_content, vars(table).values()))
        if key not in self._tables:
            self._tables[key] = table.Pack(self)
        return self._tables[key]

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 (the name is FlatBuffers')
        """Writes an array, unless an equal one is written already; returns where it is."""
        key = _content(x)
        if key not in self._vectors:
            if x.dtype == np.uint8:
                self.Prep(_BUFFER_ALIGNMENT, x.nbytes)
            self._vectors[key] = super().CreateNumpyVector(x)
        return self._vectors[key]

    def CreateString(self, s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> int:  # noqa: N802
        """Writes a string, unless the same is written already; returns where it is."""
        key = s if isinstance(s, bytes) else s.encode(encoding, errors)
        if key not in self._strings:
            self._strings[key] = super().CreateString(key, encoding, errors)
        return self._strings[key]


def _content(value: Any) -> Any:
    """Returns what equals for values of equal content, where arrays have no equality that is one answer."""
    return (value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else value
