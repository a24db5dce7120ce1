"""What the graph of a SavedModel makes of image files, against Pillow, with which ingest and server decode them."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving.preprocessing import decode_image, to_pixels
from tests.image_files import encoded, jpeg, picture, with_orientation
from trainer_module.photo_files import decode_photos

SIZE = 16
UNEQUAL = picture(48, 32)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def _graph(files):
    return decode_photos(files, SIZE)


def _decoded(*files: bytes) -> np.ndarray:
    return _graph(tf.constant(files)).numpy().astype(int)


def _assert_like_the_server(content: bytes, most: int = 1) -> None:
    expected = to_pixels(decode_image(content), SIZE)
    assert np.abs(_decoded(content)[0] - expected).max() <= most


def _exif(*directories: list[tuple[int, int, int, int]], big_endian: bool = False) -> bytes:
    """Returns EXIF data of directories, each a list of tag, type, number of values, value."""
    order = ">" if big_endian else "<"
    data = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "I", 8)
    for number, entries in enumerate(directories, 1):
        data += struct.pack(order + "H", len(entries))
        for tag, kind, count, value in entries:
            packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
            data += struct.pack(order + "HHI", tag, kind, count) + packed
        data += struct.pack(order + "I", len(data) + 4 if number < len(directories) else 0)
    return data


def _with_exif(data: bytes, content: bytes | None = None) -> bytes:
    """Puts EXIF data into a JPEG, between its first two bytes and the rest."""
    content = content or jpeg(UNEQUAL)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 8) + b"Exif\0\0" + data + content[2:]


ORIENTED = [(0x010F, 2, 4, 0x0041), (0x0112, 3, 1, 6)]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(image_format, orientation):
    content = encoded(UNEQUAL, image_format, exif=with_orientation(orientation))
    _assert_like_the_server(content)
    upright = _decoded(encoded(UNEQUAL, image_format))[0]
    assert (np.abs(_decoded(content)[0] - upright).mean() > 10) == (orientation > 1)


@pytest.mark.parametrize("big_endian", [False, True])
def test_both_orders_of_bytes_are_read(big_endian):
    content = _with_exif(_exif(ORIENTED, big_endian=big_endian))
    _assert_like_the_server(content)
    assert np.abs(_decoded(content) - _decoded(jpeg(UNEQUAL))).mean() > 10


def test_the_orientation_of_the_thumbnail_is_not_the_photos():
    content = _with_exif(_exif([(0x010F, 2, 4, 0x0041)], [(0x0112, 3, 1, 6)]))
    np.testing.assert_array_equal(_decoded(content), _decoded(jpeg(UNEQUAL)))


def test_exif_data_are_found_behind_colour_profiles_and_comments():
    content = jpeg(UNEQUAL, icc_profile=b"x" * 150_000, comment=b"Exif\0\0II*\0")
    tables = content.index(b"\xff\xdb")
    content = content[:tables] + _with_exif(_exif(ORIENTED), b"\xff\xd8")[2:] + content[tables:]
    _assert_like_the_server(content)
    assert np.abs(_decoded(content) - _decoded(jpeg(UNEQUAL))).mean() > 10


def test_words_in_the_pixels_or_behind_the_photo_are_no_exif_data():
    content = jpeg(UNEQUAL) + _with_exif(_exif(ORIENTED))
    np.testing.assert_array_equal(_decoded(content), _decoded(jpeg(UNEQUAL)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"II*\0",
        _exif(ORIENTED)[:20],
        _exif(ORIENTED)[:30],
        b"XX*\0" + _exif(ORIENTED)[4:],
        _exif([(0x0112, 3, 1, 9)]),
        _exif([(0x0112, 3, 1, 0)]),
        _exif([(0x0112, 2, 1, 6)]),
        _exif([(0x010F, 2, 2**32 - 1, 6), *ORIENTED]),
        _exif([(0x010F, 2, 100, 2**32 - 1), *ORIENTED]),
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\xff\xff\xff\x7f",
        b"II*\0\x08\0\0\0\xff\xff",
    ],
)
def test_damaged_exif_data_leave_the_photo_as_it_is(data):
    for content in (_with_exif(data), encoded(UNEQUAL, "PNG", exif=b"Exif\0\0" + data)):
        _assert_like_the_server(content)
    np.testing.assert_array_equal(_decoded(_with_exif(data)), _decoded(jpeg(UNEQUAL)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_is_read_as_pillow_reads_it():
    rng = np.random.default_rng(0)
    whole = _exif([(0x010F, 2, 8, 50), (0x0112, 3, 1, 6), (0x011A, 5, 1, 50)]) + bytes(8)
    turned = 0
    for _ in range(300):
        exif = bytearray(whole)
        for at in rng.integers(0, len(exif), rng.integers(0, 3)):
            exif[at] = rng.choice([0, 1, 255, rng.integers(256)])
        content = _with_exif(bytes(exif))
        _assert_like_the_server(content)
        turned += np.abs(_decoded(content) - _decoded(jpeg(UNEQUAL))).mean() > 10
    assert 50 < turned < 290


@pytest.mark.parametrize("filler", [b"\xff\xeb\0\2", b"\xff\xe1\0\0", b"\xff\xff"])
def test_millions_of_empty_segments_are_not_followed(filler):
    content = jpeg(UNEQUAL)
    padded = content[:2] + filler * 100_000 + _with_exif(_exif(ORIENTED), content)[2:]
    np.testing.assert_array_equal(_decoded(padded), _decoded(content))


def _transparent(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (32, 48, 4), dtype=np.uint8)).convert(mode)


def _palette() -> Image.Image:
    indices = np.arange(32 * 48, dtype=np.uint8).reshape(32, 48) % 3
    image = Image.fromarray(indices, "P")
    image.putpalette([250, 0, 0, 0, 240, 0, 0, 0, 230])
    return image


@pytest.mark.parametrize(
    "content",
    [
        encoded(_transparent("RGBA")),
        encoded(_transparent("LA")),
        encoded(_transparent("RGBA"), exif=with_orientation(6)),
        encoded(_palette(), transparency=1),
        encoded(_palette(), transparency=bytes([0, 100, 200])),
        encoded(Image.new("RGB", (48, 32), (10, 20, 30)), transparency=(10, 20, 30)),
        encoded(_transparent("L").point(lambda level: level // 64 * 64), transparency=64),
        encoded(_transparent("1"), transparency=0),
        encoded(_transparent("RGBA"), "WEBP"),
        encoded(_transparent("RGBA"), "WEBP", lossless=True, exact=True, exif=with_orientation(5)),
    ],
)
def test_transparency_is_laid_over_white(content):
    _assert_like_the_server(content)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_become_eight(channels):
    samples = np.random.default_rng(0).integers(0, 65536, (32, 48, channels), dtype=np.uint16)
    # Gray levels of 16 bits are rounded by the server and cut off by TensorFlow.
    _assert_like_the_server(tf.io.encode_png(samples).numpy(), most=2)


@pytest.mark.parametrize(
    "content",
    [
        encoded(_palette()),
        encoded(_transparent("1")),
        encoded(UNEQUAL, "GIF"),
        encoded(Image.new("RGB", (48, 32), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (48, 32))]),
        encoded(UNEQUAL, "BMP"),
        encoded(_transparent("RGBA"), "BMP"),
        encoded(UNEQUAL, "WEBP"),
        jpeg(_transparent("CMYK")),
        jpeg(_transparent("L")),
    ],
)
def test_other_kinds_are_decoded_like_by_the_server(content):
    _assert_like_the_server(content)


# An animation without transparency is what TensorFlow writes beyond its memory, if it is asked for the file's channels.
ANIMATION = encoded(
    Image.new("RGB", (48, 32), "red"), "WEBP", save_all=True, append_images=[Image.new("RGB", (48, 32))], lossless=True
)


@pytest.mark.parametrize(
    "content",
    [
        *(encoded(UNEQUAL, image_format) for image_format in ("TIFF", "AVIF", "JPEG2000", "PPM")),
        ANIMATION,
        encoded(_palette(), "BMP"),
        encoded(_transparent("L"), "BMP"),
        b"",
        b"junk",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBPVP8X",
        b"BM",
        b"GIF89a",
    ],
)
def test_what_cannot_be_decoded_is_refused(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        _decoded(content)


def test_every_photo_of_a_batch_is_turned_by_its_own_exif_data():
    files = [jpeg(UNEQUAL, exif=with_orientation(orientation)) for orientation in (6, 1, 3)] + [jpeg(UNEQUAL)]
    np.testing.assert_array_equal(_decoded(*files), np.concatenate([_decoded(file) for file in files]))
