"""Server processes that the serving tests talk to."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from serving.options import ServerOptions

REPOSITORY = Path(__file__).parents[2]
MODEL_NAME = "pets"
PREDICT = f"/v1/models/{MODEL_NAME}:predict"
INFER = f"/v2/models/{MODEL_NAME}/infer"

_SERVE = """
import sys
from pathlib import Path
from serving.options import ServerOptions
from serving.server import serve
{fault}
if __name__ == "__main__":
    serve(Path(sys.argv[1]), ServerOptions.model_validate_json(sys.argv[2]))
"""

SECRET = "the payload of nobody's business"  # noqa: S105
# The model fails as soon as a file of this name stands in the server's temporary directory.
BROKEN_MODEL = """
import os, tempfile
from ai_edge_litert.interpreter import Interpreter
invoke = Interpreter.invoke
def fail(self):
    if os.path.exists(os.path.join(tempfile.gettempdir(), "broken")):
        {failure}
    return invoke(self)
Interpreter.invoke = fail
"""
FAILING_MODEL = BROKEN_MODEL.format(failure=f'raise RuntimeError("{SECRET}")')
HANGING_MODEL = BROKEN_MODEL.format(failure="import time; time.sleep(3600)")


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

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def run_server(
    out: Path,
    log: Path,
    *,
    fault: str = "",
    environment: dict[str, str] | None = None,
    verify: str | bool = True,
    **options: Any,
) -> Iterator[RunningServer]:
    """Runs a server on a free port of the loopback interface, and stops it.

    Args:
        out: What to serve.
        log: Where the server writes to.
        fault: Python code that breaks something in the server process before it starts.
        environment: Additional variables.
        verify: Certificate that the readiness probe trusts, where the server has one.
        **options: Those of the server.
    """
    settings = ServerOptions(port=free_port(), name=MODEL_NAME, **options)
    command = [sys.executable, "-c", _SERVE.format(fault=fault), str(out), settings.model_dump_json()]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    scheme = "https" if settings.tls_cert else "http"
    server = RunningServer(f"{scheme}://127.0.0.1:{settings.port}", process, log)
    try:
        _wait_until_ready(server, verify)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_until_ready(server: RunningServer, verify: str | bool) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            probe = httpx.get(f"{server.url}/v2/health/ready", trust_env=False, verify=verify)
            if probe.status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not start:\n{server.log.read_text()}")
