"""From the image files that people send to a SavedModel to the pixels that ingest and Transform make of such files."""

from __future__ import annotations

import functools

import tensorflow as tf

from trainer_module.file_parts import (
    find_jpeg_exif,
    find_png_chunk,
    find_webp_exif,
    has_alpha_channel,
    is_jpeg,
    is_plain,
    is_png,
    is_still_webp,
    read_bytes,
)
from trainer_module.orientation import turn_upright
from trainer_module.preprocessing import decode_image, decode_stored, map_images, resize

# Where the size of a BMP's header stands, and the bits of a pixel with the kind of compression. TensorFlow takes the
# numbers of a palette for gray levels, and all headers for those of 40 bytes.
_BMP_HEADER_AT, _BMP_BITS_AT = 14, 28

# Otherwise TensorFlow puts the operations of a function beside those of its caller, and goes through all of them for
# every photo, however few are computed: that takes longer than decoding a small one.
_apart = functools.partial(tf.function, autograph=False, experimental_attributes={"_noinline": True})


def decode_photos(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decodes and resizes files of any origin, turned upright and with transparency laid over white.

    Args:
        encoded: Strings of shape [N], each a JPEG, a PNG, a WebP that is no animation, a BMP of 24 or 32 bits a pixel,
            or a GIF. Its first frame counts, and its transparent pixels become black: TensorFlow does not tell which.
        image_size: Side of the result, in pixels.

    Returns:
        uint8 RGB pixels of shape [N, image_size, image_size, 3].
    """

    def decode(one: tf.Tensor) -> tf.Tensor:
        return tf.cond(is_plain(one), lambda: decode_image(one, image_size), lambda: _decode_any(one, image_size))

    # A GPU would be handed a few bytes at a time.
    with tf.device("CPU:0"):
        return map_images(decode, encoded, image_size)


@_apart
def _decode_any(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    kinds = [
        (is_jpeg(encoded), lambda: _decode_jpeg(encoded, image_size)),
        (is_png(encoded), lambda: _decode_png(encoded, image_size)),
        (is_still_webp(encoded), lambda: _decode_webp(encoded, image_size)),
    ]
    return tf.case(kinds, default=lambda: _decode_other(encoded, image_size))


@_apart
def _decode_jpeg(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    # Turned last, since a square of few pixels is turned faster than a photo.
    return turn_upright(decode_image(encoded, image_size), find_jpeg_exif(encoded))


@_apart
def _decode_png(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    pixels = tf.cond(
        has_alpha_channel(encoded) | (find_png_chunk(encoded, b"tRNS") != b""),
        lambda: _over_white(tf.io.decode_png(encoded, channels=4)),
        lambda: decode_stored(encoded),
    )
    return turn_upright(resize(pixels, image_size), find_png_chunk(encoded, b"eXIf"))


@_apart
def _decode_webp(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    # TensorFlow decodes a WebP to as many channels as it has, and to no other number.
    pixels = tf.io.decode_image(encoded, channels=0, expand_animations=False)
    rgb = tf.cond(tf.shape(pixels)[-1] == 4, lambda: _over_white(pixels), lambda: pixels)
    return turn_upright(resize(rgb, image_size), find_webp_exif(encoded))


@_apart
def _decode_other(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    pixels = tf.cond(
        (read_bytes(encoded, 0, 4) == b"GIF8") | _is_plain_bmp(encoded),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
        # It refuses what it does not know.
        lambda: decode_stored(encoded),
    )
    return resize(pixels, image_size)


def _is_plain_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Tells whether a file is a BMP that holds colours, 24 or 32 bits a pixel, which are not compressed."""
    has_known_header = read_bytes(encoded, _BMP_HEADER_AT, 4) == b"\x28\0\0\0"
    bits = read_bytes(encoded, _BMP_BITS_AT, 6)
    holds_colours = (bits == b"\x18\0\0\0\0\0") | (bits == b"\x20\0\0\0\0\0")
    return (read_bytes(encoded, 0, 2) == b"BM") & has_known_header & holds_colours


def _over_white(pixels: tf.Tensor) -> tf.Tensor:
    """Lays uint8 RGBA [H, W, 4] over white, and rounds to the nearest level as Pillow does."""
    wide = tf.cast(pixels, tf.uint16)
    colour, alpha = wide[..., :3], wide[..., 3:]
    mixed = colour * alpha + 255 * (255 - alpha) + 128
    # A rounded division by 255, exact for all that can come.
    return tf.cast(tf.bitwise.right_shift(mixed + tf.bitwise.right_shift(mixed, 8), 8), tf.uint8)
