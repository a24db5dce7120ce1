"""What is stored of a picture: its own bytes where they will do, otherwise a new encoding."""

import io
from typing import Literal

import numpy as np
import tensorflow as tf
from PIL import Image

StoredFormat = Literal["jpeg", "png"]

# Byte offsets of bit depth and colour type in a PNG file, whose header chunk always comes first (PNG specification,
# section 11.2.1); colour type 2 is RGB.
_PNG_DEPTH_AND_COLOUR = slice(24, 26)
_PNG_8_BIT_RGB = bytes((8, 2))

# At this quality, without subsampling of colour, a second compression is not visible.
_JPEG_QUALITY = 95
# On photos, higher levels take several times as long and save nothing (measured with Pillow's zlib-ng).
_PNG_LEVEL = 4


def own_bytes_will_do(data: bytes, image_format: str, pixels: np.ndarray) -> bool:
    """Tells whether TensorFlow reads a file's own bytes to exactly the picture that Pillow made of them.

    The proof is by decoding: it also finds what no header tells, such as damage that only one of the decoders can
    repair. Both use libjpeg-turbo and agree bit for bit with the accurate inverse DCT.

    Args:
        data: the file's content.
        image_format: Pillow's name of its format.
        pixels: what is to be stored: uint8 RGB, shape [height, width, 3].

    Returns:
        True for JPEG and 8-bit RGB PNG files that decode to `pixels`.
    """
    try:
        if image_format == "JPEG":
            # A tensor, since bytes would send the call down TensorFlow's slow path.
            decoded = tf.io.decode_jpeg(tf.constant(data), channels=3, dct_method="INTEGER_ACCURATE")
        elif image_format == "PNG" and data[_PNG_DEPTH_AND_COLOUR] == _PNG_8_BIT_RGB:
            decoded = tf.io.decode_png(data, channels=3)
        else:
            return False
    except tf.errors.InvalidArgumentError:
        return False
    return np.array_equal(decoded.numpy(), pixels)


def encode(rgb: Image.Image, stored_format: StoredFormat) -> bytes:
    """Encodes a picture of mode "RGB": lossless as PNG, nearly so as JPEG."""
    buffer = io.BytesIO()
    if stored_format == "jpeg":
        rgb.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4")
    else:
        rgb.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()
