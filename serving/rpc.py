"""The gRPC server: KServe's, with encryption, one address, the API key, and no way to unload the model."""

import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from serving import metrics
from serving.errors import OverloadedError, ServingError
from serving.options import ServerOptions

logger = logging.getLogger(__name__)

_STATUSES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    OverloadedError.status: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}

Handler = Callable[[Any, Any], Awaitable[Any]]


class _SealedRepository(ModelRepositoryExtension):
    """Refuses to load and unload models: anyone who can ask for a prediction could stop the service."""

    async def load(self, model_name: str) -> None:
        raise NotImplementedError

    async def unload(self, model_name: str) -> None:
        raise NotImplementedError


class _Guard(grpc.aio.ServerInterceptor):
    """Asks for the API key, and turns errors into statuses."""

    def __init__(self, api_key: str | None) -> None:
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        allowed = self._expected is None or hmac.compare_digest(_authorization(details), self._expected)
        return grpc.unary_unary_rpc_method_handler(
            _counted(details.method, _guarded(handler.unary_unary) if allowed else _refuse),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def build_grpc_server(data_plane: DataPlane, options: ServerOptions, api_key: str | None) -> grpc.aio.Server:
    """Builds the gRPC server of one worker; the kernel divides connections among workers.

    Args:
        data_plane: KServe's way to the model.
        options: Has the address, the limits, and `grpc_port`, `tls_cert` and `tls_key`, which are set.
        api_key: What calls must bring as metadata `authorization: Bearer KEY`; None lets all in.

    Returns:
        The server, not started.

    Raises:
        ServingError: The certificate or its key cannot be read, or the port is taken.
    """
    server = grpc.aio.server(
        interceptors=(_Guard(api_key),),
        options=[("grpc.max_receive_message_length", int(options.max_body_mb * 1_000_000)), ("grpc.so_reuseport", 1)],
    )
    repository = _SealedRepository(data_plane.model_registry)
    grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        InferenceServicer(data_plane, repository), server
    )
    address = f"[{options.host}]" if ":" in options.host else options.host
    try:
        server.add_secure_port(f"{address}:{options.grpc_port}", _credentials(options.tls_key, options.tls_cert))  # type: ignore[arg-type]
    except (OSError, RuntimeError) as error:
        raise ServingError(f"cannot serve gRPC on {options.host} port {options.grpc_port}: {error}") from error
    return server


def _credentials(key: Path, certificate: Path) -> grpc.ServerCredentials:
    """Reads the certificate now, and again for each connection that comes after its files have changed."""
    known = (key.read_bytes(), certificate.read_bytes())

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        try:
            found = (key.read_bytes(), certificate.read_bytes())
            if found == known:
                return None
            # Someone may be halfway through writing the two; what does not fit is not taken.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            logger.warning("gRPC goes on with the certificate it has: %s", error)
            return None
        known = found
        return grpc.ssl_server_certificate_configuration([found])

    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([known]), renewed)


def _authorization(details: grpc.HandlerCallDetails) -> bytes:
    for key, value in details.invocation_metadata or ():
        if key == "authorization":
            return value if isinstance(value, bytes) else value.encode()
    return b""


def _counted(route: str, method: Handler) -> Handler:
    async def answer(request: Any, context: Any) -> Any:
        with metrics.request_seconds_of(route).time():
            try:
                return await method(request, context)
            finally:
                metrics.requests_of(route, _name_of(context.code())).inc()

    return answer


def _name_of(code: grpc.StatusCode | int | None) -> str:
    # None, or the number 0, is what gRPC has for a call that nobody aborted.
    return code.name if isinstance(code, grpc.StatusCode) else "OK"


def _guarded(method: Handler) -> Handler:
    async def answer(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except ServingError as error:
            await context.abort(_STATUSES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error))
        except NotImplementedError:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the model stays for as long as the server runs")
        except Exception as error:
            status, reason = _kserve_status(error)
            await context.abort(status, reason)

    return answer


def _kserve_status(error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, InvalidInput):
        return grpc.StatusCode.INVALID_ARGUMENT, error.reason
    if isinstance(error, ModelNotFound):
        return grpc.StatusCode.NOT_FOUND, "no such model"
    logger.error("a call failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error"


async def _refuse(request: Any, context: Any) -> Any:  # noqa: ARG001 - gRPC passes it
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the API key is missing or wrong")
