import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import Model

from components.compression import packing


@pytest.fixture(scope="module")
def quantised():
    rng = np.random.default_rng(0)
    image = keras.Input([16, 16, 3])
    x = keras.layers.Conv2D(32, 3, activation="relu")(image)
    for _ in range(3):
        x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = keras.layers.Conv2D(32, 1, activation="relu")(x)
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([rng.random([1, 16, 16, 3], np.float32)] for _ in range(8))
    return converter.convert()


def _answers(content):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    [image], [answer] = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for picture in np.random.default_rng(1).random([8, 1, 16, 16, 3], np.float32):
        interpreter.set_tensor(image["index"], picture)
        interpreter.invoke()
        rows.append(interpreter.get_tensor(answer["index"])[0])
    return np.array(rows)


def test_a_packed_file_is_much_smaller_and_answers_the_same(quantised):
    packed = packing.pack(packing.unpack(quantised))

    assert len(packed) < 0.8 * len(quantised)
    np.testing.assert_array_equal(_answers(packed), _answers(quantised))


def test_packing_twice_changes_nothing(quantised):
    packed = packing.pack(packing.unpack(quantised))

    assert packing.pack(packing.unpack(packed)) == packed


def test_equal_options_and_quantisations_are_written_once(quantised):
    packed = packing.pack(packing.unpack(quantised))
    [graph] = packing.unpack(packed).subgraphs
    found = Model.GetRootAs(packed).Subgraphs(0)
    tables = [found.Operators(index).BuiltinOptions() for index in range(len(graph.operators))]
    contents = [operator.builtinOptions for operator in graph.operators if operator.builtinOptions]

    places = [table.Pos for table in tables if table is not None]
    assert len(set(places)) == len({(type(content), str(vars(content))) for content in contents}) < len(places)
    places = [found.Tensors(index).Quantization()._tab.Pos for index in range(len(graph.tensors))]
    assert len(set(places)) < len(places)


def test_every_weight_lies_at_a_multiple_of_16_bytes(quantised):
    packed = packing.pack(packing.unpack(quantised))
    model = Model.GetRootAs(packed)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    filled = [buffer for buffer in buffers if buffer.DataLength()]

    assert filled
    # The vector's start, which only the generated code's own table knows.
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in filled]
    assert [start % 16 for start in starts] == [0] * len(filled)


def test_only_inputs_and_outputs_keep_their_names(quantised):
    [before] = packing.unpack(quantised).subgraphs
    [after] = packing.unpack(packing.pack(packing.unpack(quantised))).subgraphs

    ends = [*before.inputs, *before.outputs]
    assert [after.tensors[end].name for end in ends] == [before.tensors[end].name for end in ends]
    assert all(after.tensors[end].name for end in ends)
    assert sum(tensor.name is not None for tensor in after.tensors) == len(ends)
