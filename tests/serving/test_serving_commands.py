"""`trimline serve` and `trimline predict --url`, as users call them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from edge_servers import free_port, run_server

from serving.predictor import Predictor

pytestmark = pytest.mark.component  # Starts processes for each test.

TRIMLINE = Path(sys.executable).with_name("trimline")


def _trimline(*arguments: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", **({"PATH": str(path)} if path else {})}
    command = [TRIMLINE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


@contextmanager
def _serving(out: Path, log: Path, host: str, host_in_url: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Runs `trimline serve OUT`; yields its address as its log has it, and its process."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [TRIMLINE, "serve", out, "--host", host, "--port", str(port)], stdout=output, stderr=output
        )
    url = f"http://{host_in_url}:{port}"
    deadline = time.monotonic() + 60
    while f"at {url}/" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.3)
    yield url, process
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def served(
    uint8_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of `trimline serve OUT`, and its process."""
    log = tmp_path_factory.mktemp("served") / "log.txt"
    with _serving(uint8_bundle.parents[2], log, "127.0.0.1", "127.0.0.1") as running:
        yield running


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here")
def test_the_address_of_a_server_on_ipv6_is_a_url(uint8_bundle: Path, tmp_path: Path) -> None:
    with _serving(uint8_bundle.parents[2], tmp_path / "log.txt", "::1", "[::1]") as (url, _):
        assert httpx.get(f"{url}/v2/health/ready", trust_env=False).status_code == 200


def test_predict_names_files_whose_names_are_no_utf8(uint8_bundle: Path, tmp_path: Path, files: list[bytes]) -> None:
    odd = tmp_path / os.fsdecode(b"latin-\xe9.jpg")
    for path in (odd, tmp_path / "plain.jpg"):
        path.write_bytes(files[0])
    out = uint8_bundle.parents[2]
    done = _trimline("predict", odd, tmp_path / "plain.jpg", "--output", out)
    assert done.returncode == 0, done.stderr
    names = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert names == [f"{tmp_path}/latin-\\xe9.jpg", f"{tmp_path}/plain.jpg"]
    odd.write_bytes(b"no image")
    refused = _trimline("predict", odd, "--output", out)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{tmp_path}/latin-\\xe9.jpg: " in refused.stderr


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


def test_the_newline_at_the_end_of_a_key_is_no_part_of_it(
    uint8_bundle: Path, tmp_path: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.jpg").write_bytes(files[0])
    # As in a Secret that was made from a file.
    monkeypatch.setenv("TRIMLINE_API_KEY", "of-the-test\n")
    with run_server(uint8_bundle, tmp_path / "log.txt") as running:
        for key, status in (("another", 401), ("of-the-test", 200)):
            answer = httpx.get(f"{running.url}/metrics", headers={"x-api-key": key}, trust_env=False)
            assert answer.status_code == status
        done = _trimline("predict", tmp_path / "good.jpg", "--url", running.url)
    assert done.returncode == 0, done.stderr


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


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with a program that tells what it is called with; TensorFlow Serving is no Python package."""
    program = tmp_path / "tensorflow_model_server"
    program.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    program.chmod(0o755)
    return tmp_path


def test_a_saved_model_goes_to_tensorflow_serving(saved_model: Path, program: Path) -> None:
    everywhere = ("serve", saved_model, "--saved-model", "--port", "9000")
    refused = _trimline(*everywhere, path=program)
    assert refused.returncode == 2
    assert "cannot listen on 127.0.0.1 alone" in refused.stderr
    times = ("--set", "serving.timeout_s=2.5", "--set", "serving.reload_s=0.2")
    done = _trimline(*everywhere, "--host", "0.0.0.0", *times, path=program)  # noqa: S104
    assert done.returncode == 0
    base = saved_model.resolve() / "pushed" / "saved_model"
    assert done.stdout.splitlines() == [
        "--rest_api_port=9000",
        "--port=0",
        "--model_name=trimline",
        f"--model_base_path={base}",
        "--rest_api_timeout_in_ms=2500",
        "--file_system_poll_wait_seconds=1",
    ]


@pytest.mark.parametrize(
    "asked",
    [
        ("serving.api_key_file=key.txt",),
        ("serving.tls_cert=cert.pem", "serving.tls_key=key.pem"),
        ("serving.tls_cert=cert.pem", "serving.tls_key=key.pem", "serving.grpc_port=8500"),
        ("serving.version=7",),
        ("serving.version=7", "serving.canary_share=0.1"),
        ("serving.max_pixels=1000000",),
    ],
)
def test_tensorflow_serving_is_not_asked_for_what_it_cannot_do(
    saved_model: Path, program: Path, asked: tuple[str, ...]
) -> None:
    settings = [word for each in asked for word in ("--set", each)]
    done = _trimline("serve", saved_model, "--saved-model", "--host", "0.0.0.0", *settings, path=program)  # noqa: S104
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    for each in asked:
        assert each.partition("=")[0] in done.stderr


def test_tensorflow_serving_is_not_started_without_the_key_of_the_environment(
    saved_model: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMLINE_API_KEY", "secret-of-the-test")
    done = _trimline("serve", saved_model, "--saved-model", "--host", "0.0.0.0", path=program)  # noqa: S104
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "$TRIMLINE_API_KEY" in done.stderr
    assert "secret-of-the-test" not in done.stderr


@pytest.mark.parametrize("key", ["", "\n"])
@pytest.mark.parametrize("options", [(), ("--saved-model", "--host", "0.0.0.0")])  # noqa: S104
def test_no_server_starts_with_an_empty_key(
    saved_model: Path, program: Path, monkeypatch: pytest.MonkeyPatch, key: str, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TRIMLINE_API_KEY", key)
    done = _trimline("serve", saved_model, *options, path=program)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "trimline: $TRIMLINE_API_KEY: is empty: write the API key into it\n"
