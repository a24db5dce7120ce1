"""Pixels that came as JSON or as bytes, to arrays. Strict: what is not a whole number from 0 to 255 is refused."""

import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError

_BEGINNING = rb'\s*\{\s*(?:"signature_name"\s*:\s*"serving_images"\s*,\s*)?"(instances|inputs)"\s*:\s*'
_NESTED_LISTS = re.compile(_BEGINNING + rb"\[\s*\[")
_ROWS = re.compile(_BEGINNING + rb"(\[.*\])\s*\}\s*", re.DOTALL)


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

    The body must be JSON as programs write it, with nothing or one space behind each comma, and with every image a list
    [image_size, image_size, 3]: between one number and the next must stand exactly the brackets and the comma that
    belong there, so that each number has its place, and no other text can hide between.

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
    codes = _codes_of(found[2])
    is_digit = codes < 10
    ends = np.flatnonzero(is_digit[:-1] & ~is_digit[1:])
    count, rest = divmod(len(ends), image_size**2 * 3)
    if rest or not count:
        return None
    shape = (count, image_size, image_size, 3)
    numbers = _numbers_of(codes, ends)
    if numbers is None or not _stand_in_lists(codes, ends.reshape(shape), numbers.digits):
        return None
    return found[1].decode(), numbers.values.reshape(shape)


def begins_with_pixels(body: bytes) -> bool:
    """Tells whether the first image of a V1 request is a list of numbers, going by how the body begins."""
    return _NESTED_LISTS.match(body) is not None


class _Numbers(NamedTuple):
    """Whole numbers in a text, uint8 [N], and how many digits they have together."""

    values: NDArray[np.uint8]
    digits: int


def _bytes_of(numbers: Any, shape: tuple[int, ...]) -> bytes:
    if not isinstance(numbers, list) or len(numbers) != shape[0] or not numbers:
        raise ValueError
    # Takes nothing but integers from 0 to 255.
    return bytes(numbers) if len(shape) == 1 else b"".join([_bytes_of(part, shape[1:]) for part in numbers])


def _codes_of(text: bytes) -> NDArray[np.uint8]:
    """Returns the characters of a text, counted from "0" on."""
    return np.frombuffer(text, np.uint8) - np.uint8(ord("0"))


def _numbers_of(codes: NDArray[np.uint8], ends: NDArray[np.intp]) -> _Numbers | None:
    """Reads the last three digits, or fewer, of each number in a text.

    Args:
        codes: The text, as `_codes_of` returns it, without a digit at its end.
        ends: Where the last digits stand.

    Returns:
        The numbers; None where one is no valid value of a byte, or begins with a zero.
    """
    ones, tens, hundreds = (codes.take(ends - place) for place in range(3))
    two = tens < 10
    three = two & (hundreds < 10)
    has_leading_zero = (two & ~three & (tens == 0)) | (three & (hundreds == 0))
    values = ones + 10 * (two * tens).astype(np.uint16) + 100 * (three * hundreds).astype(np.uint16)
    if has_leading_zero.any() or values.max() > np.iinfo(np.uint8).max:
        return None
    digits = len(ends) + int(np.count_nonzero(two)) + int(np.count_nonzero(three))
    return _Numbers(values.astype(np.uint8), digits)


def _stand_in_lists(codes: NDArray[np.uint8], ends: NDArray[np.intp], digits: int) -> bool:
    """Tells whether a text is nothing but numbers in nested lists, all spaced alike.

    Behind each number must stand what belongs there, and the text must be as long as all that is together, so that
    there is room for nothing else.

    Args:
        codes: The text, as `_codes_of` returns it.
        ends: Where the last digit of each number stands, in the shape of the lists, the last axis of three.
        digits: How many digits the numbers have together.
    """
    comma = b", " if codes[ends.flat[0] + 2] == _codes_of(b" ") else b","
    # How many lists end, and others begin, behind the numbers in each of these places. Red and green by themselves:
    # NumPy takes its time over an axis of two. The very last number is left out.
    places = (
        (0, np.s_[..., 0]),
        (0, np.s_[..., 1]),
        (1, np.s_[..., :-1, 2]),
        (2, np.s_[:, :-1, -1, 2]),
        (3, np.s_[:-1, -1, -1, 2]),
    )
    length = digits
    for closed, place in places:
        between = b"]" * closed + comma + b"[" * closed
        if not _all_followed_by(codes, ends[place], between):
            return False
        length += ends[place].size * len(between)
    first, last = _codes_of(b"[" * ends.ndim), _codes_of(b"]" * ends.ndim)
    return (
        len(codes) == length + len(first) + len(last)
        and bool((codes[: len(first)] == first).all())
        and bool((codes[-len(last) :] == last).all())
    )


def _all_followed_by(codes: NDArray[np.uint8], places: NDArray[np.intp], text: bytes) -> bool:
    # What would stand behind the end is clipped to it: then the whole is too short, which is noticed by its length.
    return all(
        bool((codes.take(places + offset, mode="clip") == code).all())
        for offset, code in enumerate(_codes_of(text), start=1)
    )
