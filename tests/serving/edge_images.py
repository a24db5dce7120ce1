"""Images that the serving tests send."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def photo(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Draws what a photo is like to a codec and a resampler: smooth fields of several scales, and sensor noise."""
    field = np.full((height, width, 3), 128.0)
    for cells in (3, 8, 24):
        grid = rng.normal(size=(3, cells, cells)).astype(np.float32)
        planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in grid]
        field += np.stack([np.asarray(plane) for plane in planes], axis=-1) * 60 / np.sqrt(cells)
    field += rng.normal(scale=rng.uniform(0, 20), size=field.shape)
    return Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))


def tinted_photos(rng: np.random.Generator, count: int, size: int, brightest: int) -> NDArray[np.uint8]:
    """Draws photos of many colours and exposures, uint8 [count, size, size, 3], no pixel above `brightest`."""
    photos = np.stack([np.asarray(photo(rng, size, size)) for _ in range(count)])
    tints = rng.uniform(0, brightest / 255, (count, 1, 1, 3))
    return (photos * tints).astype(np.uint8)


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Returns the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()
