"""One server process: KServe's Python server around our REST application, gRPC, and the watch for versions."""

import asyncio
import ipaddress
import logging
import os
import signal
import socket
from functools import partial
from pathlib import Path

import uvloop
from kserve import ModelServer
from kserve.protocol.rest.server import RESTServer

from serving import metrics
from serving.acceptor import SharingServer
from serving.app import build_app
from serving.connections import LimitedProtocol
from serving.guard import App
from serving.inference import Inference
from serving.logs import configure_logging
from serving.model import EdgeModel
from serving.options import ServerOptions
from serving.processors import available_processors
from serving.rpc import build_grpc_server
from serving.versions import CANARY, STABLE, ServedVersions
from serving.worker_states import OneOfSeveral

logger = logging.getLogger(__name__)

# KServe's own value: longer than proxies keep an idle connection.
_KEEP_ALIVE_S = 65
_TELL_S = 1.0


class _RestServer(RESTServer):
    """KServe's REST server with our application, on a socket that is bound already.

    KServe's own listens on all addresses, and its application has routes that unload the model.
    """

    def __init__(
        self,
        app: App,
        options: ServerOptions,
        listener: socket.socket,
        place: OneOfSeveral | None,
        server: ModelServer,
    ) -> None:
        super().__init__(
            "kserve.model_server:app",
            server.dataplane,
            server.model_repository_extension,
            options.port,
            grace_period=int(options.grace_s),
            timeout_keep_alive=_KEEP_ALIVE_S,
            ssl_certfile=str(options.tls_cert) if options.tls_cert else None,
            ssl_keyfile=str(options.tls_key) if options.tls_key else None,
        )
        self._app = app
        self._timeout_s = options.timeout_s
        # Alone, a worker accepts whatever comes.
        self._sockets = None if place else [listener]
        if place:
            self._server = SharingServer(self.config, listener, place)

    def create_application(self) -> None:
        """Puts our application and connections into the configuration, which uvicorn reads only when it starts."""
        self.config.app = self._app
        self.config.http = partial(LimitedProtocol, timeout_s=self._timeout_s)
        self.config.ws = "none"
        self.config.lifespan = "off"
        self.config.proxy_headers = False
        self.config.server_header = False

    async def start(self) -> None:
        """Serves until SIGINT or SIGTERM, and then until the requests that are running are answered."""
        self.create_application()
        await self._server.serve(sockets=self._sockets)


class EdgeModelServer(ModelServer):
    """KServe's server for one worker: our REST server, gRPC only with TLS, and new versions as they are pushed.

    Attributes:
        address: The address it listens on.
    """

    def __init__(
        self, inference: Inference, api_key: str | None, listener: socket.socket, place: OneOfSeveral | None
    ) -> None:
        """Makes the server.

        Args:
            inference: Answers the requests.
            api_key: What requests must bring; None lets all in.
            listener: The bound socket.
            place: Its place among several workers; None where there is only this one.

        Raises:
            ServingError: gRPC cannot be served.
        """
        options = inference.options
        super().__init__(
            http_port=options.port,
            workers=1,
            enable_grpc=False,
            enable_latency_logging=False,
            grace_period=int(options.grace_s),
        )
        configure_logging()
        self.register_model(EdgeModel(inference))
        self.address: str = listener.getsockname()[0]
        self._inference = inference
        self._place = place
        self._api_key = api_key
        self._rest_server = _RestServer(build_app(inference, api_key), options, listener, place, self)

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM, and then until the requests that are running are answered."""
        # uvicorn repeats the signal that ended it, which has done its work by then.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())
        if not self._inference.close():
            logger.error("the model does not come to an end: the process ends without it")
            logging.shutdown()
            # Python itself would wait for the threads.
            os._exit(1)

    async def _serve(self) -> None:
        options = self._inference.options
        rpc = build_grpc_server(self.dataplane, options, self._api_key) if options.grpc_port is not None else None
        if rpc:
            await rpc.start()
        tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._tell_able())]
        await self._rest_server.start()
        for task in tasks:
            task.cancel()
        if rpc:
            await rpc.stop(options.grace_s)

    async def _watch(self) -> None:
        versions = self._inference.versions
        while True:
            _report(versions)
            await asyncio.sleep(self._inference.options.reload_s)
            try:
                if await asyncio.to_thread(versions.refresh):
                    metrics.RELOADS.inc()
            # What is served goes on; the next look may succeed.
            except Exception:
                logger.exception("looking for versions failed")

    async def _tell_able(self) -> None:
        """Lets the supervisor know for as long as the model can answer."""
        while self._place:
            if await self._inference.is_ready():
                self._place.states.note_able(self._place.number)
            await asyncio.sleep(_TELL_S)


def run_worker(
    out: Path,
    options: ServerOptions,
    api_key: str | None,
    listener: socket.socket,
    place: OneOfSeveral | None = None,
) -> None:
    """Serves in this process until SIGINT or SIGTERM.

    The models are loaded and have run before the port is opened.

    Args:
        out: A run's output folder, its folder of versions, or one bundle.
        options: How to serve.
        api_key: What requests must bring; None lets all in.
        listener: The bound socket, which all workers share where there are several.
        place: Its place among them; None where there is only this one.

    Raises:
        ServingError: No version can be loaded, or gRPC cannot be served.
    """
    configure_logging()
    if options.traces:
        # Only here: it is of no use to most, and takes as long to import as the rest.
        from serving.tracing import send_traces

        send_traces(options.name)
    # Each interpreter computes with one thread; more of them would only fight for the same processors.
    threads = options.threads or max(1, available_processors() // options.workers)
    inference = Inference(ServedVersions(out, options, threads), options, threads)
    server = EdgeModelServer(inference, api_key, listener, place)
    served = ", ".join(str(version.number) for version in inference.versions.served)
    if api_key is None and not ipaddress.ip_address(server.address).is_loopback:
        logger.warning("whoever reaches %s can ask for predictions: set serving.api_key_file", options.host)
    scheme = "https" if options.tls_cert else "http"
    url = f"{scheme}://{options.address}/"
    logger.info("serving %s version %s at %s, threads: %d", options.name, served, url, threads)
    server.run()


def _report(versions: ServedVersions) -> None:
    numbers = dict(zip((STABLE, CANARY), (version.number for version in versions.served), strict=False))
    for label in (STABLE, CANARY):
        metrics.MODEL.labels(label).set(numbers.get(label, 0))
    metrics.REFUSED.set(sum(state.error is not None for state in versions.states()))
