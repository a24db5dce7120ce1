"""Where things lie in JPEG, PNG and WebP files: found in the bytes with TensorFlow's own operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

EXIF_HEADER = b"Exif\0\0"
# What stands first in EXIF data is enough; the thumbnail and the notes of the camera's maker follow.
MOST_EXIF_BYTES = 2**16
# What is in so many parts is no camera's file, and following them takes time.
_MOST_PARTS = 500
# Where the search ends: at the quantisation tables of a JPEG, at the pixels of a PNG, which hardly any program writes
# EXIF data behind, and at a WebP's XMP, its last chunk.
_JPEG_TABLES, _PNG_PIXELS, _WEBP_METADATA = b"\xff\xdb", b"IDAT", b"XMP "
# PNG specification, section 11.2.1: where the colour type stands, and those that have an alpha channel.
_PNG_COLOUR_AT, _PNG_GRAY_WITH_ALPHA, _PNG_RGB_WITH_ALPHA = 25, b"\4", b"\6"
# WebP Container Specification, extended file format: where the flags stand in the VP8X chunk, which comes first.
_WEBP_FLAGS_AT, _WEBP_ANIMATION, _WEBP_EXIF = 20, 0x02, 0x08


class _Part(NamedTuple):
    """A segment or chunk of a file, as scalars: its name, where its content begins and ends, where the next begins."""

    name: tf.Tensor
    begin: tf.Tensor
    end: tf.Tensor
    next: tf.Tensor


def read_bytes(data: tf.Tensor, at: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Cuts bytes out of a scalar string; those behind its end are missing."""
    return tf.strings.substr(data, tf.minimum(at, tf.strings.length(data)), count)


def read_numbers(
    data: tf.Tensor, at: tf.Tensor | int, count: tf.Tensor | int, dtype: tf.DType, big_endian: bool = False
) -> tf.Tensor:
    """Reads numbers, int32 [count], from a scalar string; those behind its end are zero."""
    size = count * dtype.size
    raw = tf.io.decode_raw(read_bytes(data, at, size), dtype, little_endian=not big_endian, fixed_length=size)
    return tf.cast(raw, tf.int32)


def is_plain(encoded: tf.Tensor) -> tf.Tensor:
    """Tells of a file, a scalar string, whether its first bytes are enough to know it for upright and opaque.

    True for a JPEG that has tables right behind the header of JFIF, and for a PNG without an alpha channel that has
    pixels right behind its header; so Pillow and many others write them.
    """
    is_jfif = (read_bytes(encoded, 0, 6) == b"\xff\xd8\xff\xe0\0\x10") & (read_bytes(encoded, 20, 2) == _JPEG_TABLES)
    has_pixels_next = is_png(encoded) & (read_bytes(encoded, 37, 4) == _PNG_PIXELS)
    return is_jfif | (has_pixels_next & ~has_alpha_channel(encoded))


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Tells whether a file, a scalar string, is a JPEG."""
    return read_bytes(encoded, 0, 3) == b"\xff\xd8\xff"


def is_png(encoded: tf.Tensor) -> tf.Tensor:
    """Tells whether a file, a scalar string, is a PNG."""
    return read_bytes(encoded, 0, 8) == b"\x89PNG\r\n\x1a\n"


def is_still_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Tells whether a file, a scalar string, is a WebP and no animation.

    For one of three channels, TensorFlow 2.21 writes the pixels of an animation, which have four, beyond their memory.
    """
    is_webp = (read_bytes(encoded, 0, 4) == b"RIFF") & (read_bytes(encoded, 8, 4) == b"WEBP")
    return is_webp & ~_has_webp_flag(encoded, _WEBP_ANIMATION)


def has_alpha_channel(encoded: tf.Tensor) -> tf.Tensor:
    """Tells whether a PNG, a scalar string, has an alpha channel."""
    colour = read_bytes(encoded, _PNG_COLOUR_AT, 1)
    return (colour == _PNG_GRAY_WITH_ALPHA) | (colour == _PNG_RGB_WITH_ALPHA)


