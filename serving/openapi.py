"""The parts of the OpenAPI document that FastAPI cannot know: the bodies, which the protocols define."""

from typing import Any

from serving.v1 import IMAGE_KEY, LABEL_KEY, PIXELS_KEY, PROBABILITIES_KEY

Schema = dict[str, Any]

_FILE: Schema = {"type": "string", "format": "binary", "description": "An image file."}
_ERROR: Schema = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
_ROW: Schema = {"type": "array", "items": {"type": "number"}}
_REASONS = {
    400: "The request cannot be used; `error` says why.",
    401: "The API key is missing or wrong.",
    404: "Not served here.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "Too many requests are waiting; see Retry-After.",
    503: "The model does not answer.",
}


def an_object(**properties: Schema) -> Schema:
    """Returns the schema of an object that has all the properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


_B64 = an_object(b64={"type": "string", "format": "byte", "description": "An image file in base64."})
_PIXELS: Schema = {
    "type": "array",
    "description": "RGB pixels of the model's input size.",
    "items": {
        "type": "array",
        "items": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    },
}
_IMAGE: Schema = {"anyOf": [_B64, an_object(**{IMAGE_KEY: _B64}), an_object(**{PIXELS_KEY: _PIXELS}), _PIXELS]}
_IMAGES: Schema = {"type": "array", "minItems": 1, "items": _IMAGE}
_TENSOR = an_object(
    name={"type": "string"},
    datatype={"type": "string", "enum": ["BYTES", "UINT8"]},
    shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
    data={"type": "array", "items": {}},
)

V1_REQUEST: Schema = {
    "anyOf": [
        an_object(instances=_IMAGES),
        an_object(inputs={"anyOf": [_IMAGES, an_object(**{IMAGE_KEY: {"type": "array", "items": _B64}})]}),
    ]
}
V1_ANSWER: Schema = {
    "anyOf": [
        an_object(
            predictions={
                "type": "array",
                "items": an_object(**{LABEL_KEY: {"type": "string"}, PROBABILITIES_KEY: _ROW}),
            }
        ),
        an_object(
            outputs=an_object(**{LABEL_KEY: _STRINGS, PROBABILITIES_KEY: {"type": "array", "items": _ROW}}),
        ),
    ]
}
V1_STATUS = an_object(
    model_version_status={
        "type": "array",
        "items": an_object(
            version={"type": "string"},
            state={"type": "string", "enum": ["AVAILABLE", "END"]},
            status=an_object(error_code={"type": "string"}, error_message={"type": "string"}),
        ),
    }
)
V1_METADATA = an_object(model_spec={"type": "object"}, metadata={"type": "object"})
V2_REQUEST = an_object(inputs={"type": "array", "minItems": 1, "maxItems": 1, "items": _TENSOR})
V2_ANSWER = an_object(
    id={"type": "string"},
    model_name={"type": "string"},
    model_version={"type": "string"},
    outputs={"type": "array", "items": _TENSOR | {"properties": _TENSOR["properties"] | {"datatype": {}}}},
)
V2_METADATA = an_object(
    name={"type": "string"},
    versions=_STRINGS,
    platform={"type": "string"},
    inputs={"type": "array"},
    outputs={"type": "array"},
)
PLAIN_ANSWER = an_object(
    label={"type": "string"},
    probability={"type": "number"},
    classes={"type": "array", "items": an_object(label={"type": "string"}, probability={"type": "number"})},
    model=an_object(name={"type": "string"}, version={"type": "string"}),
)


def json_body(schema: Schema) -> Schema:
    """Returns what an operation adds to the document for a JSON body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def image_body() -> Schema:
    """Returns what an operation adds to the document for an image file, as a form or as it is."""
    form = {"multipart/form-data": {"schema": an_object(image=_FILE)}}
    return {"requestBody": {"required": True, "content": form | {"image/*": {"schema": _FILE}}}}


def answers(schema: Schema, *errors: int) -> dict[int | str, dict[str, Any]]:
    """Returns the answers of an operation: the good one, and errors by status."""
    return {
        200: {"description": "The answer.", "content": {"application/json": {"schema": schema}}},
        **{
            status: {"description": _REASONS[status], "content": {"application/json": {"schema": _ERROR}}}
            for status in errors
        },
    }
