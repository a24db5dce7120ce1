"""Decoding of every kind of image that people send, against values computed without Pillow's conversions."""

import base64
import io
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from edge_images import encode, photo
from edge_servers import PREDICT, REPOSITORY
from numpy.typing import NDArray
from PIL import Image

from serving.errors import ServingError
from serving.jpeg_scans import has_more_scans
from serving.preprocessing import decode_image, to_pixels
from tests.hostile_photos import scan_bomb
from tests.image_files import MOST_BYTES_PER_PIXEL, deep_jpeg2000, with_orientation

HEIGHT, WIDTH = 32, 48
ORIENTATION_TAG = 0x0112
REFUSALS = r"not an image of a known format|broken image"

# EXIF 2.32, tag Orientation: how the stored rows and columns are turned for viewing.
VIEWED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def _decode(data: bytes) -> NDArray[np.int64]:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image).astype(np.int64)


def _over_white(color: NDArray[np.int64], alpha: NDArray[np.int64]) -> NDArray[np.float64]:
    return color * (alpha / 255) + 255 * (1 - alpha / 255)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", VIEWED)
def test_exif_orientation_is_applied(rng: np.random.Generator, image_format: str, orientation: int) -> None:
    image = photo(rng, HEIGHT, WIDTH)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored = _decode(encode(image, image_format))
    np.testing.assert_array_equal(_decode(encode(image, image_format, exif=exif)), VIEWED[orientation](stored))


@pytest.mark.parametrize(("image_format", "tolerance"), [("TIFF", 1), ("JPEG", 4)])
@pytest.mark.parametrize("inks", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 128, 64, 0), (10, 20, 30, 200), (0, 0, 0, 255)])
def test_cmyk_is_converted(image_format: str, tolerance: int, inks: tuple[int, ...]) -> None:
    image = Image.new("CMYK", (WIDTH, HEIGHT), inks)
    options = {"quality": 100} if image_format == "JPEG" else {}
    expected = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    assert np.abs(_decode(encode(image, image_format, **options)) - expected).max() <= tolerance


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled(image_format: str) -> None:
    samples = np.linspace(0, 65535, HEIGHT * WIDTH).round().astype(np.uint16).reshape(HEIGHT, WIDTH)
    decoded = _decode(encode(Image.fromarray(samples), image_format))
    assert np.abs(decoded - samples[..., np.newaxis] / 257).max() <= 1
    assert (decoded.min(), decoded.max()) == (0, 255)


def test_every_level_of_sixteen_bits_is_rounded_to_the_nearest_of_eight() -> None:
    levels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    gray = _decode(encode(Image.fromarray(levels), "PNG"))[..., 0]
    np.testing.assert_array_equal(gray, np.rint(levels / 257))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_of_any_kind_is_scaled(rng: np.random.Generator, channels: int) -> None:
    import tensorflow as tf

    samples = rng.integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    scaled = samples / 257
    color = scaled[..., :-1] if channels in (2, 4) else scaled
    expected = _over_white(color, scaled[..., -1:]) if channels in (2, 4) else color
    decoded = _decode(tf.io.encode_png(samples).numpy())
    # Colour, alpha and their blend may each be off by one.
    assert np.abs(decoded - expected).max() <= 3


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_laid_over_white(rng: np.random.Generator, image_format: str) -> None:
    rgba = rng.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    decoded = _decode(encode(Image.fromarray(rgba, "RGBA"), image_format, **options))
    exact = rgba.astype(np.int64)
    assert np.abs(decoded - _over_white(exact[..., :3], exact[..., 3:])).max() <= 1


def test_gray_with_alpha_is_laid_over_white(rng: np.random.Generator) -> None:
    gray_alpha = rng.integers(0, 256, (HEIGHT, WIDTH, 2), dtype=np.uint8)
    decoded = _decode(encode(Image.fromarray(gray_alpha, "LA"), "PNG"))
    exact = gray_alpha.astype(np.int64)
    assert np.abs(decoded - _over_white(exact[..., :1], exact[..., 1:])).max() <= 1


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_transparent_palette_entries_become_white(image_format: str) -> None:
    indices = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3
    image = Image.fromarray(indices, "P")
    image.putpalette([250, 0, 0, 0, 240, 0, 0, 0, 230])
    decoded = _decode(encode(image, image_format, transparency=1))
    np.testing.assert_array_equal(decoded, np.array([[250, 0, 0], [255, 255, 255], [0, 0, 230]])[indices])


