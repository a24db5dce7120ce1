"""The HTTP application: the addresses of all protocols, and nothing that changes the server."""

from collections.abc import Callable, Coroutine
from importlib import resources
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import override

from serving import metrics, openapi, plain, v1, v2
from serving.connections import REFUSED_WITH
from serving.errors import NotFoundError, ServingError, UnavailableError
from serving.guard import App, Guard
from serving.inference import Inference
from serving.versions import CANARY, STABLE, ServedVersion, VersionState

_MOST_CLASSES: Final = 1000
_POST_ERRORS: Final = (400, 401, 404, 408, 413, 415, 429, 503)
_GET_ERRORS: Final = (400, 401, 404)
_OCTETS: Final = "application/octet-stream"
# As nginx has it; HTTP itself has no status for an answer that nobody gets.
_CLIENT_WENT_AWAY: Final = 499
_TOP: Final = {
    "name": "top",
    "in": "query",
    "description": "How many classes to name.",
    "schema": {"type": "integer", "minimum": 1, "maximum": _MOST_CLASSES, "default": 5},
}


def build_app(inference: Inference, api_key: str | None) -> App:
    """Builds the application of one worker.

    Args:
        inference: Answers the requests.
        api_key: What requests must bring; None lets all in.

    Returns:
        The ASGI application.
    """
    name = inference.options.name
    app = FastAPI(
        title=f"Trimline: {name}",
        description="An image classifier: TensorFlow Serving's V1, the Open Inference Protocol's V2, and plain images.",
        version=str(inference.versions.stable.number),
        docs_url=None,
        redoc_url=None,
        # It would lead to whatever host the client names.
        redirect_slashes=False,
    )
    app.router.route_class = _DirectRoute
    endpoints = _Endpoints(inference)
    _add_v1_routes(app, f"/v1/models/{name}", endpoints)
    _add_v2_routes(app, f"/v2/models/{name}", endpoints)
    _add_other_routes(app, endpoints)
    # Routes are tried in their order.
    app.router.routes.sort(key=lambda route: "POST" not in (getattr(route, "methods", None) or ()))
    app.add_exception_handler(ServingError, _answer_serving_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_bug)
    return Guard(app, inference, api_key)


class _DirectRoute(APIRoute):
    """Hands the request to the endpoint; FastAPI's own way there costs more than an image's way through the model."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


class _Endpoints:
    """One method for each operation."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._versions = inference.versions
        self._name = inference.options.name
        self._page = resources.files("serving").joinpath("page.html").read_text(encoding="utf-8")

    async def v1_predict(self, request: Request) -> Response:
        """Classifies the images of a V1 request, in row or column format."""
        body = await request.body()
        version = self._chosen(request)
        most_images = v1.most_images(body, version)
        return _json(await self._inference.run(version, lambda classifier: v1.predict(body, classifier), most_images))

    async def v1_status(self, request: Request) -> Response:
        """Tells which versions are served, and which were refused."""
        parameters = request.path_params
        states = self._versions.states()
        if "version" in parameters:
            states = [state for state in states if str(state.number) == parameters["version"]]
            if not states:
                raise NotFoundError("this version of the model is not served")
        elif "label" in parameters:
            states = [VersionState(self._versions.labelled(parameters["label"]).number, None)]
        return _json(v1.status(states))

    async def v1_metadata(self, request: Request) -> Response:
        """Describes the signatures of the model."""
        version = self._chosen(request) if request.path_params else self._versions.stable
        return _json(v1.metadata(self._name, version))

    async def models(self, request: Request) -> Response:  # noqa: ARG002
        """Lists the model that is served."""
        return _json(orjson.dumps({"models": [self._name]}))

    async def v2_infer(self, request: Request) -> Response:
        """Classifies the images of a V2 request: image files or pixels, in JSON or binary."""
        body = await request.body()
        header_length = request.headers.get(v2.HEADER_LENGTH)
        is_binary = request.headers.get("content-type", "").startswith(_OCTETS)
        version = self._chosen(request)
        content, json_length = await self._inference.run(
            version,
            lambda classifier: v2.infer(body, header_length, is_binary, self._name, classifier),
            v2.most_images(body, is_binary, version),
        )
        if json_length is None:
            return _json(content)
        return Response(content, media_type=_OCTETS, headers={v2.HEADER_LENGTH: str(json_length)})

    async def v2_server(self, request: Request) -> Response:  # noqa: ARG002
        """Describes the server."""
        return _json(orjson.dumps({"name": "trimline", "version": "2", "extensions": ["binary_tensor_data"]}))

    async def v2_model(self, request: Request) -> Response:
        """Describes the model's inputs and outputs."""
        version = self._chosen(request) if request.path_params else self._versions.stable
        description = {
            "name": self._name,
            "versions": [str(served.number) for served in self._versions.served],
            "platform": "litert",
            "inputs": v2.inputs(),
            "outputs": v2.outputs(version),
        }
        return _json(orjson.dumps(description))

    async def live(self, request: Request) -> Response:  # noqa: ARG002
        """Tells that the process goes round."""
        return _json(b'{"live":true}')

    async def ready(self, request: Request) -> Response:  # noqa: ARG002
        """Tells that the model can answer: it has just done so, or does so now."""
        if not await self._inference.is_ready():
            raise UnavailableError("the model does not answer")
        return _json(b'{"ready":true}')

    async def model_ready(self, request: Request) -> Response:
        """Tells that the model can answer."""
        if request.path_params:
            self._chosen(request)
        if not await self._inference.is_ready():
            raise UnavailableError("the model does not answer")
        return _json(orjson.dumps({"name": self._name, "ready": True}))

    async def predict(self, request: Request) -> Response:
        """Classifies one image file, which is the body, or the first file of a form."""
        top = _top(request.query_params.get("top", "5"))
        body = await request.body()
        content_type = request.headers.get("content-type", "")
        if content_type.lower().startswith("multipart/"):
            body = await plain.file_of_form(content_type, body)
        return _json(
            await self._inference.run(
                self._versions.any(), lambda classifier: plain.predict(body, top, self._name, classifier)
            )
        )

    async def page(self, request: Request) -> HTMLResponse:  # noqa: ARG002
        """Serves the page to drop a photo on."""
        return HTMLResponse(self._page)

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        """Tells Prometheus what was counted and measured."""
        return Response(metrics.exposition(), headers={"content-type": metrics.CONTENT_TYPE})

    def _chosen(self, request: Request) -> ServedVersion:
        parameters = request.path_params
        if "version" in parameters:
            return self._versions.numbered(parameters["version"])
        if "label" in parameters:
            return self._versions.labelled(parameters["label"])
        return self._versions.any()


