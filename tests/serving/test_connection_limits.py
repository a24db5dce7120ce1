"""Clients that would hold or fill the server's memory and connections: they are let go, and others are answered."""

import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from edge_servers import BROKEN_MODEL, RunningServer, run_server

pytestmark = pytest.mark.component  # Starts servers of its own.

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n"
OPENAPI = LIVE.replace(b"/v2/health/live", b"/openapi.json")
# Of a server that waits for little, yet for longer than a busy machine keeps a test from going on.
TIMEOUT_S = 3
MOST_BYTES = 100_000
SLOW_MODEL = BROKEN_MODEL.format(failure=f"import time; time.sleep({2 * TIMEOUT_S})")
# The kernel takes little from the server that its clients have not taken.
SMALL_BUFFERS = """
import socket
bind = socket.socket.bind
def bind_small(self, address):
    self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return bind(self, address)
socket.socket.bind = bind_small
"""


@pytest.fixture(scope="module")
def hasty(uint8_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that does not wait for long, and whose model is too slow while a file "broken" stands beside its log."""
    directory = tmp_path_factory.mktemp("hasty")
    options = {"timeout_s": TIMEOUT_S, "max_body_mb": MOST_BYTES / 1e6, "threads": 2, "grace_s": 0}
    environment = {"TMPDIR": str(directory)}
    log = directory / "log.txt"
    with run_server(uint8_bundle, log, fault=SLOW_MODEL, environment=environment, **options) as running:
        yield running


def _connect(running: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=10)


def _connect_small(running: RunningServer) -> socket.socket:
    """Connects a client whose kernel takes little that it does not take itself."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", running.port))
    return connection


def _head(length: int) -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % length


def _receive_answers(connection: socket.socket, count: int) -> bytes:
    received = b""
    while received.count(b"HTTP/1.1 ") < count or not received.endswith(b"}"):
        more = connection.recv(65_536)
        assert more, received
        received += more
    return received


