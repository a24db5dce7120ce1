"""Photos of every kind that has ever broken a reader, each with what must become of it."""

import base64
import gzip
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageCms

from tests.image_files import encoded, jpeg, picture, png_chunk, png_header, with_orientation

MAX_SIDE = 1024
MAX_PIXELS = 1_000_000

BASE = picture(40, 30, seed=7)
_GRAY = BASE[..., 0]
_ALPHA = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))

# Made by `cjpeg -arithmetic -quality 90 -sample 1x1` of libjpeg-turbo 2.1.5 from picture(24, 16, seed=3): Pillow reads
# arithmetic coding, but cannot write it.
_ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYU"
    "GBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/yQARCAAQABgD"
    "AREAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwDS2sd2gcze5ftpXDz6wB59nTgSnMj9aX89y0ONvUqMn0DsCVknocFdi/NCJZMscleB"
    "Ti2f1n9+1miFUn1XOAyUIJAxxeD8+5/OHRLgAjiz5tK/UYPu12FZMrpcz8JWHDJ8Dl5qn3QE8bq9yAiQ1vud2K21oVyQnMVXLHQNDVL4OfJaXYfY"
    "J9xbjQlw6CRN+cnTOSnwXDqDo8MzASdALhYWZjI4T+oopVSiKOI9NJJ0hJD/2Q=="
)


@dataclass(frozen=True)
class Kind:
    """One file, and what must become of it.

    Attributes:
        name: of the file, as bytes, because not all are text.
        content: of the file.
        pixels: what the stored picture must show, uint8 [H, W, 3]; None if the file is to be quarantined.
        tolerance: largest difference of a pixel.
        reason: pattern of the reason for which it is quarantined.
    """

    name: bytes
    content: bytes
    pixels: np.ndarray | None = None
    tolerance: int = 0
    reason: str = ""


def kinds() -> list[Kind]:
    """Returns all kinds; each name is there once."""
    makers: tuple[Callable[[], Iterator[Kind]], ...] = (
        _plain,
        _odd_jpegs,
        _colours,
        _several_pictures,
        _shapes,
        _names,
        _truncated,
        _no_pictures,
        _damaged,
        _bombs,
    )
    found = [kind for make in makers for kind in make()]
    assert len({kind.name for kind in found}) == len(found)
    return found


def _used(name: str | bytes, content: bytes, pixels: np.ndarray = BASE, tolerance: int = 0) -> Kind:
    return Kind(os.fsencode(name), content, np.asarray(pixels, np.uint8), tolerance)


def _refused(name: str, content: bytes, reason: str) -> Kind:
    return Kind(os.fsencode(name), content, reason=reason)


def _gray_of(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2)


def _over_white(colours: np.ndarray) -> np.ndarray:
    share = _ALPHA[..., None] / 255
    return np.rint(colours * share + 255 * (1 - share))


def _plain() -> Iterator[Kind]:
    yield _used("baseline.jpg", jpeg(BASE), tolerance=10)
    yield _used("progressive.jpg", jpeg(BASE, progressive=True), tolerance=10)
    yield _used("arithmetic.jpg", _ARITHMETIC, picture(24, 16, seed=3), 10)
    yield _used("restarts.jpg", jpeg(BASE, restart_marker_blocks=1), tolerance=10)
    yield _used("jpeg-named.png", jpeg(BASE), tolerance=10)
    yield _used("png-named.jpg", encoded(BASE))
    yield _used("gif-named.tiff", encoded(Image.fromarray(BASE).quantize(64), "GIF"), BASE, 90)
    yield _used("interlaced.png", _interlaced(BASE))
    yield _used("photo.bmp", encoded(BASE, "BMP"))
    yield _used("photo.ppm", encoded(BASE, "PPM"))
    plain = b"P3 40 30 255\n" + b" ".join(b"%d" % value for value in BASE.ravel())
    yield _used("plain-text.ppm", plain)
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits"):
        yield _used(f"{compression}.tif", encoded(BASE, "TIFF", compression=compression))
    yield _used("photo.webp", encoded(BASE, "WEBP", lossless=True))
    yield _used("photo.jp2", encoded(BASE, "JPEG2000"))
    yield _used("photo.avif", encoded(BASE, "AVIF", quality=100, subsampling="4:4:4"), tolerance=10)


