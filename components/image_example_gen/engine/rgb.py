"""Conversion of any picture to plain 8-bit RGB."""

import numpy as np
from PIL import Image


class NoWhiteLevelError(ValueError):
    """The pixels are numbers of unknown range, so there is no telling which value is white."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a decoded picture to 8-bit RGB.

    Transparency is laid over white, 16-bit gray is scaled to 8 bits, palette, gray, CMYK and the like are converted
    as Pillow does it.

    Args:
        image: a loaded picture of any mode.

    Returns:
        A picture of mode "RGB" and the same size; the argument itself if it is one already.

    Raises:
        NoWhiteLevelError: floating-point pixels, or integers beyond 16 bits.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _gray_from_numbers(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _gray_from_numbers(image: Image.Image) -> Image.Image:
    """Scales gray levels from [0, 65535] to [0, 255]; Pillow's own conversion would clip them instead."""
    values = np.asarray(image)
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() > 0xFFFF:
        raise NoWhiteLevelError("floating-point or 32-bit pixels have no defined white; save it as 8- or 16-bit")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