def test_pipelined_requests_without_end_fill_no_memory(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    def flood() -> None:
        with _connect(running) as connection:
            try:
                for _ in range(200):
                    connection.sendall(LIVE * 1000)
            # Hung up on, as it should be.
            except ConnectionError:
                pass
            finished.wait()

    finished = threading.Event()
    with (
        run_server(uint8_bundle, tmp_path / "log.txt") as running,
        httpx.Client(base_url=running.url, timeout=30, trust_env=False) as client,
    ):
        process = psutil.Process(running.process.pid)
        assert client.post("/predict", content=files[0]).status_code == 200
        before = process.memory_info().rss
        flooding = threading.Thread(target=flood, daemon=True)
        flooding.start()
        for _ in range(20):
            assert client.post("/predict", content=files[0]).status_code == 200
            time.sleep(0.1)
        grown = process.memory_info().rss - before
        finished.set()
        flooding.join()
    assert grown < 30_000_000


def test_a_few_pipelined_requests_are_answered_in_their_order(server: RunningServer, files: list[bytes]) -> None:
    post = _head(len(files[0])) + files[0]
    with _connect(server) as connection:
        connection.sendall((post + LIVE) * 4 + post[:-10])
        early = _receive_answers(connection, 8)
        connection.sendall(post[-10:] + LIVE)
        received = early + _receive_answers(connection, 2)
    assert re.findall(rb'\r\n\r\n{"(label|live)"', received) == [b"label", b"live"] * 5


@pytest.mark.parametrize("begin", [b"5\r\nhello\r\n0\r\nX: ", b"5;extension="], ids=["trailer", "chunk extension"])
def test_what_is_neither_header_nor_body_has_a_limit(server: RunningServer, begin: bytes) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    with _connect(server) as connection:
        for sent in (head + begin, b"x" * 65_000, b"x" * 1_000):
            connection.sendall(sent)
            # Read by itself: what a closed connection has not read would reset it before its answer arrives.
            time.sleep(0.5)
        assert connection.recv(4096).startswith(b"HTTP/1.1 431")
        assert connection.recv(4096) == b""


def test_an_empty_line_after_an_answer_holds_no_connection(hasty: RunningServer) -> None:
    with _connect(hasty) as connection:
        connection.sendall(LIVE)
        _receive_answers(connection, 1)
        started = time.monotonic()
        connection.sendall(b"\r\n")
        # Without a 408: nothing had begun that could be late.
        assert connection.recv(4096) == b""
        assert time.monotonic() - started > 0.5 * TIMEOUT_S


def test_a_request_has_all_its_time_whatever_was_before(hasty: RunningServer, files: list[bytes]) -> None:
    post = _head(len(files[0])) + files[0]
    with _connect(hasty) as spare, _connect(hasty) as pooled:
        # Answered before it is complete.
        pooled.sendall(_head(MOST_BYTES + 1))
        assert _receive_answers(pooled, 1).startswith(b"HTTP/1.1 413")
        pooled.sendall(bytes(MOST_BYTES + 1))
        for pause, part in ((0.7 * TIMEOUT_S, post[:-10]), (0.5 * TIMEOUT_S, post[-10:])):
            time.sleep(pause)
            for connection in (spare, pooled):
                connection.sendall(part)
        for connection in (spare, pooled):
            assert _receive_answers(connection, 1).startswith(b"HTTP/1.1 200")


def test_a_request_behind_a_slow_one_neither_takes_its_answer_nor_loses_time_of_its_own(
    hasty: RunningServer, files: list[bytes]
) -> None:
    post = _head(len(files[0])) + files[0]
    broken = hasty.log.with_name("broken")
    broken.touch()
    with _connect(hasty) as connection:
        connection.sendall(post + post[:-10])
        answer = _receive_answers(connection, 1)
        broken.unlink()
        assert answer.startswith(b"HTTP/1.1 503")
        connection.sendall(post[-10:])
        assert _receive_answers(connection, 1).startswith(b"HTTP/1.1 200")


def test_nonsense_behind_a_request_does_not_answer_it(server: RunningServer, files: list[bytes]) -> None:
    with _connect(server) as connection:
        connection.sendall(_head(len(files[0])) + files[0] + b"nonsense\r\n\r\n")
        assert _receive_answers(connection, 1).startswith(b"HTTP/1.1 200")
        assert connection.recv(4096) == b""


def test_a_connection_that_ends_before_an_answer_is_no_error_of_the_server(
    server: RunningServer, files: list[bytes]
) -> None:
    before = len(server.log.read_text())
    with _connect(server) as connection:
        connection.sendall(_head(len(files[0])) + files[0] + LIVE * 17)
        assert connection.recv(4096) == b""
        deadline = time.monotonic() + 10
        while '"route":"/predict"' not in (log := server.log.read_text()[before:]):
            assert time.monotonic() < deadline, "the request does not come to an end"
            time.sleep(0.1)
    assert "ERROR" not in log


def test_a_client_that_takes_no_answers_is_let_go(uint8_bundle: Path, tmp_path: Path) -> None:
    with (
        run_server(uint8_bundle, tmp_path / "log.txt", fault=SMALL_BUFFERS, timeout_s=TIMEOUT_S) as running,
        _connect_small(running) as greedy,
        _connect_small(running) as modest,
    ):
        # Together more than uvicorn puts into a buffer that is not emptied.
        greedy.sendall(OPENAPI * 8)
        # Less than that. The first byte of a request ends uvicorn's wait for one, and the end of all the rest.
        modest.sendall(OPENAPI)
        assert modest.recv(1) == b"H"
        modest.sendall(b"G")
        modest.shutdown(socket.SHUT_WR)
        time.sleep(0.5)
        assert _is_held(running, greedy)
        assert _is_held(running, modest)
        deadline = time.monotonic() + 5 * TIMEOUT_S
        while _is_held(running, greedy) or _is_held(running, modest):
            assert time.monotonic() < deadline, "a connection is still there"
            time.sleep(0.1)


def _is_held(running: RunningServer, connection: socket.socket) -> bool:
    connections = psutil.Process(running.process.pid).connections("inet")
    return any(each.raddr == connection.getsockname() for each in connections)


def test_aborted_and_slow_uploads_are_no_errors_of_the_server(hasty: RunningServer, files: list[bytes]) -> None:
    half = _head(len(files[0])) + files[0][: len(files[0]) // 2]
    before = len(hasty.log.read_text())
    with _connect(hasty) as connection:
        connection.sendall(half)
        time.sleep(0.3)
    with _connect(hasty) as in_body, _connect(hasty) as in_headers:
        in_body.sendall(half)
        in_headers.sendall(half[:30])
        for connection in (in_body, in_headers):
            assert connection.recv(4096).startswith(b"HTTP/1.1 408")
    metrics = httpx.get(f"{hasty.url}/metrics", trust_env=False).text
    counted = re.findall(r'^trimline_requests_total\{route="(.*)",status="(408|499)"\} (.*)$', metrics, re.MULTILINE)
    assert sorted(counted) == [("/predict", "408", "1.0"), ("/predict", "499", "1.0"), ("unmatched", "408", "1.0")]
    log = hasty.log.read_text()[before:]
    assert sorted(re.findall(r'"route":"/predict","status":(\d+)', log)) == ["408", "499"]
    assert "ERROR" not in log


def test_bodies_that_do_not_end_hold_a_bounded_memory(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    size, most = 2_000_000, 4

    def waiting() -> list[socket.socket]:
        return [connection for connection in connections if not select.select([connection], [], [], 0)[0]]

    with run_server(uint8_bundle, tmp_path / "log.txt", max_body_mb=size / 1e6) as running:
        connections = [_connect(running) for _ in range(12)]
        for connection in connections:
            connection.sendall(_head(size) + bytes(size - 1))
        deadline = time.monotonic() + 10
        while len(waiting()) > most:
            assert time.monotonic() < deadline, "more bodies are held than may be"
            time.sleep(0.1)
        held = waiting()
        assert len(held) == most
        for connection in set(connections) - set(held):
            answer = connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 429")
            assert b"\r\nretry-after: 1\r\n" in answer
        # Small requests come through, and what arrives at last is answered: it is no image.
        assert httpx.post(f"{running.url}/predict", content=files[0], trust_env=False).status_code == 200
        for connection in held:
            connection.sendall(b"\0")
            assert connection.recv(4096).startswith(b"HTTP/1.1 400")
        assert httpx.post(f"{running.url}/predict", content=bytes(size), trust_env=False).status_code == 400
        for connection in connections:
            connection.close()
