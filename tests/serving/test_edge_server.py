"""What the stock server gets wrong, and what a server must not do: a real process, asked over a real socket."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from edge_bundles import IMAGE_SIZE, LABELS
from edge_images import encode
from edge_requests import b64, binary_infer, bytes_tensor, infer_body, probabilities_of
from edge_servers import (
    BROKEN_MODEL,
    FAILING_MODEL,
    HANGING_MODEL,
    INFER,
    MODEL_NAME,
    PREDICT,
    SECRET,
    RunningServer,
    run_server,
)
from PIL import Image

from serving.errors import ServingError
from serving.options import ServerOptions
from serving.predictor import Predictor
from serving.processors import available_processors


def _listening(process: psutil.Process) -> set[str]:
    processes = [process, *process.children(recursive=True)]
    connections = [connection for each in processes for connection in each.connections("inet")]
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_only_loopback_is_listened_on(server: RunningServer) -> None:
    assert _listening(psutil.Process(server.process.pid)) == {"127.0.0.1"}


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_the_model_cannot_be_loaded_or_unloaded_over_http(http: httpx.Client, verb: str) -> None:
    assert http.post(f"/v2/repository/models/{MODEL_NAME}/{verb}").status_code == 404
    assert http.get(f"/v2/models/{MODEL_NAME}/ready").json() == {"name": MODEL_NAME, "ready": True}


@pytest.mark.component  # Starts a server of its own.
def test_readiness_tells_when_the_model_cannot_answer_and_a_bug_is_answered(
    uint8_bundle: Path, tmp_path: Path, files: list[bytes]
) -> None:
    environment = {"TMPDIR": str(tmp_path)}
    body = {"instances": [{"b64": b64(files[0])}]}
    with (
        run_server(uint8_bundle, tmp_path / "log.txt", fault=FAILING_MODEL, environment=environment) as running,
        httpx.Client(base_url=running.url, timeout=30, trust_env=False) as http,
    ):
        assert http.post(PREDICT, json=body).status_code == 200
        (tmp_path / "broken").touch()
        failed = http.post(PREDICT, json=body)
        assert failed.status_code == 500
        assert failed.json() == {"error": "internal error: the server's log has it"}
        # For as long as the last good answer is fresh, the model counts as able to answer.
        time.sleep(1.2)
        assert http.get("/v2/health/ready").status_code == 503
        assert http.get(f"/v2/models/{MODEL_NAME}/ready").status_code == 503
        assert http.get("/v2/health/live").status_code == 200
        (tmp_path / "broken").unlink()
        assert http.get("/v2/health/ready").status_code == 200
        assert http.post(PREDICT, json=body).status_code == 200
    assert "a request failed" in running.log.read_text()
    assert SECRET not in running.log.read_text()


@pytest.mark.component  # Starts a server of its own.
def test_readiness_tells_when_the_model_hangs(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    environment = {"TMPDIR": str(tmp_path)}
    with run_server(
        uint8_bundle, tmp_path / "log.txt", fault=HANGING_MODEL, environment=environment, timeout_s=1, grace_s=0
    ) as running:
        (tmp_path / "broken").touch()
        # Every interpreter gets stuck; a request that waits for one is given up after timeout_s.
        statuses = [
            httpx.post(running.url + "/predict", content=files[0], trust_env=False).status_code
            for _ in range(available_processors())
        ]
        assert set(statuses) == {503}
        assert httpx.get(f"{running.url}/v2/health/ready", trust_env=False).status_code == 503
        assert httpx.get(f"{running.url}/v2/health/live", trust_env=False).status_code == 200
        # Even so it ends when it is told to.
        running.process.terminate()
        assert running.process.wait(timeout=15) == 1


@pytest.mark.parametrize("path", ["/metrics/", f"/v1/models/{MODEL_NAME}/", "/v2/health/ready/"])
def test_a_slash_too_many_is_an_unknown_address(http: httpx.Client, path: str) -> None:
    # A redirection would lead to whatever host the client named.
    assert http.get(path, headers={"host": "elsewhere"}).status_code == 404


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(server: RunningServer) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: here\r\nContent-Length: 200000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.component  # Starts a server of its own.
def test_a_body_of_untold_size_is_refused_where_it_passes_the_limit(
    uint8_bundle: Path, tmp_path: Path, files: list[bytes]
) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", max_body_mb=0.1) as running:
        chunks = (b"x" * 10_000 for _ in range(11))
        refused = httpx.post(running.url + PREDICT, content=chunks, trust_env=False)
        assert refused.status_code == 413
        assert refused.json() == {"error": "the body is larger than the 100,000 bytes allowed"}
        assert httpx.post(running.url + "/predict", content=iter(files[:1]), trust_env=False).status_code == 200


def test_v2_needs_no_id_and_takes_raw_bytes(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    response = http.post(INFER, **binary_infer("BYTES", [2], bytes_tensor(files)))
    expected = predictor.predict_images(files)
    assert response.status_code == 200
    assert response.json()["id"]
    np.testing.assert_array_equal(np.reshape(response.json()["outputs"][1]["data"], (2, 3)), expected)


def _large_photos() -> dict[str, Any]:
    large = b64(encode(Image.new("RGB", (4000, 3000), "teal"), "JPEG"))
    return {"url": PREDICT, "json": {"instances": [{"b64": large}] * 8}}


def _a_bomb_that_looks_like_pixels() -> dict[str, Any]:
    bomb = encode(Image.new("1", (9000, 9000)), "PNG")
    return {"url": INFER, **binary_infer("BYTES", [1], bomb, parameters={"datatype": "UINT8"})}


@pytest.mark.parametrize("request_of", [_large_photos, _a_bomb_that_looks_like_pixels])
def test_probes_are_answered_while_images_are_classified(
    server: RunningServer, http: httpx.Client, request_of: Callable[[], dict[str, Any]]
) -> None:
    arguments = request_of()
    answers: list[httpx.Response] = []

    def predict() -> None:
        url = server.url + arguments["url"]
        answers.append(httpx.post(**(arguments | {"url": url}), timeout=60, trust_env=False))

    # As many as there are interpreters.
    requests = [threading.Thread(target=predict) for _ in range(available_processors())]
    for request in requests:
        request.start()
    waits = []
    while any(request.is_alive() for request in requests):
        start = time.perf_counter()
        assert http.get("/v2/health/ready").status_code == 200
        waits.append(time.perf_counter() - start)
        time.sleep(0.02)
    assert [answer.status_code for answer in answers] == [200] * len(requests)
    assert len(waits) >= 10, "the request was too short for this test to mean something"
    # A probe that waits for the images waits for a whole request; on a busy machine everything takes longer.
    shortest = min(answer.elapsed for answer in answers).total_seconds()
    assert max(waits) < max(0.25, shortest / 2)


def test_parallel_requests_get_bit_identical_answers(
    server: RunningServer, predictor: Predictor, files: list[bytes]
) -> None:
    bodies = [{"instances": [{"b64": b64(data)}]} for data in files]
    expected = predictor.predict_images(files)

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
            slots = asyncio.Semaphore(8)

            async def post(index: int) -> httpx.Response:
                async with slots:
                    return await client.post(PREDICT, json=bodies[index % 2])

            return await asyncio.gather(*(post(index) for index in range(100)))

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200}
    for index, answer in enumerate(answers):
        np.testing.assert_array_equal(probabilities_of(answer.json())[0], expected[index % 2])
        assert answer.content == answers[index % 2].content


def test_payloads_stay_out_of_the_log(server: RunningServer, http: httpx.Client, files: list[bytes]) -> None:
    secret = b64(SECRET.encode())
    http.post(PREDICT, json={"instances": [{"b64": b64(files[0])}]})
    http.post(PREDICT, json={"instances": [{"b64": secret}]})
    http.post(PREDICT, content=SECRET)
    http.post(INFER, json=infer_body("BYTES", [1], [secret]))
    http.post(INFER, json={"inputs": SECRET})
    http.post(INFER, **binary_infer("BYTES", [1], SECRET.encode()))
    http.get(f"/{SECRET}?{SECRET}")
    log = server.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["message"] == "request"]
    assert {line["status"] for line in requests} >= {200, 400, 404}
    assert {"/v1/models/pets:predict", "unmatched"} <= {line["route"] for line in requests}
    assert SECRET not in log
    assert secret not in log
    assert b64(files[0])[:40] not in log


def test_answers_never_quote_the_request(http: httpx.Client) -> None:
    requests: list[dict[str, Any]] = [
        {"url": f"/v1/models/{SECRET}:predict", "json": {}},
        {"url": f"/v1/models/{MODEL_NAME}/versions/{SECRET}:predict", "json": {"instances": [[]]}},
        {"url": f"/v1/models/{MODEL_NAME}/labels/{SECRET}:predict", "json": {"instances": [[]]}},
        {"url": PREDICT, "json": {"instances": [SECRET], "signature_name": SECRET}},
        {"url": PREDICT, "json": {"inputs": {SECRET: [SECRET]}}},
        {"url": INFER, "json": {"inputs": [{"name": SECRET, "datatype": SECRET, "shape": [1], "data": [SECRET]}]}},
        {"url": f"/predict?top={SECRET}", "content": SECRET},
    ]
    for request in requests:
        response = http.post(**request)
        assert response.status_code in (400, 404)
        assert SECRET not in response.text


@pytest.mark.component  # Starts a server of its own.
def test_sigterm_lets_running_requests_finish(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    slow = BROKEN_MODEL.format(failure="import time; time.sleep(1)")
    answers: list[httpx.Response] = []
    with run_server(uint8_bundle, tmp_path / "log.txt", fault=slow, environment={"TMPDIR": str(tmp_path)}) as running:
        (tmp_path / "broken").touch()
        body = {"instances": [{"b64": b64(files[0])}] * 2}
        request = threading.Thread(
            target=lambda: answers.append(httpx.post(running.url + PREDICT, json=body, timeout=60, trust_env=False))
        )
        request.start()
        deadline = time.monotonic() + 30
        while "trimline_running_requests 1.0" not in httpx.get(f"{running.url}/metrics", trust_env=False).text:
            assert time.monotonic() < deadline, "the request was never seen running"
            time.sleep(0.02)
        running.process.terminate()
        assert answers == [], "the request was over before the signal"
        request.join()
        assert running.process.wait(timeout=10) == 0
    assert [answer.status_code for answer in answers] == [200]
    assert len(answers[0].json()["predictions"]) == 2


def test_a_taken_port_is_explained(uint8_bundle: Path) -> None:
    from serving.server import serve

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServingError, match=r"cannot listen on 127\.0\.0\.1 port .*: choose another"):
            serve(uint8_bundle, ServerOptions(port=taken.getsockname()[1]))


def test_an_impossible_address_is_explained(uint8_bundle: Path) -> None:
    from serving.server import serve

    with pytest.raises(ServingError, match=r"cannot listen on no\.such\.host\.invalid port 8080"):
        serve(uint8_bundle, ServerOptions(host="no.such.host.invalid"))


def test_a_missing_bundle_is_explained(tmp_path: Path) -> None:
    from serving.server import serve

    with pytest.raises(ServingError, match="no pushed model in it"):
        serve(tmp_path, ServerOptions(port=1024 + IMAGE_SIZE + len(LABELS)))
