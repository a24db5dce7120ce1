"""A client of the server here; `predict_files` speaks V1, and so works with TensorFlow Serving and KServe too."""

import base64
import io
import ssl
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from serving.errors import ServingError
from serving.preprocessing import decode_image

# How files begin that TensorFlow decodes as Pillow does, whatever is in them: JPEG and PNG.
_DECODED_EVERYWHERE = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_REFUSED = 400
_RETRIED_STATUSES = frozenset({429, 502, 503, 504})
_BACKOFF = wait_exponential_jitter(initial=0.1, max=2.0, jitter=0.1)
# A server that asks for a longer wait than this is not waited for so long.
_LONGEST_WAIT_S = 10.0


class Prediction(BaseModel):
    """The answer for one image.

    Attributes:
        label: The most probable class.
        probabilities: Of every class, in the order of the model's labels.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    probabilities: tuple[float, ...]


class ScoredClass(BaseModel):
    """A class and its probability."""

    model_config = ConfigDict(frozen=True)

    label: str
    probability: float


class _Answer(BaseModel):
    predictions: tuple[Prediction, ...]


class _PlainAnswer(BaseModel):
    classes: tuple[ScoredClass, ...]


_Kind = TypeVar("_Kind", bound=BaseModel)


class PredictClient:
    """Sends image files to a server. Use it in a `with` statement, which keeps one connection open."""

    def __init__(
        self,
        url: str,
        name: str = "trimline",
        timeout_s: float = 10.0,
        attempts: int = 3,
        api_key: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """Makes the client; connects later.

        Args:
            url: Address of the server, such as `http://127.0.0.1:8080`.
            name: Name of the model.
            timeout_s: Longest wait for a connection, and for each part of an answer, in seconds.
            attempts: How often a request is sent while the server is out of reach or busy, with growing pauses or
                those of its Retry-After. A prediction changes nothing, so sending it again does no harm.
            api_key: Key that the server asks for.
            ca_file: PEM file with the certificate authority of the server; unset: those of the machine.

        Raises:
            ServingError: The certificate authority cannot be read.
        """
        self._url = url.rstrip("/")
        self._address = f"{self._url}/v1/models/{name}:predict"
        try:
            verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
        except OSError as error:
            raise ServingError(f"{ca_file}: not a certificate authority: {error.strerror or error}") from error
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(timeout=timeout_s, headers=headers, verify=verify)
        self._retrying = Retrying(
            retry=retry_if_exception(_is_transient), stop=stop_after_attempt(attempts), wait=_pause, reraise=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def predict_files(self, paths: Iterable[Path]) -> list[Prediction]:
        """Classifies image files, one request for each.

        TensorFlow Serving refuses formats that it cannot decode. Files of those are sent again, as PNG.

        Args:
            paths: The files.

        Returns:
            One prediction per file, in their order.

        Raises:
            ServingError: A file cannot be read, the server cannot be reached or refuses the image.
        """
        return [self._predict_file(path) for path in paths]

    def top_classes(self, path: Path, top: int = 5) -> tuple[ScoredClass, ...]:
        """Classifies an image file by the plain protocol, which only the server here speaks.

        Args:
            path: The file.
            top: How many classes to name.

        Returns:
            The most probable classes, the most probable one first.

        Raises:
            ServingError: The file cannot be read, the server cannot be reached or refuses the image.
        """
        address = f"{self._url}/predict?top={top}"
        return self._ask(path, address, _PlainAnswer, content=_read(path)).classes

    def _predict_file(self, path: Path) -> Prediction:
        content = _read(path)
        try:
            return self._predict(path, content)
        except ServingError as error:
            png = _to_png(content) if _is_refusal(error) else None
            if png is None:
                raise
        return self._predict(path, png)

    def _predict(self, path: Path, content: bytes) -> Prediction:
        body = {"instances": [{"b64": base64.b64encode(content).decode()}]}
        answer = self._ask(path, self._address, _Answer, json=body)
        if len(answer.predictions) != 1:
            raise _not_a_classifier(self._address)
        return answer.predictions[0]

    def _ask(self, path: Path, address: str, kind: type[_Kind], **body: Any) -> _Kind:
        try:
            response = self._retrying(self._post, address, **body)
            return kind.model_validate_json(response.content)
        except httpx.HTTPStatusError as error:
            raise ServingError(f"{path}: {address} answered {_explain(error.response)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServingError(f"{address}: no answer: {error or type(error).__name__}: is the server up?") from error
        except ValueError as error:
            raise _not_a_classifier(address) from error

    def _post(self, address: str, **body: Any) -> httpx.Response:
        return self._http.post(address, **body).raise_for_status()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServingError(f"{path}: cannot be read: {error.strerror}") from error


def _is_refusal(error: ServingError) -> bool:
    cause = error.__cause__
    return isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == _REFUSED


def _to_png(content: bytes) -> bytes | None:
    """Returns the picture of a file as a PNG; None where that would change nothing, or the file is no picture."""
    if content.startswith(_DECODED_EVERYWHERE):
        return None
    try:
        image = decode_image(content)
    except ServingError:
        return None
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _not_a_classifier(address: str) -> ServingError:
    return ServingError(f"{address}: the answer is not one prediction: is it a classifier's address?")


def _pause(state: RetryCallState) -> float:
    """Returns the seconds before the next attempt: what the server asks for, or ever more."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.response.headers.get("retry-after", "") if isinstance(error, httpx.HTTPStatusError) else ""
    # An HTTP date, the other form of the header, is left to the growing pauses.
    return min(max(_BACKOFF(state), float(asked) if asked.isdigit() else 0.0), _LONGEST_WAIT_S)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _RETRIED_STATUSES
    return isinstance(error, httpx.TransportError)


def _explain(response: httpx.Response) -> str:
    try:
        reason = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        reason = response.reason_phrase
    return f"{response.status_code}: {' '.join(str(reason).split())}"
