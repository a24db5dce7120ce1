"""How a photo lies in its file, told by its EXIF data, for a graph: with TensorFlow's own operations on the bytes."""

from __future__ import annotations

import tensorflow as tf

from trainer_module.file_parts import EXIF_HEADER, MOST_EXIF_BYTES, read_bytes, read_numbers

# EXIF (CIPA DC-008), chapter 4.6: an entry is tag and type, 16 bits each, the number of values, 32 bits, and in 32 more
# where the values are, or the values themselves if they fit. Of each type, how many bytes a value takes; 0 is unknown.
_ENTRY_BYTES = 12
_VALUE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0)
_ORIENTATION_TAG, _SHORT = 0x0112, 3
_UPRIGHT, _LAST_ORIENTATION = 1, 8
_LITTLE_ENDIAN, _BIG_ENDIAN = b"II*\0", b"MM\0*"


def turn_upright(pixels: tf.Tensor, exif: tf.Tensor) -> tf.Tensor:
    """Turns an image the way that its EXIF data say.

    Args:
        pixels: Of shape [S, S, 3], of any type.
        exif: Scalar string; where it is empty or damaged, the image is left as it is.

    Returns:
        The same pixels as they are to be viewed.
    """
    return tf.cond(exif == b"", lambda: pixels, lambda: _turn(pixels, _orientation_of(exif)))


def _turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    # From 5 on, rows and columns change places. Of each four the first is not mirrored then, the others are, left to
    # right, both ways, top to bottom.
    turned = tf.transpose(pixels, tf.where(orientation > 4, [1, 0, 2], [0, 1, 2]))
    down, across = tf.unstack(tf.gather([[1, 1], [1, -1], [-1, -1], [-1, 1]], (orientation - 1) % 4))
    return tf.ensure_shape(turned[::down, ::across], pixels.shape)


def _orientation_of(exif: tf.Tensor) -> tf.Tensor:
    """Reads the orientation from the first directory of EXIF data, which describes the photo and not its thumbnail.

    Args:
        exif: Scalar string.

    Returns:
        Scalar int32 from 1 to 8.
    """
    has_header = read_bytes(exif, 0, len(EXIF_HEADER)) == EXIF_HEADER
    tiff = read_bytes(exif, tf.where(has_header, len(EXIF_HEADER), 0), MOST_EXIF_BYTES)
    byte_order, length = read_bytes(tiff, 0, 4), tf.strings.length(tiff)

    def numbers(at: tf.Tensor | int, count: tf.Tensor | int, dtype: tf.DType) -> tf.Tensor:
        little = read_numbers(tiff, at, count, dtype)
        return tf.where(byte_order == _BIG_ENDIAN, read_numbers(tiff, at, count, dtype, big_endian=True), little)

    directory = numbers(4, 1, tf.int32)[0]
    directory = tf.where((directory >= 0) & (directory < length), directory, length)
    whole_entries = (length - directory - 2) // _ENTRY_BYTES
    count = tf.minimum(numbers(directory, 1, tf.uint16)[0], whole_entries)
    rows = tf.maximum(count, 1)
    words = tf.reshape(numbers(directory + 2, 6 * rows, tf.uint16), [-1, 6])
    tags, kinds, values = words[:, 0], words[:, 1], words[:, 4]
    longs = tf.reshape(numbers(directory + 2, 3 * rows, tf.int32), [-1, 3])
    is_read = (tf.range(rows) < count) & ~_follows_missing_values(kinds, longs, length)
    is_orientation = (tags == _ORIENTATION_TAG) & (kinds == _SHORT) & (longs[:, 1] == 1)
    value = tf.concat([[_UPRIGHT], tf.boolean_mask(values, is_read & is_orientation)], axis=0)[-1]
    is_known = (byte_order == _LITTLE_ENDIAN) | (byte_order == _BIG_ENDIAN)
    return tf.where(is_known & (value > 0) & (value <= _LAST_ORIENTATION), value, _UPRIGHT)


def _follows_missing_values(kinds: tf.Tensor, longs: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Tells of each entry whether its values, or those of one before, lie behind the end of the data.

    Pillow reads no further than there.

    Args:
        kinds: int32 of shape [N], the types of the values.
        longs: int32 of shape [N, 3], the entries, of which the last two numbers have no sign.
        length: Scalar int32, how many bytes there are.

    Returns:
        bool of shape [N].
    """
    counts, offsets = tf.unstack(tf.cast(tf.bitcast(longs[:, 1:], tf.uint32), tf.int64), axis=1)
    sizes = counts * tf.gather(tf.constant(_VALUE_BYTES, tf.int64), tf.minimum(kinds, len(_VALUE_BYTES) - 1))
    is_missing = (sizes > 4) & (offsets + sizes > tf.cast(length, tf.int64))
    return tf.cumsum(tf.cast(is_missing, tf.int32)) > 0
