"""`trimline serve` and `trimline predict --url`, as users call them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from edge_servers import free_port

from serving.predictor import Predictor

pytestmark = pytest.mark.component  # Starts processes for each test.

TRIMLINE = Path(sys.executable).with_name("trimline")


def _trimline(*arguments: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", **({"PATH": str(path)} if path else {})}
    command = [TRIMLINE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.fixture(scope="module")
def served(
    uint8_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of `trimline serve OUT`, and its process."""
    port = free_port()
    log = tmp_path_factory.mktemp("served") / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [TRIMLINE, "serve", uint8_bundle.parents[2], "--port", str(port)], stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while f"at {url}/" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.3)
    yield url, process
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


def test_predict_asks_a_server(
    served: tuple[str, subprocess.Popen[bytes]], tmp_path: Path, files: list[bytes], predictor: Predictor
) -> None:
    url, _ = served
    (tmp_path / "good.jpg").write_bytes(files[0])
    (tmp_path / "bad.jpg").write_text("no image")
    done = _trimline("predict", tmp_path / "good.jpg", "--url", url, "--top", "2")
    (expected,) = predictor.top(predictor.predict_images(files[:1]), 2)
    named = "\t".join(f"{label}\t{probability:.4f}" for label, probability in expected)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'good.jpg'}\t{named}\n")
    mixed = _trimline("predict", tmp_path / "bad.jpg", tmp_path / "good.jpg", "--url", url, "--json")
    assert mixed.returncode == 2
    assert mixed.stdout.count("\n") == 1
    assert "answered 400: not an image of a known format" in mixed.stderr


def test_the_name_of_the_model_is_a_setting(served: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, _ = served
    assert httpx.get(f"{url}/v1/models", trust_env=False).json() == {"models": ["trimline"]}


def test_predict_without_a_server_is_one_line(tmp_path: Path, files: list[bytes]) -> None:
    (tmp_path / "good.jpg").write_bytes(files[0])
    done = _trimline("predict", tmp_path / "good.jpg", "--url", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is the server up?" in done.stderr


@pytest.fixture
def saved_model(tmp_path: Path) -> Path:
    version = tmp_path / "out" / "pushed" / "saved_model" / "7"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    return tmp_path / "out"


def test_a_saved_model_without_tensorflow_serving_is_explained(saved_model: Path, tmp_path: Path) -> None:
    done = _trimline("serve", saved_model, "--saved-model", path=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "install TensorFlow Serving, or run its image: docker run -p 127.0.0.1:8080:8501" in done.stderr
    nothing = _trimline("serve", tmp_path, "--saved-model", path=tmp_path)
    assert "no pushed SavedModel in it" in nothing.stderr


def test_a_saved_model_goes_to_tensorflow_serving(saved_model: Path, tmp_path: Path) -> None:
    # TensorFlow Serving is no Python package; what it is called with is all that is ours.
    program = tmp_path / "tensorflow_model_server"
    program.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    program.chmod(0o755)
    everywhere = ("serve", saved_model, "--saved-model", "--port", "9000")
    refused = _trimline(*everywhere, path=tmp_path)
    assert refused.returncode == 2
    assert "cannot listen on 127.0.0.1 alone" in refused.stderr
    done = _trimline(*everywhere, "--host", "0.0.0.0", path=tmp_path)  # noqa: S104
    assert done.returncode == 0
    base = saved_model.resolve() / "pushed" / "saved_model"
    expected = ["--rest_api_port=9000", "--port=0", "--model_name=trimline", f"--model_base_path={base}"]
    assert done.stdout.splitlines() == expected
