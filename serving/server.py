"""The HTTP server for a pushed bundle: KServe's Python server, kept on loopback and closed to management."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

from kserve import InferRequest, ModelServer
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.utils.utils import cpu_count

from serving.bundle import load_bundle
from serving.errors import ServingError
from serving.model import EdgeModel
from serving.predictor import Predictor

logger = logging.getLogger(__name__)


class _SealedRepository(ModelRepositoryExtension):
    """Refuses to load and unload models over HTTP: anyone who can ask for a prediction could stop the service."""

    async def load(self, model_name: str) -> None:
        raise NotImplementedError(f"model {model_name} was loaded when the server started and cannot be loaded again")

    async def unload(self, model_name: str) -> None:
        raise NotImplementedError(f"model {model_name} stays for as long as the server runs")


class _EdgeDataPlane(DataPlane):
    """Answers 400 to every V2 request that cannot be read; KServe answers 500 to some and logs their payload."""

    def decode_inference_request(self, body: Any, headers: dict[str, str], model_name: str) -> InferRequest:
        try:
            return super().decode_inference_request(body, headers, model_name)
        except Exception:
            raise InvalidInput(
                "the V2 request cannot be read: send JSON with image files in base64, or a binary UINT8 tensor"
            ) from None


class EdgeModelServer(ModelServer):
    """KServe's server, with the address it listens on as a parameter; KServe itself always listens on all of them."""

    def __init__(self, host: str, **settings: Any) -> None:
        """Makes the server.

        Args:
            host: Address to listen on.
            **settings: Those of kserve.ModelServer.
        """
        super().__init__(**settings)
        self._host = host
        self.model_repository_extension = _SealedRepository(self.registered_models)
        self.dataplane = _EdgeDataPlane(self.registered_models)

    async def _serve(self) -> None:
        # The configuration exists by now, and its address is read only when the servers start, which is here.
        rest_server = self._rest_server or self._rest_multiprocess_server._rest_server
        rest_server.config.host = self._host
        await asyncio.gather(*self.servers)


def serve(
    bundle_dir: Path, host: str = "127.0.0.1", port: int = 8080, name: str = "trimline", workers: int = 1
) -> None:
    """Serves a bundle over HTTP until the process gets SIGINT or SIGTERM.

    There is no gRPC: KServe's gRPC server listens on all addresses and cannot be told otherwise.

    Args:
        bundle_dir: The bundle, as `serving.bundle.find_bundle` returns it.
        host: Address to listen on. The default is reachable from this machine only: the server knows no passwords.
        port: Port to listen on.
        name: Name of the model in the addresses of the server, as in `/v1/models/NAME:predict`.
        workers: Server processes. Each has its own interpreters, its share of the machine's processors.

    Raises:
        ServingError: The bundle is damaged, or the address cannot be listened on.
    """
    _check_address(host, port)
    interpreters = max(1, cpu_count() // workers)
    bundle = load_bundle(bundle_dir)
    model = EdgeModel(name, Predictor(bundle, interpreters=interpreters))
    server = EdgeModelServer(host, http_port=port, workers=workers, enable_grpc=False, enable_latency_logging=False)
    logger.info("serving %s as %s on %s port %d", bundle.directory, name, host, port)
    server.start([model])


def _check_address(host: str, port: int) -> None:
    # The server would only log the failure and end the process.
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address[0], port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServingError(f"cannot listen on {host} port {port}: {reason}: choose another host or port") from error
