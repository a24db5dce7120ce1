"""Requests that mean no good, sent to a real server."""

import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest
from edge_servers import RunningServer, run_server
from hostile_requests import MARK, Hostile, hostile_requests, raw_requests

CORPUS = hostile_requests()
LONGEST_ANSWER_S = 5


@pytest.mark.component
def test_the_whole_corpus_is_answered(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    assert len(CORPUS) + len(raw_requests()) >= 200
    with run_server(uint8_bundle, tmp_path / "log.txt", timeout_s=10) as running:
        wrong: dict[str, str] = {}
        with httpx.Client(base_url=running.url, timeout=30, trust_env=False) as client:
            for request in CORPUS:
                problem = _problem(client, request)
                if problem:
                    wrong[request.name] = problem
            assert client.post("/predict", content=files[0]).status_code == 200
            assert client.get("/v2/health/ready").status_code == 200
        process = psutil.Process(running.process.pid)
        assert process.memory_info().rss < 1_500_000_000
        assert process.num_fds() < 100
    log = running.log.read_text()
    assert wrong == {}
    assert "a request failed" not in log
    assert MARK not in log


def _problem(client: httpx.Client, request: Hostile) -> str | None:
    started = time.monotonic()
    try:
        response = client.request(request.method, request.url, **request.arguments)
    except httpx.HTTPError as error:
        return f"no answer: {error!r}"
    if not (200 <= response.status_code < 300 or 400 <= response.status_code < 500):
        return f"status {response.status_code}"
    if time.monotonic() - started > LONGEST_ANSWER_S:
        return "took too long"
    # The protocol wants an id to come back with a good answer, and only there.
    if MARK in response.text + str(response.headers):
        return "quotes the request"
    return None


@pytest.mark.parametrize("name", raw_requests())
def test_what_is_not_quite_http_is_answered_or_hung_up_on(
    server: RunningServer, http: httpx.Client, files: list[bytes], name: str
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        try:
            connection.sendall(raw_requests()[name])
            # Says that nothing more comes.
            connection.shutdown(socket.SHUT_WR)
            received = connection.recv(65_536)
        except ConnectionError:
            received = b""
    assert received == b"" or received.split(b" ")[1][:1] in (b"1", b"2", b"4"), received[:100]
    assert MARK.encode() not in received
    assert http.post("/predict", content=files[0]).status_code == 200
    assert server.process.poll() is None
