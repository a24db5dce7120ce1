"""Requests that the serving tests send."""

import base64
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINARY = "application/octet-stream"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def infer_body(datatype: str, shape: list[int], data: list[Any], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image_bytes", "datatype": datatype, "shape": shape, "data": data}], **more}


def binary_infer(datatype: str, shape: list[int], content: bytes, **more: Any) -> dict[str, Any]:
    """Returns the arguments of httpx for a V2 request with a binary tensor."""
    tensor = {"name": "image_bytes", "datatype": datatype, "shape": shape}
    header = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(content)}}], **more}).encode()
    headers = {"content-type": BINARY, "inference-header-content-length": str(len(header))}
    return {"content": header + content, "headers": headers}


def bytes_tensor(files: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(data)) + data for data in files)


def probabilities_of(answer: dict[str, Any]) -> NDArray[np.float32]:
    """Reads a V1 answer in row format."""
    return np.array([row["probabilities"] for row in answer["predictions"]], np.float32)
