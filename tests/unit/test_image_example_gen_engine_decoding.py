"""Reading image files of every kind, and refusing what is none."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageCms

from components.image_example_gen.engine.decoding import LoadedImage, Rejected, load_image
from tests.image_files import encoded, jpeg, picture, png_header, with_orientation, write

# Colours lose a little in a JPEG, even at high quality.
JPEG_TOLERANCE = 10
BASE = picture(40, 30, seed=7)


def load(content: bytes | Path, max_side: int = 1000, max_pixels: int = 1_000_000) -> LoadedImage:
    loaded = load_image(content, max_side, max_pixels)
    assert isinstance(loaded, LoadedImage), loaded
    return loaded


def reject(content: bytes | Path, max_pixels: int = 1_000_000) -> str:
    rejected = load_image(content, 1000, max_pixels)
    assert isinstance(rejected, Rejected)
    assert rejected.reason.isprintable()
    return rejected.reason


def pixels(loaded: LoadedImage) -> np.ndarray:
    """Decodes what is stored as TensorFlow does, after checking that its most general decoder reads it too."""
    general = tf.io.decode_image(loaded.encoded, channels=3, expand_animations=False).numpy()
    decoded = tf.io.decode_jpeg(loaded.encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    assert general.shape == decoded.shape == (loaded.height, loaded.width, 3)
    return decoded.astype(int)


def difference(loaded: LoadedImage, expected: np.ndarray) -> int:
    decoded = pixels(loaded)
    assert decoded.shape == expected.shape
    return int(np.abs(decoded - expected).max())


def as_stored(upright: np.ndarray, first_row: str, first_column: str) -> np.ndarray:
    """Lays a picture down so that its stored first row and column are at the given sides of the upright one."""
    if first_row in ("left", "right"):
        upright = upright.transpose(1, 0, 2)
    rows = slice(None, None, -1 if first_row in ("bottom", "right") else 1)
    columns = slice(None, None, -1 if first_column in ("bottom", "right") else 1)
    return np.ascontiguousarray(upright[rows, columns])


# The EXIF standard's own words for orientations 1 to 8: where the 0th row and the 0th column are to be seen.
SIDES = ["top left", "top right", "bottom right", "bottom left", "left top", "right top", "right bottom", "left bottom"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_every_exif_orientation_is_made_upright(orientation: int, image_format: str) -> None:
    lying = as_stored(BASE, *SIDES[orientation - 1].split())
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(image_format, {})
    loaded = load(encoded(lying, image_format, exif=with_orientation(orientation), **options))
    assert difference(loaded, BASE) <= (JPEG_TOLERANCE if image_format == "JPEG" else 0)
    assert (loaded.source_width, loaded.source_height) == (40, 30)
    assert loaded.original == (image_format in ("JPEG", "PNG") and orientation == 1)


def test_orientation_and_capping_together() -> None:
    lying = as_stored(picture(400, 200), "right", "top")
    loaded = load(jpeg(lying, exif=with_orientation(6)), max_side=100)
    assert (loaded.width, loaded.height) == (100, 50)
    assert (loaded.source_width, loaded.source_height) == (400, 200)
    assert difference(loaded, np.asarray(Image.fromarray(picture(400, 200)).reduce(4))) <= 20


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_does_not_spoil_the_picture() -> None:
    assert difference(load(jpeg(BASE, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")), BASE) <= JPEG_TOLERANCE


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2}, {"keep_rgb": True}, {"quality": 30}]
)
def test_jpegs_that_need_no_change_keep_their_bytes(options: dict[str, object]) -> None:
    content = jpeg(BASE, **options)
    loaded = load(content)
    assert loaded.encoded == content
    assert (loaded.original, loaded.stored_format) == (True, "jpeg")
    assert difference(loaded, np.asarray(Image.open(io.BytesIO(content)))) == 0


def test_a_grayscale_jpeg_keeps_its_bytes() -> None:
    content = jpeg(Image.fromarray(BASE).convert("L"))
    loaded = load(content)
    assert loaded.encoded == content
    assert difference(loaded, np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))) == 0


def test_a_jpeg_with_further_pictures_in_it_is_read_as_its_first() -> None:
    content = encoded(BASE, "MPO", save_all=True, append_images=[Image.fromarray(BASE[::-1])], quality=95)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    loaded = load(content)
    assert loaded.stored_format == "jpeg"
    assert difference(loaded, np.asarray(Image.open(io.BytesIO(content)))) == 0


def test_an_8_bit_rgb_png_keeps_its_bytes() -> None:
    content = encoded(BASE)
    assert load(content).encoded == content


@pytest.mark.parametrize("image_format", ["BMP", "TIFF", "PPM"])
def test_other_lossless_formats_become_the_same_png(image_format: str) -> None:
    loaded = load(encoded(BASE, image_format))
    assert loaded.stored_format == "png"
    assert difference(loaded, BASE) == 0


def test_webp_avif_and_jpeg_2000_are_read() -> None:
    assert difference(load(encoded(BASE, "WEBP", lossless=True)), BASE) == 0
    assert difference(load(encoded(BASE, "JPEG2000")), BASE) == 0
    assert difference(load(encoded(BASE, "AVIF", quality=100, subsampling="4:4:4")), BASE) <= 10


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    loaded = load(jpeg(Image.fromarray(BASE).convert("CMYK")))
    assert not loaded.original
    assert difference(loaded, BASE) <= 2 * JPEG_TOLERANCE


def test_16_bit_gray_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    expected = np.repeat(np.rint(ramp / 257)[..., None], 3, axis=2).astype(int)
    for content in (encoded(ramp), encoded(ramp, "TIFF"), b"P5 8 8 65535 " + ramp.astype(">u2").tobytes()):
        assert difference(load(content), expected) == 0


def test_16_bit_rgb_is_scaled_and_not_clipped() -> None:
    deep = np.linspace(0, 65_535, 192).astype(np.uint16).reshape(8, 8, 3)
    loaded = load(tf.io.encode_png(deep).numpy())
    assert not loaded.original
    assert difference(loaded, np.rint(deep / 257).astype(int)) <= 1


def test_pixels_without_a_white_level_are_refused() -> None:
    assert "no defined white" in reject(encoded(BASE[..., 0].astype(np.float32), "TIFF"))
    assert "no defined white" in reject(encoded(BASE[..., 0].astype(np.int32) * 1000, "TIFF"))


def test_transparency_is_laid_over_white() -> None:
    alpha = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
    share = alpha[..., None] / 255
    expected = np.rint(BASE * share + 255 * (1 - share)).astype(int)
    assert difference(load(encoded(np.dstack([BASE, alpha]))), expected) <= 1
    gray = BASE[..., 0]
    flattened = np.rint(gray * share[..., 0] + 255 * (1 - share[..., 0])).astype(int)
    layered = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)])
    assert difference(load(encoded(layered)), np.repeat(flattened[..., None], 3, axis=2)) <= 1


def test_palettes_with_and_without_transparency() -> None:
    indices = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    indices.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    opaque = np.array([[[10, 20, 30], [200, 100, 50]], [[7, 8, 9], [200, 100, 50]]])
    assert difference(load(encoded(indices)), opaque) == 0
    holed = np.where((opaque == [200, 100, 50]).all(axis=2, keepdims=True), 255, opaque)
    assert difference(load(encoded(indices, transparency=1)), holed) == 0


def test_a_transparent_colour_of_an_rgb_png_is_white() -> None:
    pair = np.array([[[10, 20, 30], [1, 2, 3]]], np.uint8)
    loaded = load(encoded(pair, transparency=(1, 2, 3)))
    assert difference(loaded, np.array([[[10, 20, 30], [255, 255, 255]]])) == 0


def test_black_and_white_becomes_rgb() -> None:
    bits = BASE[..., 0] > 127
    assert difference(load(encoded(Image.fromarray(bits))), np.repeat(bits[..., None] * 255, 3, axis=2)) == 0


@pytest.mark.parametrize(("image_format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_the_first_frame_of_an_animation_is_read(image_format: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "lime", "blue")]
    loaded = load(encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options))
    assert difference(loaded, np.asarray(frames[0])) == 0


def test_a_large_picture_is_scaled_down_smoothly() -> None:
    # Stripes one pixel wide turn gray when averaged, and into coarse patterns when pixels are merely left out.
    stripes = np.zeros((300, 900, 3), np.uint8)
    stripes[:, ::2] = 255
    for content in (encoded(stripes), jpeg(stripes)):
        loaded = load(content, max_side=90)
        assert (loaded.width, loaded.height) == (90, 30)
        assert (loaded.source_width, loaded.source_height) == (900, 300)
        assert np.abs(pixels(loaded) - 127.5).max() < 20


def test_extreme_shapes_keep_a_pixel() -> None:
    assert (load(encoded(picture(500, 1)), max_side=50).width, load(encoded(picture(500, 1)), max_side=50).height) == (
        50,
        1,
    )
    assert difference(load(encoded(BASE[:1, :1])), BASE[:1, :1]) == 0
    assert load(jpeg(BASE[:1, :1])).original


def test_brightness_and_digest() -> None:
    assert load(encoded(np.zeros((4, 4, 3), np.uint8))).brightness == 0
    assert load(encoded(np.full((4, 4, 3), 255, np.uint8))).brightness == 1
    content = encoded(BASE)
    luma = BASE @ [0.299, 0.587, 0.114]
    assert load(content).brightness == pytest.approx(luma.mean() / 255, abs=0.005)
    assert load(content).sha256 == hashlib.sha256(content).hexdigest()


def test_a_jpeg_that_only_pillow_reads_is_encoded_anew() -> None:
    endless = jpeg(BASE)[:-2] + bytes(50)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_jpeg(endless)
    loaded = load(endless)
    assert not loaded.original
    assert difference(loaded, BASE) <= 2 * JPEG_TOLERANCE


@pytest.mark.parametrize("damage", ["flip", "insert", "erase"])
def test_whatever_gets_through_decodes_in_tensorflow(damage: str) -> None:
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(60):
        content = bytearray(jpeg(BASE, progressive=bool(rng.integers(2))))
        at = int(rng.integers(2, len(content)))
        if damage == "flip":
            content[at] ^= 1 << int(rng.integers(8))
        elif damage == "insert":
            content[at:at] = rng.bytes(3)
        else:
            content[at : at + 20] = bytes(20)
        outcomes.append(load_image(bytes(content), 1000, 1_000_000))
    for outcome in outcomes:
        if isinstance(outcome, LoadedImage):
            pixels(outcome)
    assert {type(outcome) for outcome in outcomes} == {LoadedImage, Rejected}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file (0 bytes)"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"just words\n" * 50, "text, not an image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
        (b"\x93\0\x01" * 100, "not a readable image"),
        (jpeg(BASE)[:4], "not a readable image"),
        (jpeg(BASE)[:-200], "truncated"),
        (encoded(BASE)[:-200], "truncated"),
        (encoded(BASE, "GIF")[:-200], "truncated"),
        (png_header(30_000, 30_000), "pixels"),
        (png_header(1001, 1000), "1001 x 1000 pixels, more than data.max_pixels = 1,000,000"),
        (png_header(10, 10), "truncated"),
        (encoded(BASE).replace(b"IDAT", b"IDAX"), "damaged"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    assert reason in reject(content)


def test_formats_that_run_other_programs_are_not_even_tried() -> None:
    assert "not an image" in reject(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert reject(tmp_path / "gone.jpg") == "cannot be read (No such file or directory)"
    assert reject(tmp_path) == "cannot be read (Is a directory)"


def test_a_path_is_as_good_as_its_content(tmp_path: Path) -> None:
    content = jpeg(BASE)
    assert load(write(tmp_path / "wrong-extension.png", content)) == load(content)


def test_a_colour_profile_is_no_obstacle() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = jpeg(BASE, icc_profile=profile)
    assert load(content).encoded == content
