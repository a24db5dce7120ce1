"""New versions while the server runs: none of the requests lost, broken ones refused, pins and canaries kept."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from edge_bundles import IMAGE_SIZE, LABELS, change_manifest, write_bundle
from edge_servers import MODEL_NAME, RunningServer, run_server

from serving.errors import ServingError
from serving.options import ServerOptions
from serving.versions import ServedVersions

STATUS = f"/v1/models/{MODEL_NAME}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "out" / "pushed" / "tflite"


@pytest.fixture
def push(base: Path, tflite_models: dict[str, bytes]) -> Callable[[int], Path]:
    """Pushes a version as the pusher does: whole, by a rename."""

    def push_version(number: int, kind: str = "uint8") -> Path:
        staged = write_bundle(
            base / f".staging-{number}", tflite_models[kind], [f"{label}{number}" for label in LABELS]
        )
        return staged.rename(base / str(number))

    return push_version


def _version(running: RunningServer, image: bytes) -> str:
    answer = httpx.post(f"{running.url}/predict", content=image, trust_env=False)
    assert answer.status_code == 200, answer.text
    version = answer.json()["model"]["version"]
    # The answer is all of one version.
    assert answer.json()["label"] in [f"{label}{version}" for label in LABELS]
    return version


def _states(running: RunningServer) -> dict[str, str]:
    status = httpx.get(running.url + STATUS, trust_env=False).json()["model_version_status"]
    return {version["version"]: version["state"] for version in status}


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for 10 seconds in vain"
        time.sleep(0.05)


@pytest.mark.component  # Starts a server of its own.
def test_a_new_version_is_served_without_a_lost_request(
    base: Path, push: Callable[[int], Path], tmp_path: Path, files: list[bytes]
) -> None:
    push(1)
    seen: list[str] = []
    failures: list[Exception] = []
    with run_server(base.parents[1], tmp_path / "log.txt", reload_s=0.1) as running:
        done = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=running.url, timeout=30, trust_env=False) as client:
                while not done.is_set():
                    try:
                        answer = client.post("/predict", content=files[0])
                        version = answer.json()["model"]["version"]
                        assert answer.json()["label"] in [f"{label}{version}" for label in LABELS]
                        seen.append(version)
                    except Exception as error:
                        failures.append(error)

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        for number in (2, 3, 4):
            _wait_for(lambda: len(seen) > 20)
            push(number)
            _wait_for(lambda number=number: str(number) in seen)
        done.set()
        for client in clients:
            client.join()
        assert _states(running) == {"4": "AVAILABLE"}
    assert failures == []
    assert set(seen) == {"1", "2", "3", "4"}


@pytest.mark.component  # Starts a server of its own.
def test_a_broken_version_is_refused_and_the_old_one_stays(
    base: Path, push: Callable[[int], Path], tmp_path: Path, files: list[bytes]
) -> None:
    push(1)
    with run_server(base, tmp_path / "log.txt", reload_s=0.1) as running:
        (push(2) / "model.tflite").write_bytes(b"damaged after it was pushed")
        _wait_for(lambda: _states(running) == {"1": "AVAILABLE", "2": "END"})
        # Its outputs are no probabilities: nothing but running it can tell.
        change_manifest(push(3, "float32"), lambda manifest: manifest["output"].update(name="other"))
        _wait_for(lambda: _states(running) == {"1": "AVAILABLE", "2": "END", "3": "END"})
        assert _version(running, files[0]) == "1"
        assert httpx.get(f"{running.url}/v2/health/ready", trust_env=False).status_code == 200
        assert "trimline_refused_versions 2.0" in httpx.get(f"{running.url}/metrics", trust_env=False).text
        push(4)
        _wait_for(lambda: _version(running, files[0]) == "4")
    log = running.log.read_text()
    assert log.count("version 2 is refused") == 1
    assert "its sha256 is not the one" in log


@pytest.mark.component  # Starts a server of its own.
def test_a_removed_version_gives_way_to_the_one_before(
    base: Path, push: Callable[[int], Path], tmp_path: Path, files: list[bytes]
) -> None:
    push(1)
    push(2)
    with run_server(base, tmp_path / "log.txt", reload_s=0.1) as running:
        assert _version(running, files[0]) == "2"
        shutil.rmtree(base / "2")
        _wait_for(lambda: _version(running, files[0]) == "1")
        # The last one stays in memory.
        shutil.rmtree(base / "1")
        time.sleep(0.5)
        assert _version(running, files[0]) == "1"


@pytest.mark.component  # Starts a server of its own.
def test_a_pinned_version_stays_and_a_canary_gets_its_share(
    base: Path, push: Callable[[int], Path], tmp_path: Path, files: list[bytes]
) -> None:
    push(1)
    push(2)
    with run_server(base, tmp_path / "log.txt", reload_s=0.1, version=1, canary_share=0.3) as running:
        assert _states(running) == {"1": "AVAILABLE", "2": "AVAILABLE"}
        push(3)
        _wait_for(lambda: _states(running) == {"1": "AVAILABLE", "3": "AVAILABLE"})
        with httpx.Client(base_url=running.url, trust_env=False) as client:
            counts = Counter(client.post("/predict", content=files[0]).json()["model"]["version"] for _ in range(400))
            assert set(counts) == {"1", "3"}
            # Four standard deviations of a binomial distribution of 400 with share 0.3.
            assert abs(counts["3"] - 120) < 37
            body = {"instances": [{"b64": ""}]}
            assert client.get(f"{STATUS}/labels/canary").json()["model_version_status"][0]["version"] == "3"
            assert client.post(f"{STATUS}/labels/canary:predict", json=body).status_code == 400
            assert client.post(f"{STATUS}/versions/2:predict", json=body).status_code == 404


def test_the_newest_version_that_loads_is_served_first(base: Path, push: Callable[[int], Path]) -> None:
    push(1)
    (push(2) / "labels.txt").unlink()
    versions = ServedVersions(base, ServerOptions(), interpreters=1)
    assert versions.stable.number == 1
    assert [(state.number, state.error is None) for state in versions.states()] == [(2, False), (1, True)]


def test_a_pinned_version_must_load(base: Path, push: Callable[[int], Path]) -> None:
    push(1)
    (push(2) / "labels.txt").unlink()
    with pytest.raises(ServingError, match=r"labels\.txt: missing"):
        ServedVersions(base, ServerOptions(version=2), interpreters=1)
    with pytest.raises(ServingError, match="has no version 5"):
        ServedVersions(base, ServerOptions(version=5), interpreters=1)


def test_nothing_that_loads_is_explained(base: Path, push: Callable[[int], Path]) -> None:
    (push(2) / "labels.txt").unlink()
    with pytest.raises(ServingError, match=r"labels\.txt: missing"):
        ServedVersions(base, ServerOptions(), interpreters=1)


def test_answers_that_are_no_probabilities_are_refused(base: Path) -> None:
    import tensorflow as tf
    import tf_keras as keras

    layers = [
        keras.layers.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image"),
        keras.layers.Flatten(),
        keras.layers.Dense(len(LABELS)),
    ]
    logits = tf.lite.TFLiteConverter.from_keras_model(keras.Sequential(layers)).convert()
    write_bundle(base / "1", logits)
    with pytest.raises(ServingError, match="not probabilities"):
        ServedVersions(base, ServerOptions(), interpreters=1)
