"""The plain protocol: an image file in, its most probable classes out. The web page speaks it."""

from collections.abc import AsyncGenerator

import orjson
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from serving.errors import ServingError
from serving.inference import Classifier
from serving.metrics import stage_seconds

# A form has the image and little else.
_MOST_PARTS = 16


async def file_of_form(content_type: str, body: bytes) -> bytes:
    """Returns the first file of a form, as a browser sends it.

    Args:
        content_type: Of type multipart/form-data, with its boundary.
        body: The form.

    Returns:
        The content of the file.

    Raises:
        ServingError: It is not a form, or there is no file in it.
    """

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        Headers({"content-type": content_type}),
        chunks(),
        max_files=_MOST_PARTS,
        max_fields=_MOST_PARTS,
        max_part_size=len(body) + 1,
    )
    # Its parsers raise errors of many types on bytes that break the format.
    try:
        form = await parser.parse()
    except Exception:
        raise ServingError("the body is not a multipart form") from None
    try:
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                return await value.read()
    finally:
        await form.close()
    raise ServingError("the form has no file in it")


def predict(data: bytes, top: int, name: str, classifier: Classifier) -> bytes:
    """Answers a request for one image.

    Args:
        data: The image file.
        top: How many classes to name.
        name: Name of the model.
        classifier: Classifies the image.

    Returns:
        The JSON body of the answer: `label`, `probability`, `classes` from the most probable one down, and `model`.

    Raises:
        ServingError: It is not an image.
    """
    with stage_seconds("decode").time():
        pixels = classifier.decode([data], "", lambda image, _: image)
    classified = classifier.classify(pixels)
    with stage_seconds("encode").time():
        (scored,) = classifier.version.predictor.top(classified.probabilities, top)
        return orjson.dumps(
            {
                "label": scored[0].label,
                "probability": scored[0].probability,
                "classes": [{"label": label, "probability": probability} for label, probability in scored],
                "model": {"name": name, "version": str(classified.version.number)},
            }
        )
