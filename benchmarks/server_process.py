"""Server processes that the serving benchmarks measure."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from serving.options import ServerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "trimline"
SERVE = """
import sys
from pathlib import Path
from serving.options import ServerOptions
from serving.server import serve
if __name__ == "__main__":
    serve(Path(sys.argv[1]), ServerOptions.model_validate_json(sys.argv[2]))
"""


@contextmanager
def server(out: Path, log: Path, **options: Any) -> Iterator[int]:
    """Runs our server and yields its port.

    Args:
        out: What to serve.
        log: Where it writes to.
        **options: Those of the server.
    """
    settings = ServerOptions(port=free_port(), name=NAME, **options)
    with server_process([SERVE, str(out), settings.model_dump_json()], settings.port, log):
        yield settings.port


@contextmanager
def server_process(arguments: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a Python program that serves V2, and yields its process as soon as it is ready.

    Args:
        arguments: The program's text and arguments.
        port: The port that it listens on.
        log: Where it writes to.
    """
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", *arguments], stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not _is_ready(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"a server did not start: {log.read_text()}")
            time.sleep(0.2)
        # Its other workers start too.
        time.sleep(1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def free_port() -> int:
    """Returns a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", trust_env=False).is_success
    except httpx.HTTPError:
        return False
