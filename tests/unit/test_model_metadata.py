"""The metadata of .tflite files, read by field numbers of the published schema, as any reader of it does."""

import io
import zipfile
from typing import Any

import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import encode, number_types
from flatbuffers.table import Table

from components.compression import model_metadata, packing

LABELS = "cat\ngrün\n"


def build(labels: str) -> bytes:
    image = keras.Input([24, 24, 3], name="image")
    model = keras.Model(
        image,
        keras.layers.Dense(2, kernel_initializer="ones", name="answer")(keras.layers.GlobalAveragePooling2D()(image)),
    )
    parts = packing.unpack(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    model_metadata.describe(parts, has_labels=bool(labels))
    content = packing.pack(parts)
    return model_metadata.with_labels(content, labels) if labels else content


@pytest.fixture(scope="module")
def content() -> bytes:
    return build(LABELS)


def metadata_of(content: bytes) -> bytes:
    model = packing.unpack(content)
    [entry] = model.metadata
    assert entry.name == b"TFLITE_METADATA"
    return bytes(model.buffers[entry.buffer].data)


def root_of(metadata: bytes) -> Table:
    assert metadata[4:8] == b"M001"
    return Table(bytearray(metadata), encode.Get(number_types.UOffsetTFlags.packer_type, metadata, 0))


def follow(table: Table, *path: int | str) -> Any:
    """Goes along field numbers; "first" is the first table of the vector that the number before it names."""
    for number, then in zip(path, [*path[1:], None], strict=True):
        if number == "first":
            continue
        offset = table.Offset(4 + 2 * number)
        assert offset, f"field {number} of {path} is not there"
        if then == "first":
            table = Table(table.Bytes, table.Indirect(table.Vector(offset)))
        else:
            table = Table(table.Bytes, table.Indirect(offset + table.Pos))
    return table


def text(table: Table, number: int) -> str:
    return table.String(table.Offset(4 + 2 * number) + table.Pos).decode()


def number(table: Table, field: int, kind: Any) -> int:
    return table.Get(kind, table.Offset(4 + 2 * field) + table.Pos)


def floats(table: Table, field: int) -> list[float]:
    start = table.Vector(offset := table.Offset(4 + 2 * field))
    return [table.Get(number_types.Float32Flags, start + 4 * index) for index in range(table.VectorLen(offset))]


def test_pixels_are_rgb_of_the_networks_size_and_given_as_they_are(content: bytes) -> None:
    image = follow(root_of(metadata_of(content)), 3, "first", 2, "first")
    assert number(follow(image, 3), 0, number_types.Uint8Flags) == 2  # ImageProperties
    assert number(follow(image, 3, 1), 0, number_types.Int8Flags) == 1  # RGB
    assert [number(follow(image, 3, 1, 1), side, number_types.Uint32Flags) for side in (0, 1)] == [24, 24]
    assert number(follow(image, 4, "first"), 0, number_types.Uint8Flags) == 1  # NormalizationOptions
    normalization = follow(image, 4, "first", 1)
    assert (floats(normalization, 0), floats(normalization, 1)) == ([0.0], [1.0])
    assert (floats(follow(image, 5), 0), floats(follow(image, 5), 1)) == ([255.0], [0.0])


def test_the_output_names_the_file_of_its_labels(content: bytes) -> None:
    answer = follow(root_of(metadata_of(content)), 3, "first", 3, "first")
    file = follow(answer, 6, "first")
    assert text(file, 0) == "labels.txt"
    assert number(file, 2, number_types.Int8Flags) == 2  # TENSOR_AXIS_LABELS


def test_the_labels_lie_uncompressed_in_an_archive_behind_the_network(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        [member] = archive.infolist()
        assert (member.filename, member.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(member).decode() == LABELS


def test_a_runtime_loads_the_file(content: bytes) -> None:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.invoke()


def test_equal_models_are_equal_files(content: bytes) -> None:
    assert build(LABELS) == content


def test_without_labels_there_is_no_archive() -> None:
    content = build("")
    assert not zipfile.is_zipfile(io.BytesIO(content))
    answer = follow(root_of(metadata_of(content)), 3, "first", 3, "first")
    assert not answer.Offset(4 + 2 * 6)
