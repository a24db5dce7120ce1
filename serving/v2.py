"""The V2 protocol: the Open Inference Protocol over REST, with its binary tensor extension, and its tensors over gRPC.

Sources: https://github.com/kserve/open-inference-protocol, and Triton's extension_binary_data.md for binary tensors and
raw binary requests. KServe's own reader turns binary tensors into Python lists, and fails on raw BYTES.
"""

import math
import re
import struct
import uuid
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from kserve import InferOutput, InferRequest, InferResponse
from kserve.protocol.infer_type import RequestedOutput
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.inference import Classified, Classifier
from serving.metrics import stage_seconds
from serving.pixels import pixels_of_bytes, pixels_of_lists
from serving.v1 import IMAGE_KEY, LABEL_KEY, PROBABILITIES_KEY, base64_content
from serving.versions import ServedVersion

HEADER_LENGTH: Final = "inference-header-content-length"
# Of a binary request, the JSON is a few hundred bytes long.
_HEADER_BYTES = 4096
_PIXELS = re.compile(rb'"datatype"\s*:\s*"UINT8"')
_OUTPUTS = (LABEL_KEY, PROBABILITIES_KEY)


@dataclass(frozen=True)
class _Tensor:
    """An input: its elements are a list where they came as JSON, and bytes where they came binary."""

    datatype: str
    shape: list[int]
    elements: list[Any] | memoryview


@dataclass(frozen=True)
class _Request:
    tensor: _Tensor
    identifier: str
    outputs: list[RequestedOutput] | None
    binary_outputs: bool


def infer(
    body: bytes, header_length: str | None, is_binary: bool, name: str, classifier: Classifier
) -> tuple[bytes, int | None]:
    """Answers an infer request.

    Args:
        body: The body: JSON, or JSON followed by binary tensors, or nothing but one image file.
        header_length: Value of the header that tells how many bytes the JSON has; None where there is none.
        is_binary: Whether the body is declared as application/octet-stream.
        name: Name of the model.
        classifier: Classifies the images.

    Returns:
        The body of the answer, and the length of its JSON part where binary outputs follow.

    Raises:
        ServingError: The request has another form, or an image cannot be used.
    """
    with stage_seconds("decode").time():
        request = _read(body, header_length, is_binary)
        pixels = _pixels_of(request.tensor, classifier)
    classified = classifier.classify(pixels)
    with stage_seconds("encode").time():
        response = _response(name, classified, request.identifier, request.outputs, request.binary_outputs)
        content, json_length = response.to_rest()
        return (content if isinstance(content, bytes) else orjson.dumps(content)), json_length


def most_images(body: bytes, is_binary: bool, version: ServedVersion) -> float:
    """Tells how many images a request has at most, without reading it.

    Args:
        body: The body.
        is_binary: Whether the body is declared as application/octet-stream.
        version: The version that is asked for.

    Returns:
        The number, which may be fractional; infinity where the images seem to be no binary pixels.
    """
    if not is_binary or _PIXELS.search(body, 0, _HEADER_BYTES) is None:
        return math.inf
    return len(body) / (3 * version.predictor.image_size**2)


def infer_tensors(request: InferRequest, name: str, classifier: Classifier) -> InferResponse:
    """Answers an infer request that KServe has read from gRPC.

    Args:
        request: The request.
        name: Name of the model.
        classifier: Classifies the images.

    Returns:
        The answer.

    Raises:
        ServingError: The request has another form, or an image cannot be used.
    """
    with stage_seconds("decode").time():
        if len(request.inputs) != 1:
            raise ServingError(f"{len(request.inputs)} inputs, expected one")
        (tensor,) = request.inputs
        elements = memoryview(tensor._raw_data) if tensor._raw_data is not None else list(tensor.data or ())
        pixels = _pixels_of(_Tensor(tensor.datatype, list(tensor.shape), elements), classifier)
    classified = classifier.classify(pixels)
    return _response(name, classified, request.id or uuid.uuid4().hex, request.request_outputs, False)


def inputs() -> list[dict[str, Any]]:
    """Returns the inputs of the model's metadata: image files. Pixels are taken too."""
    return [{"name": IMAGE_KEY, "datatype": "BYTES", "shape": [-1]}]


def outputs(version: ServedVersion) -> list[dict[str, Any]]:
    """Returns the outputs of the model's metadata."""
    return [
        {"name": LABEL_KEY, "datatype": "BYTES", "shape": [-1]},
        {"name": PROBABILITIES_KEY, "datatype": "FP32", "shape": [-1, len(version.predictor.labels)]},
    ]


