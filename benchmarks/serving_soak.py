"""What the server does over many requests: hot swaps, memory, a killed worker, and overload, as a table.

python -m benchmarks.serving_soak OUT [--requests NUMBER] [--swaps NUMBER] [--seconds SECONDS] [--photo WIDTHxHEIGHT]

OUT is a run's output folder. Its model is pushed again and again into a folder of its own, each time with other labels,
while 16 clients ask 2 workers; every answer must be, byte for byte, the one of the version that it names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.http_load import Load, http_request, run_load
from benchmarks.server_process import NAME, SERVE, free_port, server_process
from benchmarks.serving import measured_inputs
from serving.bundle import find_bundle, load_bundle
from serving.options import ServerOptions
from serving.predictor import Predictor

_IMAGES = 16
_CLIENTS = 16
_WORKERS = 2
# What a worker logs when it serves.
_STARTED = " at http://127.0.0.1:"


class _Checker:
    """Compares answers with what the versions must answer."""

    def __init__(self, predictor: Predictor, pixels: np.ndarray) -> None:
        self._probabilities = predictor.predict(pixels).tolist()
        self._labels = predictor.labels
        self._good: set[bytes] = set()
        self.wrong = 0
        self.count = 0
        self.versions: set[str] = set()

    def __call__(self, body: bytes) -> None:
        """Counts an answer, and whether it is wrong."""
        self.count += 1
        if body in self._good:
            return
        answer = json.loads(body)
        version, index = answer["model_version"], int(answer["id"])
        label, probabilities = answer["outputs"]
        expected = self._probabilities[index]
        named = f"{self._labels[int(np.argmax(expected))]}@{version}"
        if label["data"] == [named] and probabilities["data"] == expected:
            self._good.add(body)
            self.versions.add(version)
        else:
            self.wrong += 1


def main() -> None:
    """Runs all parts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="Length of each measurement of overload.")
    parser.add_argument("--photo", default="1600x1200", help="What is asked for in the overload; without noise.")
    arguments = parser.parse_args()
    bundle = find_bundle(arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "versions"
        _push(bundle, base, 1)
        options = ServerOptions(port=free_port(), name=NAME, workers=_WORKERS, reload_s=0.5)
        program = [SERVE, str(base), options.model_dump_json()]
        with server_process(program, options.port, Path(folder) / "log.txt") as process:
            lines = _soak(arguments, bundle, base, options.port, process.pid)
            lines += _kill(process.pid, Path(folder) / "log.txt")
            width, height = (int(side) for side in arguments.photo.split("x"))
            photo = measured_inputs(width, height, load_bundle(bundle).image_size, noise=0).b64
            lines += _overload(arguments.seconds, photo, options.port)
    sys.stdout.write("| Measured | Figure |\n| --- | --- |\n")
    sys.stdout.writelines(f"| {name} | {figure} |\n" for name, figure in lines)


def _soak(arguments: argparse.Namespace, bundle: Path, base: Path, port: int, parent: int) -> list[tuple[str, str]]:
    predictor = Predictor(load_bundle(bundle))
    size = predictor.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (_IMAGES, size, size, 3), dtype=np.uint8)
    requests = [_tensor_request(index, image) for index, image in enumerate(pixels)]
    checker = _Checker(predictor, pixels)
    load = run_load(port, requests, _CLIENTS, 2.0, check=checker)
    while checker.count < 1000:
        load = run_load(port, requests, _CLIENTS, 2.0, check=checker)
    memory = [_memory_mb(parent)]
    per_swap = arguments.requests // arguments.swaps
    total = Load()
    for number in range(2, arguments.swaps + 2):
        # In the middle of what the version before has to answer.
        timer = threading.Timer(per_swap / load.rate / 2, _push, (bundle, base, number))
        timer.start()
        before = checker.count
        while checker.count - before < per_swap:
            load = run_load(port, requests, _CLIENTS, per_swap / load.rate / 2, check=checker)
            total.lost += load.lost
            for status, count in load.statuses.items():
                total.statuses[status] = total.statuses.get(status, 0) + count
        timer.join()
        memory.append(_memory_mb(parent))
    others = {status: count for status, count in total.statuses.items() if status != 200}
    return [
        ("Answers of status 200", f"{total.statuses[200]:,}"),
        ("Answers of another status", str(others or 0)),
        ("Wrong answers", str(checker.wrong)),
        ("Lost requests", str(total.lost)),
        ("Versions seen", f"{len(checker.versions)} of {arguments.swaps + 1}"),
        ("Memory of both workers after 1,000 requests, in MB", f"{memory[0]:.0f}"),
        ("The same after each swap", ", ".join(f"{size:.0f}" for size in memory[1:])),
    ]


def _kill(parent: int, log: Path) -> list[tuple[str, str]]:
    starts = log.read_text().count(_STARTED)
    os.kill(psutil.Process(parent).children()[0].pid, signal.SIGKILL)
    killed = time.monotonic()
    while log.read_text().count(_STARTED) == starts:
        time.sleep(0.01)
    return [("A worker killed with -9 serves again after", f"{time.monotonic() - killed:.2f} s")]


def _overload(seconds: float, photo: bytes, port: int) -> list[tuple[str, str]]:
    full = run_load(port, [photo], _CLIENTS, seconds)
    # Many, because those that wait for an answer do not ask.
    clients = 15 * _CLIENTS
    over = run_load(port, [photo], clients, seconds, period_s=clients / (5 * full.rate))
    asked = sum(over.statuses.values())
    return [
        ("Capacity: 16 clients", f"{full.rate:,.0f}/s, p99 {full.quantile(0.99) * 1000:.1f} ms"),
        (
            "Overload: asked",
            f"{asked / over.seconds:,.0f}/s, {asked / over.seconds / full.rate:.1f} times as many",
        ),
        ("Overload: answered 200", f"{over.rate:,.0f}/s, p99 {over.quantile(0.99) * 1000:.1f} ms"),
        ("Overload: answered 429", f"{over.statuses.get(429, 0) / over.seconds:,.0f}/s"),
        ("Overload: answered otherwise", str({s: n for s, n in over.statuses.items() if s not in (200, 429)} or 0)),
        ("p99 of the accepted against that at capacity", f"{over.quantile(0.99) / full.quantile(0.99):.2f}"),
    ]


def _push(bundle: Path, base: Path, number: int) -> None:
    """Pushes a version whose labels tell its number, as the pusher does: whole, by a rename."""
    staged = base / f".staging-{number}"
    shutil.copytree(bundle, staged)
    manifest = json.loads((staged / "model.json").read_text(encoding="utf-8"))
    manifest["labels"] = [f"{label}@{number}" for label in manifest["labels"]]
    labels = "".join(f"{label}\n" for label in manifest["labels"]).encode()
    (staged / "labels.txt").write_bytes(labels)
    manifest["sha256"]["labels.txt"] = hashlib.sha256(labels).hexdigest()
    (staged / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    staged.rename(base / str(number))


def _tensor_request(index: int, image: np.ndarray) -> bytes:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, *image.shape]}
    header = {"id": str(index), "inputs": [tensor | {"parameters": {"binary_data_size": image.size}}]}
    encoded = json.dumps(header).encode()
    return http_request(
        f"/v2/models/{NAME}/infer",
        encoded + image.tobytes(),
        content_type="application/octet-stream",
        inference_header_content_length=str(len(encoded)),
    )


def _memory_mb(parent: int) -> float:
    """Returns the resident memory of all workers together, without what they share with others, in MB."""
    return sum(worker.memory_full_info().uss for worker in psutil.Process(parent).children()) / 1e6


if __name__ == "__main__":
    main()
