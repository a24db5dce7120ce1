"""Pixels that came as JSON or as bytes, to arrays. Strict: what is not a whole number from 0 to 255 is refused."""

import functools
import math
import re
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError

_ROWS = re.compile(
    rb'\s*\{\s*(?:"signature_name"\s*:\s*"serving_images"\s*,\s*)?"(instances|inputs)"\s*:\s*(\[.*\])\s*\}\s*',
    re.DOTALL,
)
_DIGITS_AND_SPACES: Final = b"0123456789 "

_SPACE, _COMMA, _CLOSE = (np.uint8((ord(character) - ord("0")) % 256) for character in " ,]")


def pixels_of_lists(numbers: object, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Reads pixels from nested lists, or from one flat list in row-major order, as V2 sends them.

    Args:
        numbers: The lists.
        shape: The shape that they must have.

    Returns:
        uint8 of that shape.

    Raises:
        ServingError: They have another shape, or hold anything but whole numbers from 0 to 255.
    """
    flat = isinstance(numbers, list) and len(numbers) == math.prod(shape)
    try:
        content = _bytes_of(numbers, shape[-1:] if len(shape) == 1 else (math.prod(shape),) if flat else shape)
    except (TypeError, ValueError, OverflowError):
        raise ServingError(f"expected whole numbers 0 to 255 of shape {list(shape)}") from None
    return np.frombuffer(content, np.uint8).reshape(shape)


def pixels_of_bytes(content: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Reads pixels from a binary tensor, without copying it.

    Args:
        content: One byte for each number, in row-major order.
        shape: The shape that they must have.

    Returns:
        uint8 of that shape.

    Raises:
        ServingError: There are more or fewer bytes.
    """
    if len(content) != math.prod(shape):
        raise ServingError(f"{len(content)} bytes are not a tensor of shape {list(shape)}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def pixels_of_json(body: bytes, image_size: int) -> tuple[str, NDArray[np.uint8]] | None:
    """Reads a V1 request whose body is nothing but pixels straight into an array, without Python objects between.

    The body must be JSON, with every image a list [image_size, image_size, 3]: taking the digits out must leave exactly
    the brackets and commas of that shape, so that each number has its place, and no other text can hide between.

    Args:
        body: The body, `{"instances": [...]}` or `{"inputs": [...]}`.
        image_size: Height and width of the model's input, in pixels.

    Returns:
        Which of the two keys it was, and the pixels, uint8 [N, image_size, image_size, 3]. None where the body is
        anything else, good or bad: a general reader has to tell.
    """
    found = _ROWS.fullmatch(body)
    if not found:
        return None
    key, text = found.groups()
    count = _count_images(text, image_size)
    values = _numbers_of(text, count * image_size**2 * 3) if count else None
    return None if values is None else (key.decode(), values.reshape(count, image_size, image_size, 3))


def _bytes_of(numbers: Any, shape: tuple[int, ...]) -> bytes:
    if not isinstance(numbers, list) or len(numbers) != shape[0] or not numbers:
        raise ValueError
    # Takes nothing but integers from 0 to 255.
    return bytes(numbers) if len(shape) == 1 else b"".join([_bytes_of(part, shape[1:]) for part in numbers])


def _count_images(text: bytes, image_size: int) -> int:
    """Returns how many images of the right shape the text is made of; 0 where it is of anything else."""
    frame = text.translate(None, _DIGITS_AND_SPACES)
    image = _frame_of_image(image_size)
    count = (len(frame) - 1) // (len(image) + 1)
    return count if frame == b"[" + b",".join([image] * count) + b"]" else 0


@functools.lru_cache(8)
def _frame_of_image(image_size: int) -> bytes:
    """Returns the brackets and commas of one image."""
    row = b"[" + b",".join([b"[,,]"] * image_size) + b"]"
    return b"[" + b",".join([row] * image_size) + b"]"


def _numbers_of(text: bytes, count: int) -> NDArray[np.uint8] | None:
    """Reads the whole numbers of up to three digits in a text; None where they are not `count` valid values of a byte.

    The text begins with four brackets at least, so that looking back from the end of a number never leaves it.
    """
    codes = np.frombuffer(text, np.uint8) - np.uint8(ord("0"))
    is_digit = codes < 10
    ends = np.flatnonzero(is_digit[:-1] & ~is_digit[1:])
    if len(ends) != count:
        return None
    ones, tens, hundreds = (codes.take(ends - place) for place in range(3))
    two = tens < 10
    three = two & (hundreds < 10)
    has_leading_zero = (two & ~three & (tens == 0)) | (three & (hundreds == 0))
    values = ones + 10 * (two * tens).astype(np.uint16) + 100 * (three * hundreds).astype(np.uint16)
    has_long_numbers = np.count_nonzero(is_digit) != count + np.count_nonzero(two) + np.count_nonzero(three)
    if has_leading_zero.any() or has_long_numbers or values.max() > np.iinfo(np.uint8).max:
        return None
    starts = ends - two - three
    return values.astype(np.uint8) if _stand_alone(codes, starts, ends) else None


def _stand_alone(codes: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp]) -> bool:
    """Tells whether each number has a place between brackets and commas to itself, at most one space before it.

    Then none shares a place with another, and none stands behind a list that is closed or before one that opens.
    """
    after, before = codes.take(ends + 1), codes.take(starts - 1)
    if not ((after == _COMMA) | (after == _CLOSE)).all():
        return False
    spaced = np.flatnonzero(before == _SPACE)
    if not (codes.take(starts.take(spaced) - 2) == _COMMA).all():
        return False
    return bool((before != _CLOSE).all())
