"""Several server processes behind one address."""

import os
import shutil
import signal
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest
from edge_servers import PREDICT, RunningServer, run_server

pytestmark = pytest.mark.component  # Starts several servers.

# The model hangs in the processes of which a file says so, and so not in those that take their place.
HANGING_IN_SOME = """
import os, tempfile, time
from ai_edge_litert.interpreter import Interpreter
invoke = Interpreter.invoke
def hang(self):
    if os.path.exists(os.path.join(tempfile.gettempdir(), f"hang{os.getpid()}")):
        time.sleep(3600)
    return invoke(self)
Interpreter.invoke = hang
"""


def _asked_of_all(running: RunningServer, files: list[bytes], times: int = 40) -> list[httpx.Response]:
    """Asks over many connections, so that each worker gets some."""
    return [httpx.post(f"{running.url}/predict", content=files[0], trust_env=False) for _ in range(times)]


def test_workers_share_the_address_the_answers_and_the_metrics(
    uint8_bundle: Path, tmp_path: Path, files: list[bytes]
) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", workers=2) as running:
        responses = _asked_of_all(running, files)
        workers = running.workers()
        sockets = [c.laddr.ip for each in workers for c in each.connections("inet") if c.status == psutil.CONN_LISTEN]
        counts = {
            httpx.get(f"{running.url}/metrics", trust_env=False)
            .text.partition('trimline_requests_total{route="/predict",status="200"} ')[2]
            .split("\n")[0]
            for _ in range(6)
        }
    assert len(workers) == 2
    assert sockets == ["127.0.0.1", "127.0.0.1"]
    assert {response.status_code for response in responses} == {200}
    assert len({response.text for response in responses}) == 1
    assert counts == {"40.0"}, "every worker must tell the sum"
    assert running.process.returncode == 0


def test_a_killed_worker_is_back_within_two_seconds(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", workers=2) as running:
        _wait_for_starts(running, 2)
        os.kill(running.workers()[0].pid, signal.SIGKILL)
        killed = time.monotonic()
        # The other one goes on meanwhile.
        assert {response.status_code for response in _asked_of_all(running, files, 5)} == {200}
        _wait_for_starts(running, 3)
        # The figure for a quiet machine stands in docs/serving.md; tests share theirs with others.
        assert time.monotonic() - killed < 8
        assert {response.status_code for response in _asked_of_all(running, files)} == {200}
    assert "starting another" in running.log.read_text()


def test_workers_whose_models_hang_are_replaced(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    environment = {"TMPDIR": str(tmp_path)}
    with run_server(
        uint8_bundle, tmp_path / "log.txt", fault=HANGING_IN_SOME, environment=environment, workers=2, timeout_s=1
    ) as running:
        _wait_for_starts(running, 2)
        # Each worker asks its model every second, and gets stuck.
        for worker in running.workers():
            (tmp_path / f"hang{worker.pid}").touch()
        _wait_until_unready(running)
        _wait_for_starts(running, 4)
        assert {response.status_code for response in _asked_of_all(running, files)} == {200}
    assert running.log.read_text().count("killing it") >= 2


def _wait_until_unready(running: RunningServer) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline, "the server was ready all the time"
        try:
            if httpx.get(f"{running.url}/v2/health/ready", trust_env=False).status_code == 503:
                return
        # The worker was killed before it answered.
        except httpx.TransportError:
            pass
        time.sleep(0.05)


def test_workers_that_ran_out_of_files_accept_again(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", workers=2) as running:
        _wait_for_starts(running, 2)
        limits = {worker: worker.rlimit(psutil.RLIMIT_NOFILE) for worker in running.workers()}
        for worker, (_, hard) in limits.items():
            worker.rlimit(psutil.RLIMIT_NOFILE, (worker.num_fds() + 5, hard))
        connections = [socket.create_connection(("127.0.0.1", running.port), timeout=10) for _ in range(40)]
        time.sleep(1)
        for connection in connections:
            connection.close()
        assert {response.status_code for response in _asked_of_all(running, files)} == {200}
        for worker, limit in limits.items():
            worker.rlimit(psutil.RLIMIT_NOFILE, limit)
        counts = _connections_divided(running)
    assert sum(counts) == 40
    assert min(counts) >= 14
    assert running.log.read_text().count("cannot accept connections: Too many open files") == 2


def test_connections_are_divided_evenly(uint8_bundle: Path, tmp_path: Path) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", workers=2) as running:
        _wait_for_starts(running, 2)
        counts = _connections_divided(running)
    assert sum(counts) == 40
    assert min(counts) >= 14


def _connections_divided(running: RunningServer) -> list[int]:
    """Returns the most even of three bursts of connections: a worker gets fewer while the machine does not run it."""
    return max((_burst_divided(running) for _ in range(3)), key=min)


def _burst_divided(running: RunningServer) -> list[int]:
    """Connects 40 times, and counts the connections of each worker."""
    connections = [socket.create_connection(("127.0.0.1", running.port), timeout=10) for _ in range(40)]
    time.sleep(1)
    counts = [
        sum(each.status == psutil.CONN_ESTABLISHED for each in worker.connections("inet"))
        for worker in running.workers()
    ]
    for connection in connections:
        connection.close()
    # Until the workers have noticed.
    time.sleep(0.5)
    return counts


def test_a_model_that_no_worker_can_load_ends_the_server(uint8_bundle: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"ServingError: .*no version 77"),
        run_server(uint8_bundle.parent, tmp_path / "log.txt", workers=2, version=77),
    ):
        pytest.fail("the server must not start")


def test_workers_end_with_their_parent(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    with run_server(uint8_bundle, tmp_path / "log.txt", workers=2) as running:
        assert httpx.post(running.url + PREDICT, json={}, trust_env=False).status_code == 400
        workers = running.workers()
        running.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


def test_a_worker_that_cannot_start_again_leaves_the_others_alone(
    uint8_bundle: Path, tmp_path: Path, files: list[bytes]
) -> None:
    base = tmp_path / "versions"
    shutil.copytree(uint8_bundle, base / "1")
    with run_server(base, tmp_path / "log.txt", workers=2) as running:
        # Old enough to count as serving.
        time.sleep(6)
        shutil.rmtree(base / "1")
        victim, other = running.workers()
        os.kill(victim.pid, signal.SIGKILL)
        time.sleep(2)
        assert httpx.post(f"{running.url}/predict", content=files[0], trust_env=False).status_code == 200
        assert running.process.poll() is None
        assert other.is_running()
        shutil.copytree(uint8_bundle, base / ".2")
        (base / ".2").rename(base / "2")
        _wait_for_starts(running, 3)
    assert "no pushed model in it" in running.log.read_text()


def _wait_for_starts(running: RunningServer, count: int) -> None:
    """Waits until so many workers in all have said that they serve."""
    deadline = time.monotonic() + 30
    while running.log.read_text().count(" at http://127.0.0.1:") < count:
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.02)
