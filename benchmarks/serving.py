"""Speed of the server against the bare interpreter, stock KServe and TensorFlow, side by side in one run, as a table.

python -m benchmarks.serving OUT [--seconds SECONDS] [--rounds ROUNDS] [--photo WIDTHxHEIGHT]

OUT is a run's output folder, with an int8 model of 96 pixels for the figures in docs/serving.md. All contestants take
turns in every round, so that a busy machine favours none; each ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.http_load import Load, http_request, run_load
from benchmarks.server_process import NAME, free_port, server, server_process
from serving.bundle import find_bundle, load_bundle
from serving.predictor import Predictor

# What a user of KServe writes for a .tflite: its documentation's model class, around the interpreter.
_STOCK = """
import base64, io, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from PIL import Image

class Stock(Model):
    def load(self):
        self.interpreter = Interpreter(model_path=sys.argv.pop(), num_threads=1)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]
        self.ready = True

    def classify(self, images):
        scale, zero_point = self.output["quantization"]
        answers = []
        for image in images:
            self.interpreter.set_tensor(self.input["index"], image[np.newaxis])
            self.interpreter.invoke()
            answer = self.interpreter.get_tensor(self.output["index"])[0].astype(np.float32)
            answers.append(scale * (answer - zero_point))
        return np.stack(answers)

    def decode(self, instance):
        if not isinstance(instance, dict):
            return np.asarray(instance, dtype=np.uint8)
        image = Image.open(io.BytesIO(base64.b64decode(instance["b64"]))).convert("RGB")
        return np.asarray(image.resize(self.input["shape"][1:3], Image.Resampling.BILINEAR))

    def predict(self, payload, headers=None):
        if isinstance(payload, InferRequest):
            answers = self.classify(payload.inputs[0].as_numpy().astype(np.uint8))
            output = InferOutput("probabilities", list(answers.shape), "FP32", answers)
            return InferResponse("1", self.name, [output])
        return {"predictions": self.classify([self.decode(i) for i in payload["instances"]]).tolist()}

