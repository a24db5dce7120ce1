"""The V2 protocol: https://github.com/kserve/open-inference-protocol, with Triton's binary tensors."""

import asyncio
import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from edge_bundles import IMAGE_SIZE, LABELS
from edge_requests import BINARY, b64, binary_infer, bytes_tensor, infer_body
from edge_servers import INFER, MODEL_NAME, RunningServer
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from serving.predictor import Predictor

MODEL = f"/v2/models/{MODEL_NAME}"
SHAPE = [1, IMAGE_SIZE, IMAGE_SIZE, 3]


def _probabilities(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["outputs"][1]["data"]


def test_image_files_in_base64(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    response = http.post(INFER, json=infer_body("BYTES", [2], [b64(data) for data in files], id="42"))
    expected = predictor.predict_images(files)
    assert response.status_code == 200
    assert response.json()["id"] == "42"
    assert response.json()["model_name"] == MODEL_NAME
    assert response.json()["model_version"] == "3"
    label, probabilities = response.json()["outputs"]
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [2])
    assert (probabilities["name"], probabilities["datatype"], probabilities["shape"]) == (
        "probabilities",
        "FP32",
        [2, 3],
    )
    assert label["data"] == [LABELS[index] for index in expected.argmax(axis=1)]
    np.testing.assert_array_equal(np.reshape(probabilities["data"], (2, 3)), expected)


@pytest.mark.parametrize("flat", [True, False])
def test_pixels_in_json(http: httpx.Client, predictor: Predictor, files: list[bytes], flat: bool) -> None:
    pixels = predictor.prepare(files[0])[np.newaxis]
    data = pixels.ravel().tolist() if flat else pixels.tolist()
    response = http.post(INFER, json=infer_body("UINT8", SHAPE, data))
    assert _probabilities(response) == predictor.predict(pixels)[0].tolist()


def test_binary_pixels(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    pixels = predictor.prepare(files[0])[np.newaxis]
    response = http.post(INFER, **binary_infer("UINT8", SHAPE, pixels.tobytes()))
    assert _probabilities(response) == predictor.predict(pixels)[0].tolist()


def test_a_raw_request_is_one_image_file(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    for headers in ({"content-type": BINARY}, {"content-type": BINARY, "inference-header-content-length": "0"}):
        response = http.post(INFER, content=files[0], headers=headers)
        assert _probabilities(response) == predictor.predict_images(files[:1])[0].tolist()


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
    ],
)
def test_binary_outputs(http: httpx.Client, predictor: Predictor, files: list[bytes], asked: dict[str, Any]) -> None:
    response = http.post(INFER, json=infer_body("BYTES", [1], [b64(files[0])], **asked))
    assert response.headers["content-type"] == BINARY
    length = int(response.headers["inference-header-content-length"])
    outputs = json.loads(response.content[:length])["outputs"]
    raw = response.content[length:]
    expected = predictor.predict_images(files[:1])[0]
    np.testing.assert_array_equal(np.frombuffer(raw[-expected.nbytes :], np.float32), expected)
    assert sum(output["parameters"]["binary_data_size"] for output in outputs) == len(raw)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("binary_outputs", [True, False])
def test_the_client_of_kserve_is_answered(
    server: RunningServer, predictor: Predictor, files: list[bytes], binary: bool, binary_outputs: bool
) -> None:
    pixels = np.stack([predictor.prepare(data) for data in files])
    tensor = InferInput("images", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    asked = [RequestedOutput("probabilities", {"binary_data": binary_outputs}), RequestedOutput("label")]
    request = InferRequest(MODEL_NAME, [tensor], request_outputs=asked)

    async def ask() -> tuple[InferResponse, bool, bool]:
        async with InferenceRESTClient(RESTConfig(protocol="v2", verify=False)) as client:
            answer = await client.infer(server.url, request, model_name=MODEL_NAME)
            ready = await client.is_model_ready(server.url, MODEL_NAME)
            return answer, ready, await client.is_server_ready(server.url)

    answer, *ready = asyncio.run(ask())
    assert ready == [True, True]
    expected = predictor.predict(pixels)
    np.testing.assert_array_equal(answer.get_output_by_name("probabilities").as_numpy(), expected)
    assert list(answer.get_output_by_name("label").as_numpy()) == [LABELS[i] for i in expected.argmax(axis=1)]


def test_only_the_requested_outputs_are_sent(http: httpx.Client, files: list[bytes]) -> None:
    body = infer_body("BYTES", [1], [b64(files[0])], outputs=[{"name": "label"}])
    assert [output["name"] for output in http.post(INFER, json=body).json()["outputs"]] == ["label"]


def test_the_server_and_the_model_describe_themselves(http: httpx.Client) -> None:
    assert "binary_tensor_data" in http.get("/v2").json()["extensions"]
    assert http.get("/v2/models").json() == {"models": [MODEL_NAME]}
    metadata = http.get(MODEL).json()
    assert metadata["versions"] == ["3"]
    assert metadata["inputs"] == [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}]
    assert [output["shape"] for output in metadata["outputs"]] == [[-1], [-1, len(LABELS)]]
    assert http.get(f"{MODEL}/versions/3").json() == metadata
    assert http.get(f"{MODEL}/versions/3/ready").json() == {"name": MODEL_NAME, "ready": True}
    assert http.get(f"{MODEL}/versions/4").status_code == 404
    assert http.get(f"{MODEL}/versions/4/ready").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        infer_body("BYTES", [1], [b64(b"no image")]),
        infer_body("BYTES", [2], [b64(b"no image")]),
        infer_body("BYTES", [0], []),
        infer_body("BYTES", [1], [[1]]),
        infer_body("BYTES", [2**62], [""]),
        infer_body("FP32", [1], [1.0]),
        infer_body("UINT8", [], [1]),
        infer_body("UINT8", SHAPE, [1]),
        infer_body("UINT8", [-1, *SHAPE[1:]], [0] * 3 * IMAGE_SIZE**2),
        infer_body("UINT8", SHAPE, [256] * 3 * IMAGE_SIZE**2),
        infer_body("UINT8", SHAPE, [0.5] * 3 * IMAGE_SIZE**2),
        infer_body("UINT8", [True, *SHAPE[1:]], [0] * 3 * IMAGE_SIZE**2),
        infer_body("BYTES", [1], [""], id=5),
        infer_body("BYTES", [1], [""], outputs=[{"name": "logits"}]),
        infer_body("BYTES", [1], [""], outputs=[{"name": ["label"]}]),
        infer_body("BYTES", [1], [""], parameters=[1]),
        {"inputs": []},
        {"inputs": [{}]},
        {"inputs": [1]},
        {},
    ],
)
def test_a_bad_request_is_refused(http: httpx.Client, body: dict[str, Any]) -> None:
    response = http.post(INFER, json=body)
    assert response.status_code == 400
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("header_length", ["", "nonsense", "3", "999999", "-1", "²", "9" * 5000])
def test_an_unreadable_binary_request_is_refused(http: httpx.Client, header_length: str) -> None:
    headers = {"content-type": BINARY, "inference-header-content-length": header_length.encode()}
    response = http.post(INFER, content=b"not JSON", headers=headers)
    assert response.status_code == 400


@pytest.mark.parametrize(
    "request_arguments",
    [
        binary_infer("UINT8", SHAPE, b"too short"),
        binary_infer("UINT8", [2, *SHAPE[1:]], bytes(IMAGE_SIZE**2 * 3)),
        binary_infer("BYTES", [2], bytes_tensor([b"one"])),
        binary_infer("BYTES", [1], bytes_tensor([b"one", b"two"])),
        binary_infer("BYTES", [2], struct.pack("<I", 2**32 - 1) + b"x"),
        binary_infer("FP32", [1], b"1234"),
    ],
)
def test_a_bad_binary_tensor_is_refused(http: httpx.Client, request_arguments: dict[str, Any]) -> None:
    assert http.post(INFER, **request_arguments).status_code == 400
