"""Connections divided evenly among workers that share one listening socket."""

import asyncio
import socket
from typing import Final

import uvicorn
from kserve.protocol.rest.server import _RefreshingServer
from typing_extensions import override

# A worker leaves the next connection to others for so long for each one it has, and at most for so long in all.
_PAUSE_PER_CONNECTION_S: Final = 0.0002
_LONGEST_PAUSE_S: Final = 0.005
_BACKLOG: Final = 2048


class SharingServer(_RefreshingServer):
    """KServe's uvicorn server, which accepts one connection at a time, the sooner the fewer it has.

    uvicorn's own accepts all that wait, so that one worker may get them all; where each has a socket of its own, the
    kernel divides connections by a hash of their addresses, and so at random.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        """Makes the server.

        Args:
            config: uvicorn's configuration.
            listener: The bound socket, which all workers have.
        """
        super().__init__(config)
        self._listener = listener
        self._accepting: asyncio.Task[None] | None = None
        self._connecting: set[asyncio.Task[object]] = set()

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
            connection, _ = await loop.sock_accept(self._listener)
            # On its own: a client takes its time for the TLS handshake.
            connecting = loop.create_task(
                loop.connect_accepted_socket(self._make_protocol, connection, ssl=self.config.ssl)
            )
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connected)
            pause = _PAUSE_PER_CONNECTION_S * len(self.server_state.connections)
            await asyncio.sleep(min(pause, _LONGEST_PAUSE_S))

    def _make_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _connected(self, connecting: "asyncio.Task[object]") -> None:
        self._connecting.discard(connecting)
        # Retrieved: a handshake that fails is the client's affair.
        if not connecting.cancelled():
            connecting.exception()
