"""Who may ask and what for: API key, TLS, gRPC, and the limits of one request and of all together."""

import io
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import trustme
from edge_images import encode, photo
from edge_requests import b64, bytes_tensor, infer_body
from edge_servers import INFER, MODEL_NAME, PREDICT, RunningServer, free_port, run_server
from kserve import InferResponse
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from PIL import Image
from pydantic import ValidationError

from serving.client import PredictClient
from serving.errors import ServingError
from serving.options import ServerOptions
from serving.predictor import Predictor
from serving.processors import available_processors

pytestmark = pytest.mark.component  # Starts a server for most tests.

KEY = "correct horse battery staple"
SLOW_MODEL = """
import time
from ai_edge_litert.interpreter import Interpreter
invoke = Interpreter.invoke
def slow(self):
    time.sleep(0.2)
    return invoke(self)
Interpreter.invoke = slow
"""


@pytest.fixture(scope="module")
def secured(
    uint8_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningServer, Path, int, Path]]:
    """A server with TLS, gRPC, an API key and samples; its certificate authority, gRPC port and samples."""
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for part in certificate.cert_chain_pems:
        part.write_to_path(folder / "cert.pem", append=True)
    (folder / "api-key").write_text(f"{KEY}\n")
    grpc_port = free_port()
    with run_server(
        uint8_bundle,
        folder / "log.txt",
        verify=str(folder / "ca.pem"),
        tls_cert=folder / "cert.pem",
        tls_key=folder / "key.pem",
        grpc_port=grpc_port,
        api_key_file=folder / "api-key",
        sample_dir=folder / "samples",
        sample_share=1.0,
        sample_max=3,
    ) as running:
        yield running, folder / "ca.pem", grpc_port, folder / "samples"


@pytest.fixture
def stub(secured: tuple[RunningServer, Path, int, Path]) -> Iterator[GRPCInferenceServiceStub]:
    _, authority, port, _ = secured
    with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority.read_bytes())) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"x-api-key": f"{KEY}x"}, 401),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
    ],
)
def test_the_api_key_is_asked_for_over_tls(
    secured: tuple[RunningServer, Path, int, Path], files: list[bytes], headers: dict[str, str], status: int
) -> None:
    running, authority, _, _ = secured
    with httpx.Client(base_url=running.url, verify=str(authority), trust_env=False, headers=headers) as client:
        assert client.post("/predict", content=files[0]).status_code == status
        assert client.get("/metrics").status_code == status
        assert client.get(f"/v1/models/{MODEL_NAME}").status_code == status
        for path in ("/v2/health/live", "/v2/health/ready", "/", "/openapi.json"):
            assert client.get(path).status_code == 200
    assert KEY not in running.log.read_text()


def test_a_renewed_certificate_is_used_without_a_restart(uint8_bundle: Path, tmp_path: Path) -> None:
    def write_certificate(authority: trustme.CA) -> None:
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def answers_grpc() -> bool:
        authority = grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{grpc_port}", authority) as channel:
            try:
                return GRPCInferenceServiceStub(channel).ServerReady(pb.ServerReadyRequest(), timeout=5).ready
            except grpc.RpcError:
                return False

    write_certificate(trustme.CA())
    grpc_port = free_port()
    tls = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem", "grpc_port": grpc_port}
    with run_server(uint8_bundle, tmp_path / "log.txt", verify=str(tmp_path / "ca.pem"), **tls) as running:
        before = ssl.get_server_certificate(("127.0.0.1", running.port))
        assert answers_grpc()
        good = [(tmp_path / name).read_bytes() for name in ("ca.pem", "key.pem")]
        write_certificate(trustme.CA())
        new = [(tmp_path / name).read_bytes() for name in ("ca.pem", "key.pem")]
        # Half of the renewal is there: a key that the certificate is not for.
        for name, content in zip(("ca.pem", "key.pem"), good, strict=True):
            (tmp_path / name).write_bytes(content)
        assert answers_grpc()
        for name, content in zip(("ca.pem", "key.pem"), new, strict=True):
            (tmp_path / name).write_bytes(content)
        assert answers_grpc()
        deadline = time.monotonic() + 15
        while ssl.get_server_certificate(("127.0.0.1", running.port)) == before:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        ready = httpx.get(f"{running.url}/v2/health/ready", verify=str(tmp_path / "ca.pem"), trust_env=False)
        assert ready.status_code == 200


