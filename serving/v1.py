"""The V1 protocol, as TensorFlow Serving speaks it over REST for the SavedModel that the pipeline pushes.

Source: https://www.tensorflow.org/tfx/serving/api_rest. Row format ("instances", answered by "predictions") and column
format ("inputs", answered by "outputs") of the signatures `serving_default`, which takes image files, and
`serving_images`, which takes pixels. Beyond TensorFlow Serving, pixels are taken without naming their signature.
"""

import base64
import math
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.inference import Classified, Classifier
from serving.metrics import stage_seconds
from serving.pixels import begins_with_pixels, pixels_of_json, pixels_of_lists
from serving.versions import ServedVersion, VersionState

IMAGE_KEY: Final = "image_bytes"
PIXELS_KEY: Final = "images"
LABEL_KEY: Final = "label"
PROBABILITIES_KEY: Final = "probabilities"

_ROWS, _COLUMNS = "instances", "inputs"
# Reading the numbers in so many bytes takes less than a millisecond.
_SMALL_BODY = 256 * 1024
_SIGNATURES = {"serving_default": IMAGE_KEY, "serving_images": PIXELS_KEY}


def predict(body: bytes, classifier: Classifier) -> bytes:
    """Answers a predict request.

    Args:
        body: The JSON body.
        classifier: Classifies its images.

    Returns:
        The JSON body of the answer.

    Raises:
        ServingError: The body has another form, or an image cannot be used.
    """
    with stage_seconds("decode").time():
        key, pixels = pixels_of_json(body, classifier.image_size) or _read(body, classifier)
        classifier.check_count(len(pixels))
    classified = classifier.classify(pixels)
    with stage_seconds("encode").time():
        answer = _rows(classified) if key == _ROWS else _columns(classified)
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def most_images(body: bytes, version: ServedVersion) -> float:
    """Tells how many images a request has at most, without reading it.

    Args:
        body: The JSON body.
        version: The version that is asked for.

    Returns:
        The number, which may be fractional; infinity where the images seem to be no small arrays of pixels.
    """
    if len(body) > _SMALL_BODY or not begins_with_pixels(body):
        return math.inf
    # A digit and a comma for each number at least.
    return len(body) / (2 * 3 * version.predictor.image_size**2)


def status(states: list[VersionState]) -> bytes:
    """Answers a status request.

    Args:
        states: What became of each version.

    Returns:
        The JSON form of tensorflow.serving.GetModelStatusResponse.
    """
    return orjson.dumps({"model_version_status": [_version_status(state) for state in states]})


def metadata(name: str, version: ServedVersion) -> bytes:
    """Answers a metadata request.

    Args:
        name: Name of the model.
        version: The version that is asked about.

    Returns:
        The JSON form of tensorflow.serving.GetModelMetadataResponse.
    """
    size = version.predictor.image_size
    outputs = {
        LABEL_KEY: _tensor_info(LABEL_KEY, "DT_STRING", [-1]),
        PROBABILITIES_KEY: _tensor_info(PROBABILITIES_KEY, "DT_FLOAT", [-1, len(version.predictor.labels)]),
    }
    inputs = {
        IMAGE_KEY: _tensor_info(IMAGE_KEY, "DT_STRING", [-1]),
        PIXELS_KEY: _tensor_info(PIXELS_KEY, "DT_UINT8", [-1, size, size, 3]),
    }
    signatures = {
        signature: {
            "inputs": {key: inputs[key]},
            "outputs": outputs,
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for signature, key in _SIGNATURES.items()
    }
    return orjson.dumps(
        {
            "model_spec": {"name": name, "signature_name": "", "version": str(version.number)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }
    )


def _read(body: bytes, classifier: Classifier) -> tuple[str, NDArray[np.uint8]]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ServingError("the body is not JSON") from None
    if not isinstance(payload, dict) or (_ROWS in payload) == (_COLUMNS in payload):
        raise ServingError('the body must be a JSON object with a list "instances", or with "inputs"')
    signature = payload.get("signature_name") or "serving_default"
    if not isinstance(signature, str) or signature not in _SIGNATURES:
        raise ServingError(f"the signature is not one of {', '.join(_SIGNATURES)}")
    if _ROWS in payload:
        key, items = _ROWS, payload[_ROWS]
    else:
        key, items = _COLUMNS, _column_of(payload[_COLUMNS])
    if not isinstance(items, list):
        raise ServingError(f'"{key}" must be a list of images')
    classifier.check_count(len(items))
    return key, classifier.decode([_named(item) for item in items], key.removesuffix("s"), _image_of)


def _column_of(inputs: Any) -> Any:
    """Returns the one input that a column has, named or not."""
    if not isinstance(inputs, dict):
        return inputs
    named = [inputs[key] for key in (IMAGE_KEY, PIXELS_KEY) if key in inputs]
    if len(inputs) != 1 or not named:
        raise ServingError(f'"inputs" must have one input, {IMAGE_KEY} or {PIXELS_KEY}')
    return named[0]


def _named(item: Any) -> Any:
    """Returns the one input of a row, named or not."""
    if isinstance(item, dict) and len(item) == 1:
        return item.get(IMAGE_KEY, item.get(PIXELS_KEY, item))
    return item


def _image_of(item: Any, image_size: int) -> bytes | NDArray[np.uint8]:
    """Returns an image file, or pixels [S, S, 3]."""
    if isinstance(item, list):
        return pixels_of_lists(item, (image_size, image_size, 3))
    if not isinstance(item, dict):
        raise ServingError('expected {"b64": "..."} or nested lists of pixels')
    return base64_content(item.get("b64"))


def base64_content(text: object) -> bytes:
    """Decodes an image file in base64.

    Args:
        text: What stands where the text should be.

    Returns:
        The file's content.

    Raises:
        ServingError: It is not base64.
    """
    if not isinstance(text, str):
        raise ServingError('expected an image file in base64, as {"b64": "..."}')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ServingError("not base64") from None


def _rows(classified: Classified) -> dict[str, Any]:
    return {
        "predictions": [
            {LABEL_KEY: label, PROBABILITIES_KEY: row}
            for label, row in zip(classified.labels, classified.probabilities, strict=True)
        ]
    }


def _columns(classified: Classified) -> dict[str, Any]:
    return {"outputs": {LABEL_KEY: classified.labels, PROBABILITIES_KEY: classified.probabilities}}


def _version_status(state: VersionState) -> dict[str, Any]:
    served = state.error is None
    return {
        "version": str(state.number),
        "state": "AVAILABLE" if served else "END",
        "status": {
            "error_code": "OK" if served else "INVALID_ARGUMENT",
            # The reason has paths of this machine in it and stands in the log.
            "error_message": "" if served else "the version cannot be loaded; the server's log says why",
        },
    }


def _tensor_info(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in shape]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": f"{name}:0"}
