"""Connections divided evenly among workers that share one listening socket."""

import asyncio
import logging
import socket
import time
from typing import Final

import uvicorn
from kserve.protocol.rest.server import _RefreshingServer
from typing_extensions import override

from serving.worker_states import OneOfSeveral

# A worker leaves the next connection to one that has fewer, but not for longer: that one may be busy.
_LONGEST_PAUSE_S: Final = 0.005
_LOOK_AGAIN_S: Final = 0.0005
_BACKLOG: Final = 2048
_PAUSE_AFTER_FAILURE_S: Final = 0.2
_COMPLAIN_AGAIN_S: Final = 60.0

logger = logging.getLogger(__name__)


class SharingServer(_RefreshingServer):
    """KServe's uvicorn server, which accepts one connection at a time, and leaves it to others while they have fewer.

    uvicorn's own accepts all that wait, so that one worker may get them all; where each has a socket of its own, the
    kernel divides connections by a hash of their addresses, and so at random.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket, place: OneOfSeveral) -> None:
        """Makes the server.

        Args:
            config: uvicorn's configuration.
            listener: The bound socket, which all workers have.
            place: Its place among them.
        """
        super().__init__(config)
        self._listener = listener
        self._states = place.states
        self._number = place.number
        self._accepting: asyncio.Task[None] | None = None
        self._connecting: set[asyncio.Task[object]] = set()
        self._silent_until = 0.0

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._listener.listen(_BACKLOG)
        self._accepting = asyncio.create_task(self._accept())

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._accepting:
            self._accepting.cancel()
        self._listener.close()
        await super().shutdown(sockets=[])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._count()
            await self._wait_for_others()
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                # Files or the kernel's memory have run out; connections that end give some back.
                self._complain(error)
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
                continue
            # On its own: a client takes its time for the TLS handshake.
            connecting = loop.create_task(
                loop.connect_accepted_socket(self._make_protocol, connection, ssl=self.config.ssl)
            )
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connected)

    async def _wait_for_others(self) -> None:
        give_up = time.monotonic() + _LONGEST_PAUSE_S
        while self._states.has_most_connections(self._number) and time.monotonic() < give_up:
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _complain(self, error: OSError) -> None:
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + _COMPLAIN_AGAIN_S
            logger.error("cannot accept connections: %s: trying again all the time", error.strerror)

    def _count(self) -> None:
        self._states.write_connections(self._number, len(self.server_state.connections) + len(self._connecting))

    def _make_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, on_close=self._count
        )

    def _connected(self, connecting: "asyncio.Task[object]") -> None:
        self._connecting.discard(connecting)
        # Retrieved: a handshake that fails is the client's affair.
        if not connecting.cancelled():
            connecting.exception()
        self._count()