def test_plain_http_is_not_spoken_where_tls_is(secured: tuple[RunningServer, Path, int, Path]) -> None:
    running, _, _, _ = secured
    with pytest.raises(httpx.TransportError):
        httpx.get(running.url.replace("https", "http") + "/v2/health/live", trust_env=False)


def test_the_client_brings_its_key(
    secured: tuple[RunningServer, Path, int, Path], files: list[bytes], tmp_path: Path, predictor: Predictor
) -> None:
    running, authority, _, _ = secured
    image = tmp_path / "image.jpg"
    image.write_bytes(files[0])
    with PredictClient(running.url, MODEL_NAME, api_key=KEY, ca_file=authority) as client:
        (prediction,) = client.predict_files([image])
        best = client.top_classes(image, top=2)
    expected = predictor.top(predictor.predict_images(files[:1]), 2)[0]
    assert [(each.label, np.float32(each.probability)) for each in best] == expected
    assert prediction.label == expected[0].label
    with (
        PredictClient(running.url, MODEL_NAME, ca_file=authority) as client,
        pytest.raises(ServingError, match="answered 401: the API key is missing"),
    ):
        client.predict_files([image])


def _infer_request(files: list[bytes], *, raw: bool) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image_bytes", datatype="BYTES", shape=[len(files)])
    request = pb.ModelInferRequest(model_name=MODEL_NAME, id="7", inputs=[tensor])
    if raw:
        request.raw_input_contents.append(bytes_tensor(files))
    else:
        request.inputs[0].contents.bytes_contents.extend(files)
    return request


@pytest.mark.parametrize("raw", [True, False])
def test_grpc_answers_with_tls_and_key(
    stub: GRPCInferenceServiceStub, predictor: Predictor, files: list[bytes], raw: bool
) -> None:
    metadata = [("authorization", f"Bearer {KEY}")]
    answer = stub.ModelInfer(_infer_request(files, raw=raw), metadata=metadata, timeout=10)
    expected = predictor.predict_images(files)
    assert answer.id == "7"
    assert answer.model_version == "3"
    probabilities = InferResponse.from_grpc(answer).get_output_by_name("probabilities").as_numpy()
    np.testing.assert_array_equal(probabilities, expected)
    assert stub.ModelReady(pb.ModelReadyRequest(name=MODEL_NAME), metadata=metadata, timeout=10).ready


def test_grpc_refuses_what_rest_refuses(stub: GRPCInferenceServiceStub, files: list[bytes]) -> None:
    metadata = [("authorization", f"Bearer {KEY}")]

    def code(call: object, request: object, metadata: object = metadata) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=metadata, timeout=10)
        return caught.value.code()

    good = _infer_request(files, raw=True)
    assert code(stub.ModelInfer, good, []) == grpc.StatusCode.UNAUTHENTICATED
    assert code(stub.ModelInfer, good, [("authorization", "Bearer no")]) == grpc.StatusCode.UNAUTHENTICATED
    assert code(stub.ModelInfer, _infer_request([b"junk"], raw=True)) == grpc.StatusCode.INVALID_ARGUMENT
    assert code(stub.ModelInfer, _infer_request([], raw=False)) == grpc.StatusCode.INVALID_ARGUMENT
    assert code(stub.ModelInfer, pb.ModelInferRequest(model_name="other")) == grpc.StatusCode.NOT_FOUND
    assert (
        code(stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name=MODEL_NAME))
        == grpc.StatusCode.UNIMPLEMENTED
    )
    huge = _infer_request([bytes(33_000_000)], raw=True)
    assert code(stub.ModelInfer, huge) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_grpc_calls_are_counted(secured: tuple[RunningServer, Path, int, Path], stub: GRPCInferenceServiceStub) -> None:
    running, authority, _, _ = secured
    with pytest.raises(grpc.RpcError):
        stub.ServerLive(pb.ServerLiveRequest(), timeout=10)
    stub.ServerReady(pb.ServerReadyRequest(), metadata=[("authorization", f"Bearer {KEY}")], timeout=10)
    with httpx.Client(verify=str(authority), trust_env=False, headers={"x-api-key": KEY}) as client:
        text = client.get(f"{running.url}/metrics").text
    service = "/inference.GRPCInferenceService"
    assert f'trimline_requests_total{{route="{service}/ServerLive",status="UNAUTHENTICATED"}} 1.0' in text
    assert f'trimline_requests_total{{route="{service}/ServerReady",status="OK"}} 1.0' in text