port = int(sys.argv.pop(1))
model = Stock("trimline")
model.load()
ModelServer(http_port=port, enable_grpc=False).start([model])
"""


@dataclass(frozen=True)
class _Inputs:
    """What is sent.

    Attributes:
        photo: A JPEG file.
        pixels: RGB pixels, uint8 [1, S, S, 3].
        b64: V1 request with the photo.
        tensor: V2 request with the pixels, binary.
        rows: V1 request with the pixels as JSON.
    """

    photo: bytes
    pixels: NDArray[np.uint8]
    b64: bytes
    tensor: bytes
    rows: bytes


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="Length of each measurement.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photo", default="500x375")
    arguments = parser.parse_args()
    directory = find_bundle(arguments.out)
    bundle = load_bundle(directory)
    width, height = (int(side) for side in arguments.photo.split("x"))
    inputs = measured_inputs(width, height, bundle.image_size)
    with ExitStack() as servers, tempfile.TemporaryDirectory() as folder:
        ours = servers.enter_context(server(directory, Path(folder) / "ours.log", workers=1))
        two = servers.enter_context(server(directory, Path(folder) / "two.log", workers=2))
        stock = free_port()
        program = [_STOCK, str(stock), str(directory / "model.tflite")]
        servers.enter_context(server_process(program, stock, Path(folder) / "stock.log"))
        call = _tensorflow_call(arguments.out)
        rounds = [
            _measure(arguments.seconds, directory, inputs, (ours, two, stock), call) for _ in range(arguments.rounds)
        ]
    sys.stdout.write(f"Model {bundle.manifest.name}, {bundle.image_size} pixels; photo {width} x {height}, ")
    sys.stdout.write(f"{len(inputs.photo):,} bytes; {os.cpu_count()} cores; {arguments.rounds} rounds.\n\n")
    sys.stdout.write(_table(rounds))


def _measure(
    seconds: float,
    directory: Path,
    inputs: _Inputs,
    ports: tuple[int, int, int],
    call: Callable[[NDArray[np.uint8]], Any],
) -> dict[str, float]:
    ours, two, stock = ports
    predictor = Predictor(load_bundle(directory))
    interpreter = predictor._pool.queue[0]
    many = run_load(two, [inputs.b64], 16, 2 * seconds)
    one = run_load(ours, [inputs.b64], 16, 2 * seconds)
    bare_rate = _bare_rate(directory, inputs.photo, processes=2, seconds=2 * seconds)
    return {
        "invoke": _median_time(interpreter.invoke, seconds),
        "bare": _median_time(lambda: predictor.predict_images([inputs.photo]), seconds),
        "ours b64": _p50(run_load(ours, [inputs.b64], 1, seconds)),
        "ours tensor": _p50(run_load(ours, [inputs.tensor], 1, seconds)),
        "ours rows": _p50(run_load(ours, [inputs.rows], 1, seconds)),
        "stock b64": _p50(run_load(stock, [inputs.b64], 1, seconds)),
        "stock tensor": _p50(run_load(stock, [inputs.tensor], 1, seconds)),
        "stock rows": _p50(run_load(stock, [inputs.rows], 1, seconds)),
        "tensorflow": _median_time(lambda: call(inputs.pixels), seconds),
        "one rate": one.rate,
        "one p50": one.quantile(0.5),
        "one p99": one.quantile(0.99),
        "many rate": many.rate,
        "many p50": many.quantile(0.5),
        "many p99": many.quantile(0.99),
        "bare rate": bare_rate,
    }


def _table(rounds: list[dict[str, float]]) -> str:
    def ratio(over: str, under: str) -> float:
        return statistics.median(figures[over] / figures[under] for figures in rounds)

    def show(name: str) -> str:
        middle = statistics.median(figures[name] for figures in rounds)
        return f"{middle:,.0f}/s" if name.endswith("rate") else f"{middle * 1000:.3f} ms"

    compared = (
        ("Base64 JPEG, 1 client, p50", "ours b64", "decode + invoke", "bare", "at most 2.5"),
        ("Binary tensor, 1 client, p50", "ours tensor", "invoke", "invoke", "at most 4"),
        ("JSON tensor, stock KServe, p50", "stock rows", "ours", "ours rows", "at least 3"),
        ("Binary tensor, stock KServe, p50", "stock tensor", "ours", "ours tensor", ""),
        ("Base64 JPEG, stock KServe, p50", "stock b64", "ours", "ours b64", ""),
        ("Base64 JPEG, 16 clients, 2 workers", "many rate", "decode + invoke, 2 cores", "bare rate", "at least 0.8"),
        ("Base64 JPEG, 16 clients, 2 workers, p99", "many p99", "p50", "many p50", "at most 3"),
        ("Base64 JPEG, 16 clients, 1 worker", "one rate", "decode + invoke, 2 cores", "bare rate", ""),
        ("Base64 JPEG, 16 clients, 1 worker, p99", "one p99", "p50", "one p50", ""),
        ("SavedModel called in TensorFlow", "tensorflow", "ours, binary tensor", "ours tensor", "at least 3"),
    )
    lines = ["| Measured | | Against | | Ratio | Aim |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {measured} | {show(over)} | {against} | {show(under)} | {ratio(over, under):.2f} | {aim} |"
        for measured, over, against, under, aim in compared
    ]
    return "\n".join(lines) + "\n"


def _p50(load: Load) -> float:
    if set(load.statuses) != {200}:
        raise SystemExit(f"answers that are not 200: {load.statuses}")
    return load.quantile(0.5)


def _median_time(call: Callable[[], Any], seconds: float) -> float:
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _bare_rate(directory: Path, photo: bytes, processes: int, seconds: float) -> float:
    """Returns how many photos per second as many processes decode and classify, with nothing around."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        arguments = (directory, photo, seconds)
        pool.starmap(_count_bare, [(directory, photo, 0.2)] * processes, chunksize=1)
        return sum(pool.starmap(_count_bare, [arguments] * processes, chunksize=1)) / seconds


def _count_bare(directory: Path, photo: bytes, seconds: float) -> int:
    predictor = Predictor(load_bundle(directory))
    end = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < end:
        predictor.predict_images([photo])
        count += 1
    return count


def _tensorflow_call(out: Path) -> Callable[[NDArray[np.uint8]], Any]:
    """Returns a call of the pushed SavedModel's `serving_images`, in this process."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    versions = sorted((out / "pushed" / "saved_model").iterdir(), key=lambda path: int(path.name))
    model = tf.saved_model.load(str(versions[-1]))
    signature = model.signatures["serving_images"]
    # The closure keeps the model, whose variables the signature needs.
    return lambda pixels: (model, signature(images=tf.constant(pixels))["probabilities"].numpy())


def measured_inputs(width: int, height: int, image_size: int) -> _Inputs:
    """Returns what is sent: a photo of smooth colours and noise, and pixels of the model's size."""
    rng = np.random.default_rng(0)
    grid = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + rng.normal(scale=8, size=smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    pixels = rng.integers(0, 256, (1, image_size, image_size, 3), dtype=np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape)}
    header = json.dumps({"id": "1", "inputs": [tensor | {"parameters": {"binary_data_size": pixels.size}}]}).encode()
    predict = f"/v1/models/{NAME}:predict"
    as_json = {"content_type": "application/json"}
    photo = base64.b64encode(file.getvalue()).decode()
    return _Inputs(
        photo=file.getvalue(),
        pixels=pixels,
        b64=http_request(predict, json.dumps({"instances": [{"b64": photo}]}).encode(), **as_json),
        tensor=http_request(
            f"/v2/models/{NAME}/infer",
            header + pixels.tobytes(),
            content_type="application/octet-stream",
            inference_header_content_length=str(len(header)),
        ),
        rows=http_request(predict, json.dumps({"instances": pixels.tolist()}).encode(), **as_json),
    )


if __name__ == "__main__":
    main()
