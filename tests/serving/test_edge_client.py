"""The client, against the real server and against servers that misbehave."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_images import encode, photo
from edge_servers import MODEL_NAME, RunningServer
from PIL import Image

from serving.bundle import load_bundle
from serving.client import PredictClient
from serving.errors import ServingError
from serving.predictor import Predictor

ANSWER = json.dumps({"predictions": [{"label": "cat", "probabilities": [0.75, 0.25]}]}).encode()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo(np.random.default_rng(1), 40, 60), "JPEG"))
    return path


@contextmanager
def _answering(
    reply: Callable[[int], tuple[Any, ...]], asked: list[bytes] | None = None
) -> Iterator[tuple[str, list[int]]]:
    """Runs an HTTP server whose n-th answer is reply(n), a status, a body and perhaps headers.

    Yields its address and the list of answers given; the bodies of the requests are added to `asked`.
    """
    given: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = self.rfile.read(int(self.headers["content-length"]))
            if asked is not None:
                asked.append(question)
            status, body, *headers = reply(len(given))
            given.append(status)
            self.send_response(status)
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Keeps the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", given
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _assert_refused(client: PredictClient, image_file: Path, words: str) -> None:
    with pytest.raises(ServingError) as caught:
        client.predict_files([image_file])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_round_trip(server: RunningServer, uint8_bundle: Path, image_file: Path) -> None:
    predictor = Predictor(load_bundle(uint8_bundle))
    expected = predictor.predict_images([image_file.read_bytes()])
    with PredictClient(server.url, MODEL_NAME) as client:
        answers = client.predict_files([image_file, image_file])
    assert len(answers) == 2
    assert answers[0].label == predictor.top(expected)[0][0].label
    np.testing.assert_array_equal([answer.probabilities for answer in answers], np.repeat(expected, 2, axis=0))


def test_a_refused_image_is_named(server: RunningServer, image_file: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.jpg"
    junk.write_bytes(b"junk")
    with PredictClient(server.url, MODEL_NAME) as client, pytest.raises(ServingError) as caught:
        client.predict_files([image_file, junk])
    assert str(caught.value).startswith(f"{junk}: ")
    assert "400: instance 0: not an image" in str(caught.value)


def test_an_unknown_model_is_explained(server: RunningServer, image_file: Path) -> None:
    with (
        PredictClient(server.url, "other") as client,
        pytest.raises(ServingError, match=r"404: nothing is served here"),
    ):
        client.predict_files([image_file])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with PredictClient("http://127.0.0.1:1") as client, pytest.raises(ServingError, match=r"none\.jpg: cannot be read"):
        client.predict_files([tmp_path / "none.jpg"])


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:8080", "http://[broken"])
def test_no_server_is_explained(image_file: Path, url: str) -> None:
    with PredictClient(url, attempts=2) as client, pytest.raises(ServingError, match=r"no answer: .*is the server up"):
        client.predict_files([image_file])


def test_a_busy_server_is_asked_again(image_file: Path) -> None:
    with (
        _answering(lambda turn: (503, b"") if turn < 2 else (200, ANSWER)) as (url, given),
        PredictClient(url) as client,
    ):
        (answer,) = client.predict_files([image_file])
    assert given == [503, 503, 200]
    assert (answer.label, answer.probabilities) == ("cat", (0.75, 0.25))


def test_a_server_says_when_to_come_again(image_file: Path) -> None:
    def reply(turn: int) -> tuple[int, bytes, dict[str, str]]:
        return (429, b"", {"retry-after": "1"}) if turn < 1 else (200, ANSWER, {})

    with _answering(reply) as (url, given), PredictClient(url) as client:
        started = time.monotonic()
        client.predict_files([image_file])
    assert given == [429, 200]
    assert time.monotonic() - started >= 1


def test_a_server_that_stays_busy_is_given_up(image_file: Path) -> None:
    with _answering(lambda _: (503, b"")) as (url, given), PredictClient(url, attempts=2) as client:
        _assert_refused(client, image_file, "answered 503: Service Unavailable")
    assert given == [503, 503]


def test_a_refusal_is_not_repeated(image_file: Path) -> None:
    with _answering(lambda _: (400, b'{"error": "two\\nlines"}')) as (url, given), PredictClient(url) as client:
        _assert_refused(client, image_file, "answered 400: two lines")
    assert given == [400]


@pytest.mark.parametrize("image_format", ["TIFF", "AVIF", "JPEG2000", "PPM", "WEBP", "BMP", "GIF"])
def test_a_format_that_the_server_does_not_know_is_sent_as_png(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "photo"
    path.write_bytes(encode(photo(np.random.default_rng(1), 40, 60), image_format))
    asked: list[bytes] = []
    with (
        _answering(lambda turn: (200, ANSWER) if turn else (400, b'{"error": "unknown format"}'), asked) as (
            url,
            given,
        ),
        PredictClient(url) as client,
    ):
        (answer,) = client.predict_files([path])
    assert given == [400, 200]
    assert answer.label == "cat"
    first, second = (base64.b64decode(json.loads(body)["instances"][0]["b64"]) for body in asked)
    assert first == path.read_bytes()
    with Image.open(io.BytesIO(second), formats=["PNG"]) as sent, Image.open(path) as original:
        np.testing.assert_array_equal(np.asarray(sent), np.asarray(original.convert("RGB")))


def test_a_format_that_is_refused_as_png_too_is_not_sent_a_third_time(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(encode(Image.new("RGB", (8, 8)), "TIFF"))
    with _answering(lambda turn: (400, b'{"error": "no %d"}' % turn)) as (url, given), PredictClient(url) as client:
        _assert_refused(client, path, "answered 400: no 1")
    assert given == [400, 400]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"predictions": []}', b'{"predictions": [[1, 2]]}'])
def test_another_kind_of_server_is_explained(image_file: Path, body: bytes) -> None:
    with _answering(lambda _: (200, body)) as (url, _), PredictClient(url) as client:
        _assert_refused(client, image_file, "the answer is not one prediction")