def test_grpc_is_not_spoken_in_the_clear(secured: tuple[RunningServer, Path, int, Path]) -> None:
    _, _, port, _ = secured
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
        GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_samples_are_kept_with_their_answer_and_bounded(
    secured: tuple[RunningServer, Path, int, Path], predictor: Predictor
) -> None:
    running, authority, _, samples = secured
    headers = {"x-api-key": KEY}
    rng = np.random.default_rng(4)
    sent = [encode(photo(rng, 30, 30), "PNG") for _ in range(5)]
    with httpx.Client(base_url=running.url, verify=str(authority), trust_env=False, headers=headers) as client:
        for data in (*sent, sent[0]):
            assert client.post("/predict", content=data).status_code == 200
    answers = list(samples.glob("*.json"))
    assert len(answers) == 3
    for answer in answers:
        content = json.loads(answer.read_text())
        (row,) = predictor.predict_images([answer.with_suffix(".image").read_bytes()])
        np.testing.assert_array_equal(np.array(content["probabilities"], np.float32), row)
        assert content["version"] == 3
    assert samples.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "options",
    [
        {"grpc_port": 9000},
        {"tls_cert": "cert.pem"},
        {"canary_share": 0.1},
        {"sample_share": 0.1},
        {"port": 0},
        {"name": "a/b"},
    ],
)
def test_options_that_do_not_belong_together_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServerOptions(**options)


