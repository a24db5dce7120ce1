"""Which image files are photos and how each becomes upright 8-bit RGB, for the ingest and for the server."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import ExifTags, Image

# Pillow can do more, but some of its readers start other programs (EPS) or are meant for other things than photos.
FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "JPEG2000")
NAMES_OF_FORMATS: Final = "JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF, PPM, JPEG 2000"

# The transformations that undo each orientation of the EXIF standard (CIPA DC-008, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What is converted at a time. Converting takes up to 17 bytes for a pixel besides the picture and its copy.
_PIXELS_OF_A_PART = 2**18


class NoWhiteLevelError(ValueError):
    """The pixels are numbers of unknown range, so there is no telling which value is white."""


def turn_to_upright(image: Image.Image) -> Image.Transpose | None:
    """Returns what undoes the orientation that a picture's EXIF data tell; None where it is upright."""
    try:
        return _UPRIGHT.get(int(image.getexif().get(ExifTags.Base.Orientation, 1)))
    # Damaged metadata say nothing of the picture, which has been decoded.
    except Exception:
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a decoded picture to 8-bit RGB.

    Transparency is laid over white, 16-bit gray is scaled to 8 bits, palette, gray, CMYK and the like are converted
    as Pillow does it.

    Args:
        image: A loaded picture of any mode.

    Returns:
        A picture of mode "RGB" and the same size; the argument itself if it is one already.

    Raises:
        NoWhiteLevelError: Floating-point pixels, or integers beyond 16 bits.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    rgb = Image.new("RGB", image.size)
    for box in _parts(image.width, image.height):
        rgb.paste(_part_to_rgb(image.crop(box)), box)
    return rgb


def _parts(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Divides a picture into boxes of few pixels, of whole rows unless a row alone has more."""
    columns = min(width, _PIXELS_OF_A_PART)
    rows = _PIXELS_OF_A_PART // columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)


def _part_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _gray_from_numbers(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _gray_from_numbers(image: Image.Image) -> Image.Image:
    """Scales gray levels from [0, 65535] to [0, 255]; Pillow's own conversion would clip them instead."""
    values = np.asarray(image)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise NoWhiteLevelError("floating-point or 32-bit pixels have no defined white; save it as 8- or 16-bit")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
