"""Bundles that the serving tests read."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

IMAGE_SIZE = 24
LABELS = ["cat", "dog", "llama"]
# The quantised models are calibrated on pixels up to this value; brighter ones must be clipped.
BRIGHTEST_CALIBRATED = 200


def write_bundle(directory: Path, model: bytes, labels: list[str] | None = None) -> Path:
    """Writes a bundle as the pipeline's contract has it."""
    labels = labels or LABELS
    interpreter = Interpreter(model_content=model)
    content = {"model.tflite": model, "labels.txt": "".join(f"{label}\n" for label in labels).encode()}
    manifest = {
        "format_version": 1,
        "name": "test",
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
        "labels": labels,
        "input": {**_tensor(interpreter.get_input_details()[0]), "image_size": IMAGE_SIZE},
        "output": _tensor(interpreter.get_output_details()[0]),
        "metrics": {"validation_accuracy": 0.97, "bytes": len(model), "deflated_bytes": 100, "latency_ms": 0.4},
        "lineage": {"model": 7, "transform_graph": 5, "transformed_examples": 6},
    }
    directory.mkdir(parents=True)
    for name, data in content.items():
        (directory / name).write_bytes(data)
    (directory / "model.json").write_text(json.dumps(manifest))
    return directory


def change_manifest(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edits model.json in place."""
    path = directory / "model.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def _tensor(details: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = details["quantization"]
    quantized = details["dtype"] is not np.float32
    return {
        "name": details["name"],
        "shape": details["shape"].tolist(),
        "dtype": np.dtype(details["dtype"]).name,
        "scale": scale if quantized else None,
        "zero_point": zero_point if quantized else None,
    }