def test_a_bad_certificate_and_an_empty_key_are_explained(
    uint8_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.server import serve

    (tmp_path / "file").write_text("")
    tls = ServerOptions(port=free_port(), tls_cert=tmp_path / "file", tls_key=tmp_path / "file")
    with pytest.raises(ServingError, match="not a certificate and its key"):
        serve(uint8_bundle, tls)
    with pytest.raises(ServingError, match="is empty: write the API key into it"):
        serve(uint8_bundle, ServerOptions(port=free_port(), api_key_file=tmp_path / "file"))
    with pytest.raises(ServingError, match="the API key cannot be read"):
        serve(uint8_bundle, ServerOptions(port=free_port(), api_key_file=tmp_path / "none"))
    for nothing in ("", " \n"):
        monkeypatch.setenv("TRIMLINE_API_KEY", nothing)
        with pytest.raises(ServingError, match=r"\$TRIMLINE_API_KEY: is empty: write the API key into it"):
            serve(tmp_path, ServerOptions(port=free_port()))


def test_a_request_has_limits(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    side = 100
    image = b64(encode(Image.new("RGB", (side, side)), "PNG"))
    with (
        run_server(uint8_bundle, tmp_path / "log.txt", max_instances=4, max_pixels=3 * side * side) as running,
        httpx.Client(base_url=running.url, timeout=30, trust_env=False) as http,
    ):

        def answer(count: int) -> httpx.Response:
            return http.post(PREDICT, json={"instances": [{"b64": image}] * count})

        assert answer(3).status_code == 200
        assert "instance 3: 100 x 100 pixels are more than the 0 allowed" in answer(4).json()["error"]
        assert "5 images in one request are more than the 4 allowed" in answer(5).json()["error"]
        bomb = io.BytesIO()
        Image.new("1", (9_000, 9_000)).save(bomb, "PNG")
        refused = http.post("/predict", content=bomb.getvalue())
        assert (refused.status_code, "9000 x 9000 pixels" in refused.text) == (400, True)
        pixels = infer_body("UINT8", [5, 24, 24, 3], [0] * 5 * 24 * 24 * 3)
        assert "5 images in one request" in http.post(INFER, json=pixels).json()["error"]


def test_more_requests_than_may_wait_are_refused_at_once(
    uint8_bundle: Path, tmp_path: Path, files: list[bytes]
) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", fault=SLOW_MODEL, queue=2) as running:
        room = 2 + available_processors()
        answers: list[tuple[httpx.Response, float]] = []

        def ask() -> None:
            started = time.monotonic()
            answer = httpx.post(f"{running.url}/predict", content=files[0], timeout=30, trust_env=False)
            answers.append((answer, time.monotonic() - started))

        clients = [threading.Thread(target=ask) for _ in range(4 * room)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        metrics = httpx.get(f"{running.url}/metrics", trust_env=False).text
    statuses = [answer.status_code for answer, _ in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= room
    refusals = [(answer, seconds) for answer, seconds in answers if answer.status_code == 429]
    assert all(answer.headers["retry-after"] == "1" for answer, _ in refusals)
    # Those that found no room after their body was read are counted under their route, the others under none.
    counts = re.findall(r'^trimline_requests_total\{.*status="429"\} (.*)$', metrics, re.MULTILINE)
    assert sum(map(float, counts)) == len(refusals)
    assert "trimline_queued_requests 0.0" in metrics


def test_a_client_that_is_refused_for_now_comes_again(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    image = tmp_path / "image.jpg"
    image.write_bytes(files[0])
    with run_server(uint8_bundle, tmp_path / "log.txt", fault=SLOW_MODEL, queue=0) as running:
        failures: list[Exception] = []

        def ask() -> None:
            try:
                with PredictClient(running.url, MODEL_NAME, attempts=10) as client:
                    client.predict_files([image])
            except ServingError as error:
                failures.append(error)

        clients = [threading.Thread(target=ask) for _ in range(6)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        metrics = httpx.get(f"{running.url}/metrics", trust_env=False).text
    assert failures == []
    assert 'status="429"' in metrics


def test_slow_clients_are_let_go(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", timeout_s=2) as running:
        head = f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: {len(files[0])}\r\n"
        slow = {
            "silent": b"",
            "in the headers": head[:30].encode(),
            "in the body": f"{head}\r\n".encode() + files[0][:-1],
        }
        connections = {}
        started = time.monotonic()
        for name, sent in slow.items():
            connections[name] = socket.create_connection(("127.0.0.1", running.port), timeout=30)
            connections[name].sendall(sent)
        received = {name: connection.recv(4096) for name, connection in connections.items()}
        assert 1 < time.monotonic() - started < 20
        assert received["silent"] == b""
        assert received["in the headers"].startswith(b"HTTP/1.1 408")
        assert received["in the body"].startswith(b"HTTP/1.1 408")
        assert {connection.recv(4096) for connection in connections.values()} == {b""}
        for connection in connections.values():
            connection.close()
        assert httpx.post(f"{running.url}/predict", content=files[0], trust_env=False).status_code == 200


@pytest.mark.parametrize("size", [70_000, 3_000_000])
def test_large_headers_are_refused(server: RunningServer, size: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\nX-Large: ")
        received = b""
        try:
            for _ in range(size // 10_000):
                connection.sendall(b"x" * 10_000)
            connection.sendall(b"\r\n\r\n")
            received = connection.recv(4096)
        # The server has hung up before all was sent; or it has died.
        except ConnectionError:
            assert httpx.get(f"{server.url}/v2/health/live", trust_env=False).status_code == 200
            return
    assert received.startswith(b"HTTP/1.1 431")
