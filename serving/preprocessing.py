"""From the bytes of an image file to the pixels that a model takes.

The server's half of the project's one definition of preprocessing; the other half is the TensorFlow graph that the
model was trained behind. A test compares the two and states how far apart they may be.
"""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from serving.errors import ServingError
from serving.jpeg_scans import TOO_MANY_SCANS, has_more_scans
from serving.options import MAX_PIXELS
from serving.photos import FORMATS, NAMES_OF_FORMATS, NoWhiteLevelError, to_rgb, turn_to_upright

# Pillow warns of photos of fewer pixels than are allowed here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes an image file to plain RGB, by the rules of the ingest.

    EXIF orientation is applied, transparency is laid over white, samples of 16 bits are scaled to 8, CMYK and palettes
    are converted, and of an animation the first frame counts.

    Args:
        data: The content of the file.
        max_pixels: Most pixels (height times width) that are decoded; guards the memory, of which a pixel takes up to
            40 bytes while it is decoded.

    Returns:
        An image of mode RGB.

    Raises:
        ServingError: Not an image of a known format, broken, too large, or a JPEG of very many scans.
    """
    if has_more_scans(data):
        raise ServingError(TOO_MANY_SCANS)
    try:
        rgb, turn = _load(data, max_pixels)
        return rgb if turn is None else rgb.transpose(turn)
    except ServingError:
        raise
    except NoWhiteLevelError as error:
        raise ServingError(str(error)) from error
    except UnidentifiedImageError:
        raise ServingError(f"not an image of a known format ({NAMES_OF_FORMATS})") from None
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


def _load(data: bytes, max_pixels: int) -> tuple[Image.Image, Image.Transpose | None]:
    """Returns the picture as it lies in the file, and what turns it once that which it was made from is freed."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image, max_pixels)
        image.load()
        return to_rgb(image), turn_to_upright(image)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ServingError(f"{image.width} x {image.height} pixels are more than the {max_pixels:,} allowed: shrink it")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
