"""What surrounds every HTTP request: the key, the size of the body, the answer to a bug, the count and the log line."""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import orjson

from serving import metrics
from serving.errors import OverloadedError, TooLargeError
from serving.inference import TOO_MANY, Inference

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MB: Final = 1_000_000
# How many of the largest bodies a worker has memory for while they arrive; a slow client's stays for long.
MOST_ARRIVING_BODIES: Final = 4
# What of each body does not count, so that small requests always get through; uvicorn itself keeps as much.
_FREE_BYTES: Final = 64 * 1024
# Probes have no key, and the page and the description of the protocols hold no secret.
_OPEN_PATHS: Final = frozenset({"/", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
# The page brings its own style and script, and shows the photo that was dropped on it.
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; "
        b"connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    ),
]

logger = logging.getLogger("serving.access")


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: App, inference: Inference, api_key: str | None) -> None:
        """Surrounds an application.

        Args:
            app: The application.
            inference: Tells whether there is room for one more request, and has the limits.
            api_key: What requests must bring as `Authorization: Bearer KEY` or `X-API-Key: KEY`; None lets all in.
        """
        self._app = app
        self._key = api_key.encode() if api_key is not None else None
        self._inference = inference
        self._max_body = int(inference.options.max_body_mb * _MB)
        self._arriving_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; `scope["state"]` is left to the application."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *_SECURITY_HEADERS]}
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal:
                await _answer(send_counted, *refusal)
            else:
                with self._limited(receive) as receive_limited:
                    await self._app(scope, receive_limited, send_counted)
        except Exception:
            # The bug is for the log; the client learns that there is one, and keeps its connection.
            logger.exception("a request failed", extra={"route": _route_of(scope)})
            if not status:
                await _answer(send_counted, 500, "internal error: the server's log has it")
        finally:
            self._count(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        if self._key is not None and scope["path"] not in _OPEN_PATHS and not self._has_key(headers):
            return 401, "the API key is missing or wrong: send it as Authorization: Bearer KEY"
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            return 415, "the body is compressed: send it as it is"
        length = headers.get(b"content-length", b"")
        # A number of more digits than any size has must not become an integer first.
        if len(length) > 15 or (length.isdigit() and int(length) > self._max_body):
            return 413, self._too_large()
        if scope["method"] == "POST" and not self._inference.has_room:
            # Before the body is read and a route is looked for, because an overloaded server has no time for either.
            return 429, TOO_MANY
        return None

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        return hmac.compare_digest(given, self._key or b"")

    @contextmanager
    def _limited(self, receive: Receive) -> Iterator[Receive]:
        """Counts the body as it comes, which need not tell its length beforehand, and all that are arriving."""
        size = held = 0

        def hold(count: int) -> None:
            nonlocal held
            if self._arriving_bytes + count - held > MOST_ARRIVING_BODIES * self._max_body:
                raise OverloadedError(TOO_MANY)
            self._arriving_bytes += count - held
            held = count

        async def receive_counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                raise TooLargeError(self._too_large())
            # What has arrived waits for a thread, and the length of that queue is limited.
            hold(max(0, size - _FREE_BYTES) if message.get("more_body") else 0)
            return message

        try:
            yield receive_counted
        finally:
            hold(0)

    def _too_large(self) -> str:
        return f"the body is larger than the {self._max_body:,} bytes allowed"

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route_of(scope)
        metrics.requests_of(route, str(status)).inc()
        metrics.request_seconds_of(route).observe(seconds)
        # An overloaded server has more to do than to write down whom it sent away; the count has them.
        if status != 429:
            fields = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 3)}
            logger.info("request", extra=fields)


def _route_of(scope: Scope) -> str:
    """Returns the pattern of the path; a path itself is the client's own text, and there is no end to them."""
    return getattr(scope.get("route"), "path", metrics.UNMATCHED)


async def _answer(send: Send, status: int, error: str) -> None:
    content = orjson.dumps({"error": error})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
