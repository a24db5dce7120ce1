"""Pixels from JSON: the fast reader must agree with the general one on every text, or leave it to that one."""

import json

import numpy as np
import orjson
import pytest

from serving.errors import ServingError
from serving.pixels import pixels_of_json, pixels_of_lists

SIZE = 2
SHAPE = (SIZE, SIZE, 3)


def _general(text: bytes) -> np.ndarray | None:
    """Reads the same body slowly; None where it is not a valid request of pixels alone."""
    try:
        payload = orjson.loads(text)
        (rows,) = (payload[key] for key in ("instances", "inputs") if key in payload)
        return np.stack([pixels_of_lists(row, SHAPE) for row in rows])
    except (orjson.JSONDecodeError, ServingError, ValueError, TypeError):
        return None


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("count", [1, 3])
def test_every_value_is_read(count: int, separators: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        pixels = rng.integers(0, 256, (count, *SHAPE))
        body = json.dumps({"instances": pixels.tolist()}, separators=separators).encode()
        found = pixels_of_json(body, SIZE)
        assert found is not None, "the fast reader takes what clients usually send"
        assert found[0] == "instances"
        np.testing.assert_array_equal(found[1], pixels)


def test_no_damaged_text_is_read_differently() -> None:
    rng = np.random.default_rng(1)
    accepted = 0
    for _ in range(20_000):
        body = bytearray(json.dumps({"instances": rng.integers(0, 256, (1, *SHAPE)).tolist()}).encode())
        for _ in range(rng.integers(1, 3)):
            position = rng.integers(0, len(body))
            change = rng.integers(0, 3)
            character = b'0123456789,,[[]]  .-e"\n'[rng.integers(0, 23)]
            if change == 0:
                body[position] = character
            elif change == 1:
                body.insert(position, character)
            else:
                del body[position]
        found = pixels_of_json(bytes(body), SIZE)
        if found is not None:
            accepted += 1
            expected = _general(bytes(body))
            assert expected is not None, body
            np.testing.assert_array_equal(found[1], expected)
    assert accepted > 100, "some damage must leave a valid text for this test to mean something"


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[[[1,2,3],[1,2,3]],[[1,2,3],[1,2,256]]]]}',
        b'{"instances": [[[[1,2,3],[1,2,3]],[[1,2,3],[1,2,1000]]]]}',
        b'{"instances": [[[[1,2,3],[1,2,3]],[[1,2,3],[1,2,03]]]]}',
        b'{"instances": [[[[1,2,3],[1,2,3]],[[1,2,3],[1,2,00]]]]}',
        b'{"instances": [[[[1,2,3],[1,2,3]],[[1,2,3],[1 2,,3]]]]}',
        b'{"instances": [[[[1,2,3],[1,2,3]],[[1,2,3],[1,2]]]]}',
        b'{"instances": []}',
        b'{"instances": [[[[1,2,3],[1,2,3]],[[1,2,3],[1,2,3]]]}',
        b'{"instances": [[[[1,2,3],[1,2,3]],[[1,2,3],[1,2,3]]]], "more": 1}',
    ],
)
def test_what_is_out_of_the_ordinary_is_left_alone(body: bytes) -> None:
    assert pixels_of_json(body, SIZE) is None


@pytest.mark.parametrize("numbers", [[], [[1]], "123", None, {"a": 1}, [True, 2.5, 3], [1, 2, 3, 4], [1, 2, "3"]])
def test_lists_of_anything_else_are_refused(numbers: object) -> None:
    with pytest.raises(ServingError, match="whole numbers 0 to 255 of shape"):
        pixels_of_lists(numbers, (3,))
