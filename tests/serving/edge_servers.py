"""Server processes that the serving tests talk to."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parents[2]
MODEL_NAME = "pets"


@dataclass(frozen=True)
class RunningServer:
    """A server process that answers.

    Attributes:
        url: Address of the server.
        process: The process that serves, or that its workers descend from.
        log: What the process has written to stdout and stderr.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def run_server(bundle: Path, log: Path, workers: int = 1) -> Iterator[RunningServer]:
    """Runs a server on a free port of the loopback interface, and stops it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    call = "import sys; from pathlib import Path; from serving.server import serve; "
    call += "serve(Path(sys.argv[1]), port=int(sys.argv[2]), name=sys.argv[4], workers=int(sys.argv[3]))"
    command = [sys.executable, "-c", call, str(bundle), str(port), str(workers), MODEL_NAME]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
    server = RunningServer(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(server: RunningServer) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if httpx.get(f"{server.url}/v2/health/ready", trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not start:\n{server.log.read_text()}")