def find_jpeg_exif(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF data of a JPEG, both scalar strings; empty where it has none."""
    return _find(encoded, 2, _jpeg_segment, EXIF_HEADER, _JPEG_TABLES)


def find_png_chunk(encoded: tf.Tensor, name: bytes) -> tf.Tensor:
    """Returns the content of a PNG's first chunk of a name; empty where none stands before the pixels."""
    return _find(encoded, 8, _png_chunk, name, _PNG_PIXELS)


def find_webp_exif(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF data of a WebP; empty where it has none."""
    exif = _find(encoded, 12, _webp_chunk, b"EXIF", _WEBP_METADATA)
    return tf.where(_has_webp_flag(encoded, _WEBP_EXIF), exif, b"")


def _has_webp_flag(encoded: tf.Tensor, flag: int) -> tf.Tensor:
    """Tells whether a WebP is one of the extended format and has a flag set there."""
    flags = read_numbers(encoded, _WEBP_FLAGS_AT, 1, tf.uint8)[0]
    return (read_bytes(encoded, 12, 4) == b"VP8X") & (flags & flag != 0)


def _jpeg_segment(encoded: tf.Tensor, at: tf.Tensor) -> _Part:
    """Reads a segment: a marker of two bytes, the size, counted from itself on. One of EXIF data is named by those."""
    marker, size = read_bytes(encoded, at, 2), read_numbers(encoded, at + 2, 1, tf.uint16, big_endian=True)[0]
    content = read_bytes(encoded, at + 4, len(EXIF_HEADER))
    name = tf.where((marker == b"\xff\xe1") & (content == EXIF_HEADER), content, marker)
    is_segment = read_bytes(marker, 0, 1) == b"\xff"
    end = at + 2 + size
    return _Part(name, begin=at + 4 + len(EXIF_HEADER), end=end, next=tf.where(is_segment, end, at))


def _png_chunk(encoded: tf.Tensor, at: tf.Tensor) -> _Part:
    """Reads a chunk: the size of the content, a name, the content, a checksum of four bytes."""
    end = at + 8 + read_numbers(encoded, at, 1, tf.int32, big_endian=True)[0]
    return _Part(read_bytes(encoded, at + 4, 4), begin=at + 8, end=end, next=end + 4)


def _webp_chunk(encoded: tf.Tensor, at: tf.Tensor) -> _Part:
    """Reads a chunk: a name, the size of the content, the content, filled up to an even number of bytes."""
    size = read_numbers(encoded, at + 4, 1, tf.int32)[0]
    end = at + 8 + size
    return _Part(read_bytes(encoded, at, 4), begin=at + 8, end=end, next=end + size % 2)


def _find(
    encoded: tf.Tensor, first: int, read: Callable[[tf.Tensor, tf.Tensor], _Part], name: bytes, last: bytes
) -> tf.Tensor:
    """Goes from part to part of a file.

    Args:
        encoded: Scalar string, the file.
        first: Where its first part begins.
        read: Reads the part that begins somewhere.
        name: Of the part that is looked for.
        last: Name of the part behind which it is not looked for.

    Returns:
        Scalar string, the content of the part; empty where there is none.
    """

    def following(at: tf.Tensor) -> tf.Tensor:
        part = read(encoded, at)
        is_end = (part.name == name) | (part.name == last) | (part.next >= tf.strings.length(encoded))
        return tf.where(is_end, at, part.next)

    # A size that no file has makes a negative number of the next part's beginning, and ends the search too.
    at, _ = tf.while_loop(
        lambda at, next_at: next_at > at,
        lambda _, next_at: (next_at, following(next_at)),
        (tf.constant(first), following(tf.constant(first))),
        maximum_iterations=_MOST_PARTS,
    )
    part = read(encoded, at)
    size = tf.clip_by_value(part.end - part.begin, 0, MOST_EXIF_BYTES)
    return tf.where(part.name == name, read_bytes(encoded, part.begin, size), b"")
