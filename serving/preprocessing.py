"""From the bytes of an image file to the pixels that a model takes.

The server's half of the project's one definition of preprocessing; the other half is the TensorFlow graph that the
model was trained behind. A test compares the two and states how far apart they may be.
"""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from serving.errors import ServingError

# Those of the ingest. Pillow can do more, but some of its readers start other programs or are not meant for photos.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "JPEG2000")
_NAMES_OF_FORMATS = "JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF, PPM, JPEG 2000"

# EXIF 2.32 (CIPA DC-008), tag 0x0112: what undoes each orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

MAX_PIXELS: Final = 50_000_000


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes an image file to plain RGB, by the rules of the ingest.

    EXIF orientation is applied, transparency is laid over white, samples of 16 bits are scaled to 8, CMYK and palettes
    are converted, and of an animation the first frame counts.

    Args:
        data: The content of the file.
        max_pixels: Most pixels (height times width) that are decoded; guards the memory.

    Returns:
        An image of mode RGB.

    Raises:
        ServingError: Not an image of a known format, broken, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, max_pixels)
            image.load()
            return _upright(_to_rgb(image), _orientation(image))
    except ServingError:
        raise
    except UnidentifiedImageError:
        raise ServingError(f"not an image of a known format ({_NAMES_OF_FORMATS})") from None
    # Pillow's decoders raise errors of many types on bytes that break their format, and promise none.
    except Exception as error:
        raise ServingError(f"broken image: {_first_line(error)}") from error


def to_pixels(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Resizes an image to the model's input; the aspect ratio is not kept.

    Args:
        image: An image of mode RGB.
        image_size: Height and width of the result, in pixels.

    Returns:
        RGB pixels, uint8 [image_size, image_size, 3].
    """
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BILINEAR))


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ServingError(f"{image.width} x {image.height} pixels are more than the {max_pixels:,} allowed: shrink it")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _gray_from_numbers(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _gray_from_numbers(image: Image.Image) -> Image.Image:
    """Scales gray of 16 bits to 8; Pillow's own conversion would clip it."""
    values = np.asarray(image)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise ServingError(
            "pixels are floating-point or of 32 bits, where no value is white: save it with 8 or 16 bits"
        )
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Damaged metadata say nothing of the picture, which has been decoded.
    except Exception:
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