def test_a_transparent_color_becomes_white() -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30))
    image.paste((90, 80, 70), (0, 0, WIDTH // 2, HEIGHT))
    decoded = _decode(encode(image, "PNG", transparency=(10, 20, 30)))
    np.testing.assert_array_equal(decoded[0, [0, -1]], [[90, 80, 70], [255, 255, 255]])


@pytest.mark.parametrize("mode", ["1", "L"])
def test_gray_has_three_equal_channels(rng: np.random.Generator, mode: str) -> None:
    gray = photo(rng, HEIGHT, WIDTH).convert(mode)
    expected = np.repeat(np.asarray(gray.convert("L"))[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(_decode(encode(gray, "PNG")), expected)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_of_an_animation_counts(image_format: str) -> None:
    first, second = Image.new("RGB", (WIDTH, HEIGHT), "red"), Image.new("RGB", (WIDTH, HEIGHT), "blue")
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(first, image_format, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
    # An MPO is two JPEGs, whose red is not quite pure.
    assert np.abs(_decode(data) - (255, 0, 0)).max() <= 1


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"%!PS-Adobe-3.0"])
def test_what_is_not_an_image_is_refused(data: bytes) -> None:
    with pytest.raises(ServingError, match=REFUSALS):
        decode_image(data)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "PPM", "JPEG2000"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(rng: np.random.Generator, image_format: str, share: float) -> None:
    data = encode(photo(rng, 200, 200), image_format)
    with pytest.raises(ServingError, match=REFUSALS) as caught:
        decode_image(data[: int(len(data) * share)])
    assert "\n" not in str(caught.value)


def test_formats_with_dangerous_decoders_are_not_tried() -> None:
    with pytest.raises(ServingError, match="not an image of a known format"):
        decode_image(encode(Image.new("RGB", (8, 8)), "EPS"))


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    data = encode(Image.new("L", (WIDTH, HEIGHT)), "PNG")
    decode_image(data, max_pixels=WIDTH * HEIGHT)
    with pytest.raises(ServingError, match=r"48 x 32 pixels are more than the 1,535 allowed"):
        decode_image(data, max_pixels=WIDTH * HEIGHT - 1)


@pytest.mark.parametrize("samples", [np.ones((8, 8), np.float32), np.full((8, 8), -1), np.full((8, 8), 65536)])
def test_numbers_of_which_none_is_white_are_refused(samples: NDArray[np.generic]) -> None:
    image = Image.fromarray(samples if samples.dtype == np.float32 else samples.astype(np.int32))
    with pytest.raises(ServingError, match="no defined white"):
        decode_image(encode(image, "TIFF"))


def test_damaged_metadata_do_not_spoil_the_picture(rng: np.random.Generator) -> None:
    image = photo(rng, HEIGHT, WIDTH)
    damaged = encode(image, "PNG", exif=b"Exif\x00\x00junk")
    np.testing.assert_array_equal(_decode(damaged), np.asarray(image))


def test_pixels_are_squashed_to_a_square(rng: np.random.Generator) -> None:
    pixels = to_pixels(photo(rng, 100, 40), 24)
    assert pixels.shape == (24, 24, 3)
    assert pixels.dtype == np.uint8


def _small_pictures(rng: np.random.Generator) -> dict[str, Image.Image]:
    """Pictures that no conversion changes when they are laid side by side."""
    rgba = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8))
    palette = Image.fromarray(rng.integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8), "P")
    palette.putpalette([250, 0, 0, 0, 240, 0, 0, 0, 230])
    palette.info["transparency"] = 1
    see_through = rgba.convert("RGB")
    see_through.putpixel((0, 0), (10, 20, 30))
    see_through.info["transparency"] = (10, 20, 30)
    deep = Image.fromarray(rng.integers(0, 65_536, (HEIGHT, WIDTH), dtype=np.uint16))
    others = {mode: rgba.convert("RGB").convert(mode) for mode in ("1", "L")}
    return {"RGBA": rgba, "LA": rgba.convert("LA"), "P": palette, "RGB": see_through, "I;16": deep, **others}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "I;16", "1", "L"])
