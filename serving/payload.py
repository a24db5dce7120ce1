"""Requests and answers of the V1 and V2 inference protocols, to and from arrays.

V1 has the rows that TensorFlow Serving would take and give for a signature of the same names; V2 is the Open Inference
Protocol. Messages name the position of a bad image and never quote what was sent.
"""

import base64
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.predictor import Predictor

if TYPE_CHECKING:
    from kserve import InferInput, InferRequest

IMAGE_KEY = "image_bytes"
LABEL_KEY = "label"
PROBABILITIES_KEY = "probabilities"


def pixels_of_instances(payload: object, predictor: Predictor) -> NDArray[np.uint8]:
    """Reads the images of a V1 request.

    Args:
        payload: The decoded JSON body: `{"instances": [...]}`, where an instance is `{"b64": "..."}` or
            `{"image_bytes": {"b64": "..."}}` with an image file in it, or nested lists of RGB pixels [S, S, 3].
        predictor: Knows how to decode and resize.

    Returns:
        RGB pixels, uint8 [N, S, S, 3].

    Raises:
        ServingError: The request has another form, or an instance is not an image.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("instances"), list):
        raise ServingError('the body must be a JSON object with a list "instances", sent as application/json')
    return _stack(payload["instances"], "instance", predictor)


def pixels_of_tensors(request: "InferRequest", predictor: Predictor) -> NDArray[np.uint8]:
    """Reads the images of a V2 request.

    Args:
        request: Has one input: of type BYTES and shape [N] with image files in base64, or of type UINT8 and shape
            [N, S, S, 3] with RGB pixels.
        predictor: Knows how to decode and resize.

    Returns:
        RGB pixels, uint8 [N, S, S, 3].

    Raises:
        ServingError: The request has another form, or an element is not an image.
    """
    if len(request.inputs) != 1:
        raise ServingError(f"{len(request.inputs)} inputs, expected one")
    tensor: InferInput = request.inputs[0]
    if not isinstance(tensor.data, list) or not isinstance(tensor.shape, list):
        raise ServingError(f"input {tensor.name}: data and shape must be lists")
    if tensor.datatype == "BYTES":
        return _pixels_of_files(tensor, predictor)
    if tensor.datatype == "UINT8":
        return _pixels_of_numbers(tensor, predictor.image_size)
    raise ServingError(
        f"input {tensor.name}: datatype {tensor.datatype}, expected BYTES (image files) or UINT8 (pixels)"
    )


def predictions(probabilities: NDArray[np.float32], predictor: Predictor) -> dict[str, list[dict[str, Any]]]:
    """Writes a V1 answer.

    Args:
        probabilities: float32 [N, number of labels].
        predictor: Knows the labels.

    Returns:
        `{"predictions": [{"label": ..., "probabilities": [...]}, ...]}`.
    """
    return {
        "predictions": [
            {LABEL_KEY: best[0].label, PROBABILITIES_KEY: row.tolist()}
            for best, row in zip(predictor.top(probabilities), probabilities, strict=True)
        ]
    }


def _pixels_of_files(tensor: "InferInput", predictor: Predictor) -> NDArray[np.uint8]:
    if tensor.shape != [len(tensor.data)]:
        raise ServingError(f"input {tensor.name}: {len(tensor.data)} elements do not have shape {tensor.shape}")
    return _stack([{"b64": element} for element in tensor.data], "element", predictor)


def _pixels_of_numbers(tensor: "InferInput", image_size: int) -> NDArray[np.uint8]:
    if tensor.shape[1:] != [image_size, image_size, 3]:
        raise ServingError(f"input {tensor.name}: shape {tensor.shape}, expected [N, {image_size}, {image_size}, 3]")
    return _to_uint8(tensor.data, tuple(tensor.shape))


def _stack(items: list[Any], item_name: str, predictor: Predictor) -> NDArray[np.uint8]:
    if not items:
        raise ServingError("no images in the request")
    pixels = np.empty((len(items), predictor.image_size, predictor.image_size, 3), np.uint8)
    for index, item in enumerate(items):
        try:
            pixels[index] = _pixels_of(item, predictor)
        except ServingError as error:
            raise ServingError(f"{item_name} {index}: {error}") from error
    return pixels


def _pixels_of(item: object, predictor: Predictor) -> NDArray[np.uint8]:
    if isinstance(item, dict):
        return predictor.prepare(_file_of(item))
    if isinstance(item, list):
        return _to_uint8(item, (predictor.image_size, predictor.image_size, 3))
    raise ServingError('expected {"b64": "..."} or nested lists of pixels')


def _file_of(item: dict[str, Any]) -> bytes:
    encoded = item.get(IMAGE_KEY, item)
    text = encoded.get("b64") if isinstance(encoded, dict) else None
    if not isinstance(text, str):
        raise ServingError('expected an image file in base64, as {"b64": "..."}')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ServingError("not base64") from None


def _to_uint8(numbers: list[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Checks pixels that came as nested lists, or as one flat list in row-major order, as V2 sends them."""
    problem = ServingError(f"expected whole numbers 0 to 255 of shape {list(shape)}")
    try:
        values = np.asarray(numbers)
    except ValueError:
        raise problem from None
    if values.dtype.kind not in "iu" or values.size == 0 or values.shape not in (shape, (math.prod(shape),)):
        raise problem
    if values.min() < 0 or values.max() > np.iinfo(np.uint8).max:
        raise problem
    return values.astype(np.uint8).reshape(shape)