def _read(body: bytes, header_length: str | None, is_binary: bool) -> _Request:
    if header_length is None and not is_binary:
        length = len(body)
    else:
        text = header_length or "0"
        if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= len(body)):
            raise ServingError(f"{HEADER_LENGTH} is not the length of the JSON at the beginning of the body")
        length = int(text)
    content = memoryview(body)
    if length == 0 and body:
        return _Request(_Tensor("BYTES", [1], content), uuid.uuid4().hex, None, False)
    try:
        header = orjson.loads(content[:length])
    except orjson.JSONDecodeError:
        raise ServingError("the V2 request is not JSON") from None
    if not isinstance(header, dict) or not isinstance(header.get("inputs"), list):
        raise ServingError('the V2 request must be a JSON object with a list "inputs"')
    if len(header["inputs"]) != 1:
        raise ServingError(f"{len(header['inputs'])} inputs, expected one")
    tensor = _tensor_of(header["inputs"][0], content[length:])
    return _Request(tensor, _identifier_of(header), _requested(header), _flag(header, "binary_data_output"))


def _tensor_of(tensor: Any, tail: memoryview) -> _Tensor:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise ServingError("the input must be an object with a name")
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str) or not isinstance(shape, list):
        raise ServingError("the input must have a datatype and a shape")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ServingError("the input's shape must be a list of whole numbers")
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if not isinstance(tensor.get("data"), list):
            raise ServingError("the input's data must be a list")
        return _Tensor(datatype, shape, tensor["data"])
    if type(size) is not int or size != len(tail):
        raise ServingError(f"binary_data_size is not the {len(tail)} bytes that follow the JSON")
    return _Tensor(datatype, shape, tail)


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ServingError("parameters must be an object")
    return parameters


def _flag(of: dict[str, Any], name: str) -> bool:
    return _parameters(of).get(name) is True


def _identifier_of(header: dict[str, Any]) -> str:
    identifier = header.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise ServingError("the id must be a string")
    # The protocol asks for the same id in the answer; KServe's clients want one in any case.
    return identifier or uuid.uuid4().hex


def _requested(header: dict[str, Any]) -> list[RequestedOutput] | None:
    requested = header.get("outputs")
    if not requested:
        return None
    known = isinstance(requested, list) and all(
        isinstance(output, dict) and output.get("name") in _OUTPUTS for output in requested
    )
    if not known:
        raise ServingError(f"outputs must be a list of objects whose names are among {', '.join(_OUTPUTS)}")
    by_default = _flag(header, "binary_data_output")
    return [
        RequestedOutput(output["name"], {"binary_data": _parameters(output).get("binary_data", by_default) is True})
        for output in requested
    ]


def _pixels_of(tensor: _Tensor, classifier: Classifier) -> NDArray[np.uint8]:
    if tensor.datatype == "BYTES":
        return _pixels_of_files(tensor, classifier)
    if tensor.datatype != "UINT8":
        raise ServingError("the input's datatype must be BYTES (image files) or UINT8 (pixels)")
    size = classifier.image_size
    if tensor.shape[1:] != [size, size, 3]:
        raise ServingError(f"the input's shape must be [N, {size}, {size}, 3]")
    classifier.check_count(tensor.shape[0])
    shape = tuple(tensor.shape)
    if isinstance(tensor.elements, list):
        return pixels_of_lists(tensor.elements, shape)
    return pixels_of_bytes(tensor.elements, shape)


def _pixels_of_files(tensor: _Tensor, classifier: Classifier) -> NDArray[np.uint8]:
    count = math.prod(tensor.shape)
    if tensor.shape not in ([count], [count, 1]):
        raise ServingError("the input's shape must be [N] for N image files")
    classifier.check_count(count)
    elements = tensor.elements if isinstance(tensor.elements, list) else _split(tensor.elements, count)
    if len(elements) != count:
        raise ServingError(f"{len(elements)} elements do not have shape {tensor.shape}")
    return classifier.decode(elements, "element", _file_of)


def _file_of(element: Any, image_size: int) -> bytes:  # noqa: ARG001 - readers of pixels need it
    return element if isinstance(element, bytes) else base64_content(element)


def _split(raw: memoryview, count: int) -> list[bytes]:
    """Splits a binary BYTES tensor: each element is its length, as a little-endian uint32, and its bytes.

    A raw binary request is one element without its length.
    """
    elements: list[bytes] = []
    start = 0
    while start < len(raw) and len(elements) < count:
        if start + 4 > len(raw):
            break
        (length,) = struct.unpack_from("<I", raw, start)
        elements.append(bytes(raw[start + 4 : start + 4 + length]))
        start += 4 + length
    if start != len(raw) or len(elements) != count:
        if count == 1:
            return [bytes(raw)]
        raise ServingError(f"the bytes are not {count} elements, each behind its length in 4 bytes, little-endian")
    return elements


def _response(
    name: str, classified: Classified, identifier: str, requested: list[RequestedOutput] | None, binary_outputs: bool
) -> InferResponse:
    labels = np.array(classified.labels, dtype=object)
    probabilities = classified.probabilities
    return InferResponse(
        response_id=identifier,
        model_name=name,
        model_version=str(classified.version.number),
        infer_outputs=[
            InferOutput(LABEL_KEY, list(labels.shape), "BYTES", labels),
            InferOutput(PROBABILITIES_KEY, list(probabilities.shape), "FP32", probabilities),
        ],
        requested_outputs=requested,
        use_binary_outputs=binary_outputs,
    )
