"""A client for the V1 protocol, as spoken by the server here, by TensorFlow Serving and by KServe."""

import base64
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from pydantic import BaseModel, ConfigDict
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from serving.errors import ServingError

_RETRIED_STATUSES = frozenset({429, 502, 503, 504})


class Prediction(BaseModel):
    """The answer for one image.

    Attributes:
        label: The most probable class.
        probabilities: Of every class, in the order of the model's labels.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    probabilities: tuple[float, ...]


class _Answer(BaseModel):
    predictions: tuple[Prediction, ...]


class PredictClient:
    """Sends image files to a server. Use it in a `with` statement, which keeps one connection open."""

    def __init__(self, url: str, name: str = "trimline", timeout_s: float = 10.0, attempts: int = 3) -> None:
        """Makes the client; connects later.

        Args:
            url: Address of the server, such as `http://127.0.0.1:8080`.
            name: Name of the model.
            timeout_s: Longest wait for a connection, and for each part of an answer, in seconds.
            attempts: How often a request is sent while the server is out of reach or busy. A prediction changes
                nothing, so sending it again does no harm.
        """
        self._address = f"{url.rstrip('/')}/v1/models/{name}:predict"
        self._http = httpx.Client(timeout=timeout_s)
        self._retrying = Retrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(attempts),
            wait=wait_exponential_jitter(initial=0.1, max=2.0, jitter=0.1),
            reraise=True,
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

        Args:
            paths: The files.

        Returns:
            One prediction per file, in their order.

        Raises:
            ServingError: A file cannot be read, the server cannot be reached or refuses the image.
        """
        return [self._predict_file(path) for path in paths]

    def _predict_file(self, path: Path) -> Prediction:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ServingError(f"{path}: cannot be read: {error.strerror}") from error
        body = {"instances": [{"b64": base64.b64encode(content).decode()}]}
        try:
            response = self._retrying(self._post, body)
            (prediction,) = _Answer.model_validate_json(response.content).predictions
        except httpx.HTTPStatusError as error:
            raise ServingError(f"{path}: {self._address} answered {_explain(error.response)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServingError(
                f"{self._address}: no answer: {error or type(error).__name__}: is the server up?"
            ) from error
        except ValueError as error:
            raise ServingError(
                f"{self._address}: the answer is not one prediction: is it a classifier's address?"
            ) from error
        return prediction

    def _post(self, body: dict[str, object]) -> httpx.Response:
        return self._http.post(self._address, json=body).raise_for_status()


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