def _add_v1_routes(app: FastAPI, model: str, endpoints: _Endpoints) -> None:
    for suffix in ("", "/versions/{version}", "/labels/{label}"):
        app.add_api_route(
            f"{model}{suffix}:predict",
            endpoints.v1_predict,
            methods=["POST"],
            responses=openapi.answers(openapi.V1_ANSWER, *_POST_ERRORS),
            openapi_extra=_extra(suffix, openapi.json_body(openapi.V1_REQUEST)),
            tags=["V1"],
        )
    for suffix in ("", "/versions/{version}", "/labels/{label}"):
        app.add_api_route(
            f"{model}{suffix}",
            endpoints.v1_status,
            responses=openapi.answers(openapi.V1_STATUS, *_GET_ERRORS),
            openapi_extra=_extra(suffix),
            tags=["V1"],
        )
        app.add_api_route(
            f"{model}{suffix}/metadata",
            endpoints.v1_metadata,
            responses=openapi.answers(openapi.V1_METADATA, *_GET_ERRORS),
            openapi_extra=_extra(suffix),
            tags=["V1"],
        )


def _add_v2_routes(app: FastAPI, model: str, endpoints: _Endpoints) -> None:
    ready = openapi.an_object(name={"type": "string"}, ready={"type": "boolean"})
    for suffix in ("", "/versions/{version}"):
        app.add_api_route(
            f"{model}{suffix}/infer",
            endpoints.v2_infer,
            methods=["POST"],
            responses=openapi.answers(openapi.V2_ANSWER, *_POST_ERRORS),
            openapi_extra=_extra(suffix, openapi.json_body(openapi.V2_REQUEST)),
            tags=["V2"],
        )
        app.add_api_route(
            f"{model}{suffix}",
            endpoints.v2_model,
            responses=openapi.answers(openapi.V2_METADATA, *_GET_ERRORS),
            openapi_extra=_extra(suffix),
            tags=["V2"],
        )
        app.add_api_route(
            f"{model}{suffix}/ready",
            endpoints.model_ready,
            responses=openapi.answers(ready, *_GET_ERRORS, 503),
            openapi_extra=_extra(suffix),
            tags=["V2"],
        )
    anything = {"type": "object"}
    app.add_api_route("/v2", endpoints.v2_server, responses=openapi.answers(anything, 401), tags=["V2"])
    app.add_api_route("/v2/health/live", endpoints.live, responses=openapi.answers(anything), tags=["V2"])
    app.add_api_route("/v2/health/ready", endpoints.ready, responses=openapi.answers(anything, 503), tags=["V2"])


def _add_other_routes(app: FastAPI, endpoints: _Endpoints) -> None:
    app.add_api_route(
        "/predict",
        endpoints.predict,
        methods=["POST"],
        responses=openapi.answers(openapi.PLAIN_ANSWER, *_POST_ERRORS),
        openapi_extra=openapi.image_body() | {"parameters": [_TOP]},
    )
    for path in ("/v1/models", "/v2/models"):
        app.add_api_route(
            path,
            endpoints.models,
            responses=openapi.answers(openapi.an_object(models={"type": "array"}), 401),
            operation_id=f"models{path.replace('/', '_')}",
        )
    app.add_api_route("/", endpoints.page, include_in_schema=False)
    app.add_api_route("/metrics", endpoints.metrics, include_in_schema=False)


def _extra(suffix: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns what the document says of an operation: its body, and the parameter in its path."""
    described = {
        "version": {"type": "string", "pattern": "^[0-9]+$"},
        "label": {"type": "string", "enum": [STABLE, CANARY]},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in described.items()
        if f"{{{name}}}" in suffix
    ]
    return {**(body or {}), **({"parameters": parameters} if parameters else {})}


def _top(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= _MOST_CLASSES:
        return int(text)
    raise ServingError(f"top must be a number from 1 to {_MOST_CLASSES}")


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


async def _answer_serving_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - FastAPI passes it
    status = error.status if isinstance(error, ServingError) else 500
    headers = {"retry-after": "1"} if status in (429, 503) else None
    return Response(orjson.dumps({"error": str(error)}), status, headers, "application/json")


async def _answer_http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    reason = {404: "nothing is served here: GET /v1/models names the model, GET /openapi.json all addresses"}
    content = orjson.dumps({"error": reason.get(status, "the method is not allowed here")})
    return Response(content, status, dict(headers or {}), "application/json")


async def _answer_nobody(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Returns an answer that is not sent any more, but counted and logged."""
    return Response(status_code=request.scope.get(REFUSED_WITH, _CLIENT_WENT_AWAY))


async def _answer_bug(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the guard logs it
    return Response(b'{"error":"internal error: the server\'s log has it"}', 500, None, "application/json")