def _odd_jpegs() -> Iterator[Kind]:
    turned = [
        BASE,
        BASE[:, ::-1],
        BASE[::-1, ::-1],
        BASE[::-1],
        BASE.transpose(1, 0, 2),
        BASE[:, ::-1].transpose(1, 0, 2),
        BASE[::-1, ::-1].transpose(1, 0, 2),
        BASE[::-1].transpose(1, 0, 2),
    ]
    for orientation, stored in enumerate(turned, 1):
        content = jpeg(np.ascontiguousarray(stored), exif=with_orientation(orientation))
        yield _used(f"orientation-{orientation}.jpg", content, tolerance=10)
    yield _used("orientation-99.jpg", jpeg(BASE, exif=with_orientation(99)), tolerance=10)
    yield _used("exif-garbage.jpg", jpeg(BASE, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"), tolerance=10)
    loop = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    yield _used("exif-loop.jpg", jpeg(BASE, exif=loop), tolerance=10)
    yield _used("icc-garbage.jpg", jpeg(BASE, icc_profile=os.urandom(999)), tolerance=10)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield _used("icc.png", encoded(BASE, icc_profile=profile))
    yield _used("icc-garbage.png", encoded(BASE, icc_profile=b"garbage"))
    yield _used("film-behind.jpg", jpeg(BASE) + b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\2" * 5000, tolerance=10)
    yield _used("picture-behind.jpg", jpeg(BASE) + jpeg(BASE[::-1]), tolerance=10)
    # Films made of JPEGs leave the usual tables out.
    yield _used("no-tables.jpg", jpeg(BASE).replace(b"\xff\xc4", b"\xff\xec"), tolerance=10)
    yield _used("comment.jpg", jpeg(BASE, comment=b"\xff\xd9" * 30_000), tolerance=10)


def _colours() -> Iterator[Kind]:
    yield _used("gray.jpg", jpeg(Image.fromarray(_GRAY)), _gray_of(_GRAY), 10)
    yield _used("cmyk.jpg", jpeg(Image.fromarray(BASE).convert("CMYK")), tolerance=20)
    yield _used("cmyk.tif", encoded(Image.fromarray(BASE).convert("CMYK"), "TIFF"), tolerance=2)
    yield _used("keep-rgb.jpg", jpeg(BASE, keep_rgb=True), tolerance=10)
    deep = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    for name, content in (("png", encoded(deep)), ("tif", encoded(deep, "TIFF"))):
        yield _used(f"16-bit-gray.{name}", content, _gray_of(np.rint(deep / 257)))
    yield _used("16-bit-gray.pgm", b"P5 8 8 65535 " + deep.astype(">u2").tobytes(), _gray_of(np.rint(deep / 257)))
    colours = np.linspace(0, 65_535, 192).astype(np.uint16).reshape(8, 8, 3)
    yield _used("16-bit-rgb.png", tf.io.encode_png(colours).numpy(), np.rint(colours / 257), 1)
    yield _used("alpha.png", encoded(np.dstack([BASE, _ALPHA])), _over_white(BASE), 1)
    yield _used(
        "alpha.webp", encoded(np.dstack([BASE, _ALPHA]), "WEBP", lossless=True, exact=True), _over_white(BASE), 1
    )
    layered = Image.merge("LA", [Image.fromarray(_GRAY), Image.fromarray(_ALPHA)])
    yield _used("gray-alpha.png", encoded(layered), _over_white(_gray_of(_GRAY)), 1)
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    opaque = np.array([[[10, 20, 30], [200, 100, 50]], [[7, 8, 9], [200, 100, 50]]])
    yield _used("palette.png", encoded(palette), opaque)
    holed = np.where((opaque == [200, 100, 50]).all(axis=2, keepdims=True), 255, opaque)
    yield _used("transparent-palette.png", encoded(palette, transparency=1), holed)
    yield _used("transparent-palette.gif", encoded(palette, "GIF", transparency=1), holed)
    bits = _GRAY > 127
    yield _used("1-bit.png", encoded(Image.fromarray(bits)), _gray_of(bits * 255))
    yield _used("1-bit.tif", encoded(Image.fromarray(bits), "TIFF", compression="group4"), _gray_of(bits * 255))
    yield _refused("float.tif", encoded(_GRAY.astype(np.float32), "TIFF"), "no defined white")
    yield _refused("32-bit.tif", encoded(_GRAY.astype(np.int32) * 1000, "TIFF"), "no defined white")


def _several_pictures() -> Iterator[Kind]:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "lime", "blue")]
    first = np.asarray(frames[0])
    for name, image_format, options in (
        ("animated.gif", "GIF", {}),
        ("animated.webp", "WEBP", {"lossless": True}),
        ("animated.png", "PNG", {}),
        ("pages.tif", "TIFF", {}),
    ):
        content = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
        yield _used(name, content, first)
    several = encoded(BASE, "MPO", save_all=True, append_images=[Image.fromarray(BASE[::-1])], quality=95)
    yield _used("several.jpg", several, tolerance=20)


def _shapes() -> Iterator[Kind]:
    for size in ((1, 1), (1, 2), (2, 1)):
        yield _used(f"{size[0]}x{size[1]}.png", encoded(picture(*size)), picture(*size))
    yield _used("1x20000.png", encoded(np.full((20_000, 1, 3), 90, np.uint8)), np.full((MAX_SIDE, 1, 3), 90), 1)
    yield _used("20000x1.jpg", jpeg(np.full((1, 20_000, 3), 90, np.uint8)), np.full((1, MAX_SIDE, 3), 90), 2)
    # Averages of 2 x 2 pixels, by another library.
    large = picture(1000, 900, seed=11)
    yield _used("whole.png", encoded(large), large)
    wide = picture(2048, 400, seed=12)
    shrunk = tf.image.resize(wide, (200, 1024), "area").numpy()
    yield _used("shrunk.png", encoded(wide), np.rint(shrunk), 6)


def _names() -> Iterator[Kind]:
    names = [
        b"two words.jpg",
        b"line\nbreak.jpg",
        b"tab\tand\x07bell.jpg",
        b"latin-\xe9.jpg",
        "\N{CAT FACE}.jpg".encode(),
        "e\N{COMBINING ACUTE ACCENT}.jpg".encode(),
        "\N{RIGHT-TO-LEFT OVERRIDE}gpj.jpg".encode(),
        b"a" * 251 + b".jpg",
        b"-rf.jpg",
        b"--help.jpg",
        b"$(touch x);`id`.jpg",
        b"quote'\".jpg",
        b"%s%n{0}[red].jpg",
        b"back\\slash.jpg",
        b"UPPER.JPG",
        b"two.dots..jpg",
    ]
    # All different, or they would be copies.
    for number, name in enumerate(names):
        pixels = picture(40, 30, seed=100 + number)
        yield _used(name, jpeg(pixels), pixels, 10)


def _truncated() -> Iterator[Kind]:
    pixels = picture(120, 90, seed=4)
    for name, content in (
        ("baseline.jpg", jpeg(pixels)),
        ("progressive.jpg", jpeg(pixels, progressive=True)),
        ("photo.png", encoded(pixels)),
        ("photo.gif", encoded(pixels, "GIF")),
        ("photo.webp", encoded(pixels, "WEBP")),
        ("photo.tif", encoded(pixels, "TIFF")),
        ("photo.bmp", encoded(pixels, "BMP")),
        ("photo.avif", encoded(pixels, "AVIF")),
        ("photo.jp2", encoded(pixels, "JPEG2000")),
    ):
        for tenth in range(1, 10):
            part = content[: len(content) * tenth // 10]
            yield _refused(f"{tenth}-tenths-of-{name}", part, "truncated|damaged|not a readable image")


def _no_pictures() -> Iterator[Kind]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo.jpg", jpeg(BASE))
    unreadable = "not a readable image"
    yield _refused("nothing.jpg", b"", "empty file")
    yield _refused("one-byte.jpg", b"\xff", unreadable)
    yield _refused("zeros.jpg", bytes(5000), unreadable)
    yield _refused("noise.jpg", bytes(np.random.default_rng(0).bytes(5000)), unreadable)
    yield _refused("page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "HTML page")
    yield _refused("drawing.svg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG")
    yield _refused("text.jpg", b"just words\n" * 50, "text, not an image")
    yield _refused("wide-text.jpg", "just words\n".encode("utf-16") * 50, unreadable)
    yield _refused("answer.jpg", b'{"error": "not found"}', "text, not an image")
    yield _refused("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC")
    yield _refused("photo.jxl", b"\xff\x0a" + bytes(100), unreadable)
    yield _refused("film.jpg", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100), unreadable)
    yield _refused("paper.jpg", b"%PDF-1.7\n\xe2\xe3\xcf\xd3\n1 0 obj", unreadable)
    yield _refused("archive.jpg", archive.getvalue(), unreadable)
    yield _refused("zipped.jpg", gzip.compress(jpeg(BASE)), unreadable)
    yield _refused("program.jpg", b"\x7fELF\x02\x01\x01" + bytes(100), unreadable)
    yield _refused("postscript.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "text, not an image")
    yield _refused("layers.psd", b"8BPS\0\1" + bytes(100), unreadable)
    yield _refused("icon.ico", encoded(BASE, "ICO"), unreadable)


def _damaged() -> Iterator[Kind]:
    content = jpeg(BASE)
    frame = content.index(b"\xff\xc0")
    yield _refused("12-bit.jpg", content[: frame + 4] + b"\x0c" + content[frame + 5 :], "")
    yield _refused("lossless.jpg", content[: frame + 1] + b"\xc3" + content[frame + 2 :], "")
    yield _refused("no-height.jpg", content[: frame + 5] + b"\0\0" + content[frame + 7 :], "")
    yield _refused("header.jpg", content[:4], "not a readable image")
    png = encoded(BASE)
    yield _refused("signature.png", png[:8], "")
    yield _refused("no-pixels.png", png_header(10, 10), "truncated")
    yield _refused("no-width.png", png_header(0, 10), "")
    yield _refused("wrong-chunk.png", png.replace(b"IDAT", b"IDAX"), "damaged")
    at = png.index(b"IDAT") + 30
    yield _refused("checksum.png", png[:at] + bytes([png[at] ^ 255]) + png[at + 1 :], "damaged|truncated")
    tiff = encoded(BASE, "TIFF")
    yield _refused("endless-directory.tif", tiff[:4] + struct.pack("<I", 0xFFFFFFF0) + tiff[8:], "")
    yield _refused("no-colours.bmp", encoded(BASE, "BMP")[:28] + b"\x07\0" + encoded(BASE, "BMP")[30:], "")


def _bombs() -> Iterator[Kind]:
    too_many = "pixels, more than data.max_pixels = 1,000,000|far more pixels"
    yield _refused("bomb-header.png", png_header(30_000, 30_000), too_many)
    yield _refused("just-too-large.png", png_header(1001, 1000), "1001 x 1000 pixels, more than")
    yield _refused("100-megapixels.png", _even_png(10_000, 10_000), too_many)
    content = jpeg(BASE)
    size = content.index(b"\xff\xc0") + 5
    yield _refused("65500.jpg", content[:size] + b"\xff\xdc\xff\xdc" + content[size + 4 :], too_many)
    gif = encoded(BASE, "GIF")
    yield _refused("65535.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], too_many)
    bmp = encoded(BASE, "BMP")
    yield _refused("large.bmp", bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:], too_many)
    yield _refused("large.ppm", b"P6 60000 60000 255\n", too_many)
    webp = encoded(BASE, "WEBP", lossless=True)
    body = webp.index(b"VP8L") + 9
    yield _refused("large.webp", webp[:body] + b"\xff\xff\xff\x0f" + webp[body + 4 :], too_many)
    yield _refused("scans.jpg", scan_bomb(), "more than 200 scans")
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 * 2**20)))
    png = encoded(BASE)
    yield _refused("text-bomb.png", png[:33] + text + png[33:], "damaged")


def scan_bomb(scans: int = 5000) -> bytes:
    """Returns a JPEG of a megapixel that goes over its picture this many times; some 15 bytes a time."""
    content = jpeg(np.full((1000, 1000, 3), 90, np.uint8), progressive=True)
    starts = [found.start() for found in re.finditer(b"\xff\xda", content)]
    last = content[starts[-1] : -2]
    return content[:-2] + last * scans + content[-2:]


def _even_png(width: int, height: int) -> bytes:
    """Returns a black picture of a hundredth of a bit for each pixel."""
    rows = zlib.compressobj(9)
    line = bytes(1 + 3 * width)
    pixels = b"".join(rows.compress(line) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _interlaced(pixels: np.ndarray) -> bytes:
    """Returns a PNG of seven passes (PNG specification, section 8.2), which Pillow cannot write."""
    passes = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    rows = b""
    for top, down, left, right in passes:
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::right])
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    chunks = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_kinds(folder: Path, found: list[Kind]) -> None:
    """Writes the files of all kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in found:
        (folder / os.fsdecode(kind.name)).write_bytes(kind.content)
