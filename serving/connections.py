"""HTTP connections that neither a slow nor a talkative client can hold or fill."""

import asyncio
from collections.abc import Callable, Sized
from typing import Any, Final

import orjson
from typing_extensions import override
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving import metrics

# In the scope of a request whose client was refused before the body had arrived: the status it was answered.
REFUSED_WITH: Final = "trimline.refused_with"

_MOST_HEADER_BYTES: Final = 64 * 1024
# Requests that were sent before the answers to earlier ones; hardly any client does that at all.
_MOST_PIPELINED: Final = 16


class _Flow(FlowControl):
    """uvicorn's flow control, which reads nothing while requests wait for the answers before theirs."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    @override
    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end to every wait for a client, and to what it may send without an answer.

    A request must be complete `timeout_s` after its first byte, whose own time runs from the connection or, as uvicorn
    does it, from the answer before; where it waits for the answers to earlier ones, and so is not read, its time begins
    again after them. Answers must be taken in the same time. Request line and headers have at most 64 KiB, and so has
    what comes between the parts of a body and after it.
    """

    def __init__(self, *args: Any, timeout_s: float, on_close: Callable[[], None] | None = None, **kwargs: Any) -> None:
        """Makes the protocol of one connection.

        Args:
            *args: Those of uvicorn's protocol.
            timeout_s: Longest time for a request to arrive, and for its answer to be taken, in seconds.
            on_close: Is called when the connection has ended.
            **kwargs: Those of uvicorn's protocol.
        """
        super().__init__(*args, **kwargs)
        self._timeout_s = timeout_s
        self._on_close = on_close
        self._deadline: asyncio.TimerHandle | None = None
        self._abortion: asyncio.TimerHandle | None = None
        # The latest request that was begun; uvicorn's `cycle` may be one that waits behind it.
        self._begun: RequestResponseCycle | None = None
        self._in_message = False
        self._in_headers = True
        self._header_bytes = 0
        self._unparsed_bytes = 0
        self._hung_up = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._arm()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._spare()
        self._abandon()
        super().connection_lost(exc)
        if self._on_close:
            self._on_close()

    @override
    def eof_received(self) -> None:
        super().eof_received()
        # The connection closes now, but for the answers that the client has not taken.
        self._abort_later()

    @override
    def data_received(self, data: bytes) -> None:
        if self._hung_up:
            return
        # The parser tells of a header when it is complete, so that an endless one must be counted as it comes.
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > _MOST_HEADER_BYTES:
            self._refuse_headers()
        elif self.pipeline:
            # Nothing more is read for now, so that nothing can be late.
            self._disarm()
        elif self._is_forgotten():
            self._arm()

    @override
    def on_message_begin(self) -> None:
        if not self._hung_up:
            super().on_message_begin()
            self._in_message = True
            self._header_bytes = 0
            self._arm()

    @override
    def on_url(self, url: bytes) -> None:
        if not self._hung_up:
            super().on_url(url)
            self._count(len(url))

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._hung_up:
            super().on_header(name, value)
            self._count(len(name) + len(value))

    @override
    def on_headers_complete(self) -> None:
        if not self._hung_up:
            super().on_headers_complete()
            self._in_headers = False
            if len(self.pipeline) > _MOST_PIPELINED:
                # Without a word, which would pass for the answer to the first of them.
                self._hang_up()

    @override
    def on_body(self, body: bytes) -> None:
        if not self._hung_up:
            self._unparsed_bytes = 0
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if not self._hung_up:
            self._disarm()
            self._in_message = False
            self._in_headers = True
            self._unparsed_bytes = 0
            super().on_message_complete()

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._begun = cycle
        super()._start_asgi_task(cycle, app)

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()
        elif self._in_message and self._deadline is None and not self.pipeline:
            # What arrived behind others is read again.
            self._arm()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_later()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._spare()

    @override
    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_later()

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "the request is not valid HTTP")

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MOST_HEADER_BYTES:
            self._refuse_headers()

    def _is_forgotten(self) -> bool:
        """Tells whether nothing would end the connection: uvicorn's wait for a request ends with any byte."""
        return self._deadline is None and self.timeout_keep_alive_task is None and self._running is None

    @property
    def _running(self) -> RequestResponseCycle | None:
        return None if self._begun is None or self._begun.response_complete else self._begun

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self._timeout_s, self._expire)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self._in_message:
            self._refuse(408, "the request did not arrive in time")
        else:
            self._hang_up()

    def _abort_later(self) -> None:
        """Sees to it that a client which takes no answers has an end; a closed connection, too, waits for that."""
        if self._abortion is None:
            self._abortion = self.loop.call_later(self._timeout_s, self.transport.abort)

    def _spare(self) -> None:
        if self._abortion is not None:
            self._abortion.cancel()
            self._abortion = None

    def _refuse_headers(self) -> None:
        self._refuse(431, "the request has more than 64 KiB beside its body")

    def _refuse(self, status: int, reason: str) -> None:
        if self._hung_up or self.transport.is_closing():
            return
        running = self._running
        if running and (self._in_headers or running is not self.cycle):
            # Without a word, which would pass for the answer to that earlier request; its own is given, as the last.
            self._hung_up = True
            running.keep_alive = False
            return
        if self._in_headers:
            metrics.requests_of(metrics.UNMATCHED, str(status)).inc()
        else:
            self.cycle.scope[REFUSED_WITH] = status  # type: ignore[typeddict-unknown-key]
        if self._in_headers or not self.cycle.response_started:
            content = orjson.dumps({"error": reason})
            headers = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + headers % len(content) + content)
        self._hang_up()

    def _hang_up(self) -> None:
        self._hung_up = True
        self._abandon()
        self.transport.close()
        self._abort_later()

    def _abandon(self) -> None:
        """Tells the request that is running that nobody waits for its answer; uvicorn tells only the newest."""
        if running := self._running:
            running.disconnected = True
            running.message_event.set()