@pytest.mark.parametrize(("across", "down"), [(12, 23), (6000, 1)])
def test_large_pictures_are_converted_like_small_ones(
    rng: np.random.Generator, mode: str, across: int, down: int
) -> None:
    small = _small_pictures(rng)[mode]
    # One row, where a single one is to be long.
    small = small.crop((0, 0, WIDTH, 1)) if down == 1 else small
    large = Image.new(mode, (small.width * across, small.height * down))
    if mode == "P":
        large.putpalette(small.getpalette())
    for left in range(0, large.width, small.width):
        for top in range(0, large.height, small.height):
            large.paste(small, (left, top))
    options = {"compress_level": 1, **{key: small.info[key] for key in ("transparency",) if key in small.info}}
    decoded = _decode(encode(large, "PNG", **options))
    assert decoded.shape[0] * decoded.shape[1] > 2**18
    np.testing.assert_array_equal(decoded, np.tile(_decode(encode(small, "PNG", **options)), (down, across, 1)))


@pytest.mark.parametrize("way", ["raw", "b64"])
def test_a_jpeg_of_very_many_scans_is_refused_at_once(http: httpx.Client, way: str) -> None:
    bomb = scan_bomb(5000)
    started = time.monotonic()
    if way == "raw":
        response = http.post("/predict", content=bomb)
    else:
        response = http.post(PREDICT, json={"instances": [{"b64": base64.b64encode(bomb).decode()}]})
    assert time.monotonic() - started < 5
    assert response.status_code == 400
    assert "a JPEG of more than 200 scans" in response.json()["error"]


@pytest.mark.parametrize("filler", [b"\xff\x01", b"\xff\xd8", b"\xff\xe0\0\2"], ids=["TEM", "SOI", "empty segments"])
def test_scans_between_millions_of_markers_are_counted_at_once(filler: bytes) -> None:
    data = b"\xff\xd8" + filler * (8_000_000 // len(filler)) + b"\xff\xda\0\2" * 201
    started = time.process_time()
    assert has_more_scans(data)
    assert time.process_time() - started < 0.5


def test_segments_that_keep_little_or_have_the_bytes_of_scans_are_taken(rng: np.random.Generator) -> None:
    data = encode(photo(rng, HEIGHT, WIDTH), "JPEG")
    segment = b"\xff\xeb\0\6\xff\xda\0\2"
    expected = _decode(data)
    np.testing.assert_array_equal(_decode(data[:2] + segment * 10_000 + data[2:]), expected)
    with pytest.raises(ServingError, match="or 20,000 segments"):
        _decode(data[:2] + segment * 20_001 + data[2:])


_MEASURE = """
import re, sys
from pathlib import Path
from PIL import Image
from serving.preprocessing import decode_image
Image.init()
def read(field):
    return int(re.search(field + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
data = Path(sys.argv[1]).read_bytes()
before = read("VmRSS")
image = decode_image(data)
# Not ru_maxrss, in which Linux counts the peak of whoever started this process.
print((read("VmHWM") - before) / (image.width * image.height))
"""
SIDE = 2000


def _large(kind: str) -> bytes:
    deep = np.broadcast_to(np.arange(SIDE, dtype=np.uint16)[:, np.newaxis] * 30, (SIDE, SIDE))
    rgba = Image.fromarray(np.dstack([(deep >> 8).astype(np.uint8)] * 4))
    palette = rgba.convert("L").convert("P")
    makers = {
        "16-bit gray": lambda: encode(Image.fromarray(deep), "PNG"),
        "16-bit gray in one row": lambda: encode(Image.fromarray(deep.reshape(1, -1)), "PNG"),
        "transparent palette": lambda: encode(palette, "PNG", transparency=1),
        "transparent, turned": lambda: encode(rgba, "PNG", exif=with_orientation(6)),
        "WebP": lambda: encode(rgba, "WEBP"),
        "JPEG 2000": lambda: deep_jpeg2000(SIDE, SIDE),
    }
    return makers[kind]()


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("16-bit gray", 10),
        ("16-bit gray in one row", 10),
        ("transparent palette", 10),
        ("transparent, turned", 12),
        ("WebP", 24),
        ("JPEG 2000", MOST_BYTES_PER_PIXEL),
    ],
)
def test_a_pixel_takes_few_bytes_while_it_is_decoded(tmp_path: Path, kind: str, most: int) -> None:
    (tmp_path / "photo").write_bytes(_large(kind))
    command = [sys.executable, "-W", "ignore", "-c", _MEASURE, tmp_path / "photo"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert float(done.stdout) < most
