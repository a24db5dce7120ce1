"""A real server process, asked over HTTP."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from edge_bundles import IMAGE_SIZE, LABELS
from edge_images import encode, photo
from edge_servers import MODEL_NAME, RunningServer, run_server
from PIL import Image

from serving.bundle import load_bundle
from serving.errors import ServingError
from serving.predictor import Predictor

PREDICT = f"/v1/models/{MODEL_NAME}:predict"
INFER = f"/v2/models/{MODEL_NAME}/infer"
SECRET = "the payload of nobody's business"  # noqa: S105


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def predictor(uint8_bundle: Path) -> Predictor:
    return Predictor(load_bundle(uint8_bundle))


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    rng = np.random.default_rng(9)
    return [encode(photo(rng, 60, 90), "JPEG"), encode(photo(rng, 40, 20), "PNG")]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _infer_body(datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "image_bytes", "datatype": datatype, "shape": shape, "data": data}]}


def _listening(process: psutil.Process) -> set[str]:
    processes = [process, *process.children(recursive=True)]
    connections = [connection for each in processes for connection in each.connections("inet")]
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_v1_takes_all_forms_of_an_image(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    pixels = predictor.prepare(files[0])
    instances = [{"b64": _b64(files[0])}, {"image_bytes": {"b64": _b64(files[1])}}, pixels.tolist()]
    response = http.post(PREDICT, json={"instances": instances})
    expected = predictor.predict_images([files[0], files[1], files[0]])
    assert response.status_code == 200
    rows = response.json()["predictions"]
    assert [set(row) for row in rows] == [{"label", "probabilities"}] * 3
    np.testing.assert_array_equal([row["probabilities"] for row in rows], expected)
    assert [row["label"] for row in rows] == [LABELS[index] for index in expected.argmax(axis=1)]


def test_v2_takes_image_files(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    response = http.post(INFER, json=_infer_body("BYTES", [2], [_b64(data) for data in files]))
    expected = predictor.predict_images(files)
    assert response.status_code == 200
    label, probabilities = response.json()["outputs"]
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [2])
    assert (probabilities["name"], probabilities["datatype"], probabilities["shape"]) == (
        "probabilities",
        "FP32",
        [2, 3],
    )
    assert label["data"] == [LABELS[index] for index in expected.argmax(axis=1)]
    np.testing.assert_array_equal(np.reshape(probabilities["data"], (2, 3)), expected)


def test_v2_takes_pixels(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    pixels = predictor.prepare(files[0])
    shape = [1, IMAGE_SIZE, IMAGE_SIZE, 3]
    response = http.post(INFER, json=_infer_body("UINT8", shape, pixels.ravel().tolist()))
    assert response.json()["outputs"][1]["data"] == predictor.predict(pixels[np.newaxis])[0].tolist()


def test_v2_takes_binary_pixels(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    pixels = predictor.prepare(files[0])
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *pixels.shape]}
    header = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": pixels.size}}]}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(header))}
    response = http.post(INFER, content=header + pixels.tobytes(), headers=headers)
    assert response.json()["outputs"][1]["data"] == predictor.predict(pixels[np.newaxis])[0].tolist()


def test_v2_describes_the_model(http: httpx.Client) -> None:
    metadata = http.get(f"/v2/models/{MODEL_NAME}").json()
    assert metadata["inputs"] == [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}]
    assert [output["shape"] for output in metadata["outputs"]] == [[-1], [-1, len(LABELS)]]


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ({"b64": _b64(SECRET.encode())}, "not an image"),
        ({"b64": "???"}, "not base64"),
        ({"b64": 5}, "base64"),
        ({"image_bytes": {}}, "base64"),
        ({}, "base64"),
        (SECRET, "expected"),
        (None, "expected"),
        ([[1, 2], [3]], "whole numbers"),
        ([[[256] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "whole numbers"),
        ([[[-1] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "whole numbers"),
        ([[[0.5] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "whole numbers"),
        ([[["a"] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "whole numbers"),
        ([], "whole numbers"),
    ],
)
def test_a_bad_instance_is_refused_by_its_index(
    http: httpx.Client, files: list[bytes], instance: object, words: str
) -> None:
    response = http.post(PREDICT, json={"instances": [{"b64": _b64(files[0])}, instance]})
    assert response.status_code == 400
    assert response.json()["error"].startswith("instance 1: ")
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"junk", b"null", b"[]", b"{}", b'{"instances": 3}', b'{"instances": []}', b"\xff"]
)
@pytest.mark.parametrize("content_type", ["application/json", "image/jpeg"])
def test_a_body_without_instances_is_refused(http: httpx.Client, body: bytes, content_type: str) -> None:
    response = http.post(PREDICT, content=body, headers={"content-type": content_type})
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        _infer_body("BYTES", [1], [_b64(SECRET.encode())]),
        _infer_body("BYTES", [2], [_b64(SECRET.encode())]),
        _infer_body("BYTES", [0], []),
        _infer_body("BYTES", [1], [[1]]),
        _infer_body("FP32", [1], [1.0]),
        _infer_body("UINT8", [], [1]),
        _infer_body("UINT8", [1, IMAGE_SIZE, IMAGE_SIZE, 3], [1]),
        _infer_body("UINT8", [-1, IMAGE_SIZE, IMAGE_SIZE, 3], [0] * 3 * IMAGE_SIZE**2),
        _infer_body("UINT8", [1, IMAGE_SIZE, IMAGE_SIZE, 3], [256] * 3 * IMAGE_SIZE**2),
        {"inputs": []},
    ],
)
def test_a_bad_v2_request_is_refused(http: httpx.Client, body: dict[str, Any]) -> None:
    response = http.post(INFER, json=body)
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize("header_length", ["", "nonsense", "3", "999999"])
def test_an_unreadable_binary_v2_request_is_refused(http: httpx.Client, header_length: str) -> None:
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": header_length}
    response = http.post(INFER, content=SECRET.encode(), headers=headers)
    assert response.status_code == 400


def test_binary_v2_image_files_are_refused(http: httpx.Client, files: list[bytes]) -> None:
    element = len(files[0]).to_bytes(4, "little") + files[0]
    tensor = {
        "name": "image_bytes",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(element)},
    }
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(header))}
    response = http.post(INFER, content=header + element, headers=headers)
    assert response.status_code == 400
    assert "base64" in response.json()["error"]


def test_payloads_stay_out_of_the_log(server: RunningServer, http: httpx.Client, files: list[bytes]) -> None:
    secret = _b64(SECRET.encode())
    http.post(PREDICT, json={"instances": [{"b64": _b64(files[0])}]})
    http.post(PREDICT, json={"instances": [{"b64": secret}]})
    http.post(PREDICT, content=SECRET)
    http.post(INFER, json=_infer_body("BYTES", [1], [secret]))
    http.post(INFER, json={"inputs": SECRET})
    element = len(SECRET).to_bytes(4, "little") + SECRET.encode() + b"\xff"
    tensor = {
        "name": "image_bytes",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(element)},
    }
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(header))}
    http.post(INFER, content=header + element, headers=headers)
    log = server.log.read_text()
    assert "models/pets" in log
    assert SECRET not in log
    assert secret not in log
    assert _b64(files[0])[:40] not in log


def test_an_unknown_model_is_not_found(http: httpx.Client) -> None:
    assert http.post("/v1/models/other:predict", json={"instances": []}).status_code == 404


def test_the_model_cannot_be_unloaded_over_http(http: httpx.Client) -> None:
    for verb in ("unload", "load"):
        assert http.post(f"/v2/repository/models/{MODEL_NAME}/{verb}").status_code == 501
    assert http.get(f"/v2/models/{MODEL_NAME}/ready").json()["ready"] is True


def test_only_loopback_is_listened_on(server: RunningServer) -> None:
    assert _listening(psutil.Process(server.process.pid)) == {"127.0.0.1"}


def test_probes_are_answered_while_images_are_classified(server: RunningServer, http: httpx.Client) -> None:
    large = _b64(encode(Image.new("RGB", (4000, 3000), "teal"), "JPEG"))
    statuses: list[int] = []

    def predict() -> None:
        url = server.url + PREDICT
        statuses.append(
            httpx.post(url, json={"instances": [{"b64": large}] * 12}, timeout=60, trust_env=False).status_code
        )

    request = threading.Thread(target=predict)
    request.start()
    waits = []
    while request.is_alive():
        start = time.perf_counter()
        assert http.get("/v2/health/live").status_code == 200
        waits.append(time.perf_counter() - start)
        time.sleep(0.02)
    request.join()
    assert statuses == [200]
    assert len(waits) >= 10, "the request was too short for this test to mean something"
    assert max(waits) < 0.5


@pytest.mark.component  # Starts several servers.
def test_several_workers_share_the_address(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", workers=2) as running:
        body = {"instances": [{"b64": _b64(files[0])}]}
        responses = [httpx.post(running.url + PREDICT, json=body, trust_env=False) for _ in range(8)]
        assert _listening(psutil.Process(running.process.pid)) == {"127.0.0.1"}
    assert {response.status_code for response in responses} == {200}
    assert len({response.text for response in responses}) == 1
    assert running.process.returncode == 0


def test_a_taken_port_is_explained(uint8_bundle: Path) -> None:
    from serving.server import serve

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServingError, match=r"cannot listen on 127\.0\.0\.1 port .*: choose another"):
            serve(uint8_bundle, port=taken.getsockname()[1])


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("127.0.0.1", 99999)])
def test_an_impossible_address_is_explained(uint8_bundle: Path, host: str, port: int) -> None:
    from serving.server import serve

    with pytest.raises(ServingError, match=rf"cannot listen on {host} port {port}"):
        serve(uint8_bundle, host=host, port=port)


def test_a_missing_bundle_is_explained(tmp_path: Path) -> None:
    from serving.server import serve

    with pytest.raises(ServingError, match=r"model\.json: missing"):
        serve(tmp_path, port=0)
