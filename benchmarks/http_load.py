"""HTTP clients that cost little themselves: fixed requests over kept connections, each sent after an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import uvloop

# By then a server has taken all connections that were made.
_SETTLE_S = 0.3


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        latencies: Seconds from a request to the end of its answer, for answers of status 200.
        statuses: How many answers had each status.
        lost: Requests whose connection ended without an answer.
        seconds: Length of the whole measurement.
    """

    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    lost: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers of status 200 per second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Returns a quantile of the latencies in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class _Client(asyncio.Protocol):
    """One client: sends the next request as soon as it has the answer to the one before."""

    def __init__(
        self, requests: list[bytes], first: int, load: Load, check: Callable[[bytes], None] | None, period_s: float
    ) -> None:
        self._requests = requests
        self._turn = first
        self._load = load
        self._check = check
        self._period_s = period_s
        self._received = bytearray()
        self._sent = 0.0
        self._waiting = False
        self.done = asyncio.get_running_loop().create_future()
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        self._load.lost += self._waiting
        if not self.done.done():
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(self._received) < end + 4 + length:
            return
        self._count(int(head[9:12]), bytes(self._received[end + 4 : end + 4 + length]))
        self._received.clear()
        if self.stopping:
            self._transport.close()
        elif self._period_s:
            asyncio.get_running_loop().call_later(self._sent + self._period_s - time.perf_counter(), self.send)
        else:
            self.send()

    def send(self) -> None:
        self._waiting = True
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._turn % len(self._requests)])
        self._turn += 1

    def _count(self, status: int, body: bytes) -> None:
        self._waiting = False
        self._load.statuses[status] = self._load.statuses.get(status, 0) + 1
        if status == 200:
            self._load.latencies.append(time.perf_counter() - self._sent)
            if self._check:
                self._check(body)


def run_load(
    port: int,
    requests: list[bytes],
    clients: int,
    seconds: float,
    *,
    check: Callable[[bytes], None] | None = None,
    period_s: float = 0.0,
) -> Load:
    """Lets clients ask a server on this machine for some time.

    Args:
        port: Port of the server.
        requests: Whole HTTP requests, which the clients send in turn.
        clients: How many clients ask at the same time.
        seconds: For how long.
        check: Is given the body of each answer of status 200.
        period_s: Seconds from one request of a client to its next, or more where the answer takes longer. The clients
            begin one after the other within that time.

    Returns:
        What they saw.
    """
    load = Load()

    async def measure() -> None:
        loop = asyncio.get_running_loop()
        made = []
        for first in range(clients):
            make = partial(_Client, requests, first, load, check, period_s)
            made.append((await loop.create_connection(make, "127.0.0.1", port))[1])
        await asyncio.sleep(_SETTLE_S)
        start = time.perf_counter()
        for number, client in enumerate(made):
            loop.call_later(period_s * number / clients, client.send)
        await asyncio.sleep(seconds)
        load.seconds = time.perf_counter() - start
        for client in made:
            client.stopping = True
        await asyncio.wait_for(asyncio.gather(*(client.done for client in made)), 60)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure())
    return load


def http_request(path: str, body: bytes, **headers: str) -> bytes:
    """Returns a POST request.

    Args:
        path: Its path.
        body: Its body.
        **headers: More headers; underscores in their names stand for hyphens.
    """
    lines = [f"POST {path} HTTP/1.1", "host: here", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
