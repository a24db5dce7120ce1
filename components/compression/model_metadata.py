"""TensorFlow Lite Metadata: what MediaPipe Tasks, ML Kit and Android Studio read of an image classifier's file.

Without it they refuse a model or show class numbers. It says how pixels are given to the network and where the class
names are: in `labels.txt` of a zip archive behind the network's own bytes, which runtimes pass over.

Sources: https://ai.google.dev/edge/litert/models/metadata, and for the numbers of the fields the schema
https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/tasks/metadata/metadata_schema.fbs.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from typing import TYPE_CHECKING, Final

import numpy as np
from ai_edge_litert.schema_py_generated import BufferT, MetadataT

from components.compression.bundle import LABELS_FILE
from components.compression.packing import SharingBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_edge_litert.schema_py_generated import ModelT

_ENTRY: Final = "TFLITE_METADATA"
_FILE_IDENTIFIER: Final = b"M001"
_OLDEST_READER: Final = "1.0.0"
# Members of the schema's enumerations and unions.
_IMAGE_PROPERTIES, _RGB, _NORMALIZATION, _AXIS_LABELS = 2, 1, 1, 2


@dataclasses.dataclass(frozen=True)
class _Table:
    """A table of the schema: values by the number of their field."""

    fields: Mapping[int, _Value]


@dataclasses.dataclass(frozen=True)
class _Byte:
    value: int


# A whole number is an unsigned one of 32 bits, an array a vector of float32.
_Value = str | int | _Byte | np.ndarray | _Table | list[_Table]


def describe(model: ModelT, *, has_labels: bool) -> None:
    """Puts the description into a model, in place of what the converter noted about itself.

    Args:
        model: A classifier of one input, RGB pixels [1, S, S, 3] in [0, 255] before its quantisation, and one output,
            probabilities [1, C]; it is changed.
        has_labels: Whether the file will have the names of the C classes.
    """
    [graph] = model.subgraphs
    image, answer = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    side = int(image.shape[1])
    entry, buffer = MetadataT(), BufferT()
    entry.name, entry.buffer = _ENTRY, len(model.buffers)
    buffer.data = np.frombuffer(_written(_classifier(image.name, answer.name, side, has_labels)), np.uint8)
    model.buffers.append(buffer)
    model.metadata = [entry]


def with_labels(content: bytes, labels: str) -> bytes:
    """Appends the class names to the content of a .tflite file.

    Args:
        content: Of the file.
        labels: A line for each class, in the order of the outputs.

    Returns:
        The content, which `unzip` opens too. The archive is not compressed, because phones read it in place.
    """
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        # A ZipInfo of its own has no date, so that equal models are equal files.
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), labels)
    return whole.getvalue()


def _classifier(input_name: bytes, output_name: bytes, side: int, has_labels: bool) -> _Table:
    size = _Table({0: side, 1: side})
    content = _Table({0: _Byte(_IMAGE_PROPERTIES), 1: _Table({0: _Byte(_RGB), 1: size})})
    # The network scales pixels itself.
    unchanged = _Table({0: np.zeros(1, np.float32), 1: np.ones(1, np.float32)})
    image: dict[int, _Value] = {
        0: input_name.decode(),
        1: "RGB pixels, 0 to 255",
        3: content,
        4: [_Table({0: _Byte(_NORMALIZATION), 1: unchanged})],
        5: _stats(0, 255),
    }
    answer: dict[int, _Value] = {0: output_name.decode(), 1: "Probability of each class", 5: _stats(0, 1)}
    if has_labels:
        answer[6] = [_Table({0: LABELS_FILE, 1: "Class names", 2: _Byte(_AXIS_LABELS)})]
    graph = _Table({2: [_Table(image)], 3: [_Table(answer)]})
    return _Table({0: "Image classifier", 1: "Made by Trimline", 3: [graph], 7: _OLDEST_READER})


def _stats(least: float, most: float) -> _Table:
    return _Table({0: np.array([most], np.float32), 1: np.array([least], np.float32)})


def _written(root: _Table) -> bytes:
    builder = SharingBuilder(512)
    builder.Finish(_write_table(builder, root), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())


def _write_table(builder: SharingBuilder, table: _Table) -> int:
    # A table refers to what was written before it.
    offsets = {slot: _write_part(builder, value) for slot, value in table.fields.items()}
    builder.StartObject(max(table.fields) + 1)
    for slot, value in table.fields.items():
        if isinstance(value, _Byte):
            builder.PrependUint8Slot(slot, value.value, 0)
        elif isinstance(value, int):
            builder.PrependUint32Slot(slot, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
    return builder.EndObject()


def _write_part(builder: SharingBuilder, value: _Value) -> int:
    match value:
        case str():
            return builder.CreateString(value)
        case np.ndarray():
            return builder.CreateNumpyVector(value)
        case _Table():
            return _write_table(builder, value)
        case list():
            tables = [_write_table(builder, table) for table in value]
            builder.StartVector(4, len(tables), 4)
            for offset in reversed(tables):
                builder.PrependUOffsetTRelative(offset)
            return builder.EndVector()
    return 0
