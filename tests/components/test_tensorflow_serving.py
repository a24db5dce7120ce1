"""TensorFlow Serving's contract: Predict, Classify and GetModelMetadata with its own request messages.

Every test runs against the loaded SavedModel, by the rules of TensorFlow Serving's servables, and against a real
tensorflow_model_server where one is on PATH.
"""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from benchmarks.gate_bench import CLASS_NAMES, SIZE, build_network, encode, tinted_digits
from tests.image_files import encoded, with_orientation
from trainer_module import features
from trainer_module.export import save_serving_model

pytestmark = pytest.mark.component

NAME = "trimline"
SECONDS_TO_START = 60


class LoadedModel:
    """Answers requests with a SavedModel in this process, as TensorFlow Serving's servables do."""

    def __init__(self, directory: Path) -> None:
        self._signatures = tf.saved_model.load(str(directory)).signatures
        content = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
        self._graph = content.meta_graphs[0]

    def Predict(self, request):  # noqa: N802 (the service's name)
        signature = self._signature(request.model_spec.signature_name)
        # predict_util.cc: the inputs of the request must be those of the signature.
        assert set(request.inputs) == set(signature.inputs)
        inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        outputs = self._signatures[request.model_spec.signature_name or "serving_default"](**inputs)
        response = predict_pb2.PredictResponse()
        for name, tensor in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
        return response

    def Classify(self, request):  # noqa: N802 (the service's name)
        signature = self._signature(request.model_spec.signature_name)
        # classifier.cc, PreProcessClassification: one input of this name, and no outputs but these two.
        assert list(signature.inputs) == [tf.compat.v1.saved_model.CLASSIFY_INPUTS]
        assert set(signature.outputs) == {"classes", "scores"}
        serialized = [example.SerializeToString() for example in request.input.example_list.examples]
        outputs = self._signatures[request.model_spec.signature_name](inputs=tf.constant(serialized))
        response = classification_pb2.ClassificationResponse()
        for classes, scores in zip(outputs["classes"].numpy(), outputs["scores"].numpy(), strict=True):
            row = response.result.classifications.add()
            for label, score in zip(classes, scores, strict=True):
                row.classes.add(label=label.decode(), score=score)
        return response

    def GetModelMetadata(self, request):  # noqa: N802 (the service's name)
        assert list(request.metadata_field) == ["signature_def"]
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self._graph.signature_def.items():
            signatures.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _signature(self, name):
        return self._graph.signature_def[name or "serving_default"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A directory of versions, as the Pusher leaves it."""
    directory = tmp_path_factory.mktemp("saved_model")
    save_serving_model(build_network(), str(directory / "1795514522"), CLASS_NAMES, SIZE)
    return directory


@pytest.fixture(scope="module", params=["loaded", pytest.param("server", marks=pytest.mark.model_server)])
def service(request, base):
    if request.param == "loaded":
        yield LoadedModel(base / "1795514522")
        return
    program = shutil.which("tensorflow_model_server")
    if program is None:
        pytest.skip("NOT TESTED against a real TensorFlow Serving: no tensorflow_model_server on PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([program, f"--port={port}", f"--model_name={NAME}", f"--model_base_path={base}"])
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(SECONDS_TO_START)
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            _wait_for_the_model(stub)
            yield stub
    finally:
        process.terminate()
        process.wait(20)


def _wait_for_the_model(stub):
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            stub.GetModelMetadata(_metadata_request())
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


@pytest.fixture(scope="module")
def photos():
    return tinted_digits()[1].images[:5]


def _predict_request(signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def _metadata_request():
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = NAME
    request.metadata_field.append("signature_def")
    return request


def _outputs(response):
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


def test_predict_answers_image_files(service, photos):
    outputs = _outputs(service.Predict(_predict_request(image_bytes=[encode(photo) for photo in photos])))
    assert set(outputs) == {"label", "probabilities"}
    assert outputs["probabilities"].dtype == np.float32
    assert outputs["probabilities"].shape == (5, 10)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, rtol=1e-5)
    best = outputs["probabilities"].argmax(axis=1)
    assert [label.decode() for label in outputs["label"]] == [CLASS_NAMES[index] for index in best]


def test_predict_answers_pixels_as_it_answers_their_files(service, photos):
    files = _outputs(service.Predict(_predict_request(image_bytes=[encode(photo) for photo in photos])))
    pixels = _outputs(service.Predict(_predict_request("serving_images", images=photos)))
    np.testing.assert_allclose(pixels["probabilities"], files["probabilities"], atol=1e-6)


# How a photo is stored that EXIF 2.32, tag Orientation, says to turn for viewing.
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_photos_are_turned_upright(service, photos, orientation):
    stored = [np.ascontiguousarray(STORED[orientation](photo)) for photo in photos]
    files = [encoded(pixels, exif=with_orientation(orientation)) for pixels in stored]
    answers = _outputs(service.Predict(_predict_request(image_bytes=files)))
    upright = _outputs(service.Predict(_predict_request("serving_images", images=photos)))
    np.testing.assert_allclose(answers["probabilities"], upright["probabilities"], atol=1e-6)


def test_transparency_is_laid_over_white(service, photos):
    alpha = np.where(np.arange(SIZE) < SIZE // 2, 0, 255)[np.newaxis, :, np.newaxis]
    transparent = [np.dstack([photo, np.broadcast_to(alpha, (SIZE, SIZE, 1))]).astype(np.uint8) for photo in photos]
    answers = _outputs(service.Predict(_predict_request(image_bytes=[encoded(pixels) for pixels in transparent])))
    on_white = np.where(alpha == 0, 255, photos).astype(np.uint8)
    expected = _outputs(service.Predict(_predict_request("serving_images", images=on_white)))
    np.testing.assert_allclose(answers["probabilities"], expected["probabilities"], atol=1e-6)


def test_classify_names_every_class_with_its_score(service, photos):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = NAME
    request.model_spec.signature_name = "serving_examples"
    for photo in photos:
        values = request.input.example_list.examples.add().features.feature
        values[features.IMAGE_ENCODED].bytes_list.value.append(encode(photo))
    rows = service.Classify(request).result.classifications
    expected = _outputs(service.Predict(_predict_request(image_bytes=[encode(photo) for photo in photos])))
    assert [[item.label for item in row.classes] for row in rows] == [CLASS_NAMES] * 5
    scores = [[item.score for item in row.classes] for row in rows]
    np.testing.assert_allclose(scores, expected["probabilities"], atol=1e-6)


def test_the_metadata_are_the_documented_signatures(service):
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert service.GetModelMetadata(_metadata_request()).metadata["signature_def"].Unpack(signatures)
    found = {
        name: (_tensors(signature.inputs), _tensors(signature.outputs))
        for name, signature in signatures.signature_def.items()
        if not name.startswith("__")
    }
    answers = {"label": ("string", [-1]), "probabilities": ("float32", [-1, 10])}
    # As docs/outputs.md has them.
    assert found == {
        "serving_default": ({"image_bytes": ("string", [-1])}, answers),
        "serving_images": ({"images": ("uint8", [-1, SIZE, SIZE, 3])}, answers),
        "serving_examples": (
            {"inputs": ("string", [-1])},
            {"classes": ("string", [-1, 10]), "scores": ("float32", [-1, 10])},
        ),
    }


def _tensors(infos):
    return {
        name: (tf.dtypes.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim])
        for name, info in infos.items()
    }
