"""HTTP connections that neither a slow nor a talkative client can hold or fill."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

_MOST_HEADER_BYTES = 64 * 1024


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end to the wait for a request and to the size of its headers; it has neither itself.

    A request must be complete `timeout_s` after its first byte, whose own time runs from the connection or, as uvicorn
    does it, from the answer before; request line and headers have at most 64 KiB.
    """

    def __init__(self, *args: Any, timeout_s: float, on_close: Callable[[], None] | None = None, **kwargs: Any) -> None:
        """Makes the protocol of one connection.

        Args:
            *args: Those of uvicorn's protocol.
            timeout_s: Longest time for a request to arrive, in seconds.
            on_close: Is called when the connection has ended.
            **kwargs: Those of uvicorn's protocol.
        """
        super().__init__(*args, **kwargs)
        self._timeout_s = timeout_s
        self._on_close = on_close
        self._deadline: asyncio.TimerHandle | None = None
        self._in_headers = True
        self._header_bytes = 0
        self._unparsed_bytes = 0
        self._refused = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)
        if self._on_close:
            self._on_close()

    @override
    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        # The parser tells of a header when it is complete, so that an endless one must be counted as it comes.
        self._unparsed_bytes += len(data) if self._in_headers else 0
        super().data_received(data)
        if self._in_headers and self._unparsed_bytes > _MOST_HEADER_BYTES:
            self._refuse_headers()

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        if self._deadline is None:
            self._arm()

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value))

    @override
    def on_headers_complete(self) -> None:
        if not self._refused:
            self._in_headers = False
            super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if not self._refused:
            self._disarm()
            self._in_headers = True
            self._unparsed_bytes = 0
            super().on_message_complete()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MOST_HEADER_BYTES:
            self._refuse_headers()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self._timeout_s, self._expire)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        has_begun = self._unparsed_bytes > 0 if self._in_headers else not self.cycle.response_started
        self._close(408 if has_begun else None, "the request did not arrive in time")

    def _refuse_headers(self) -> None:
        self._close(431, "the request line and headers are larger than 64 KiB")

    def _close(self, status: int | None, reason: str) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if status is not None:
            content = orjson.dumps({"error": reason})
            headers = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + headers % len(content) + content)
        self.transport.close()
