"""Image files made on the spot, for tests."""

import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

# What decoding may take at most for each pixel: docs/reliability.md and docs/serving.md promise it.
MOST_BYTES_PER_PIXEL = 40
_NOBODY = 65_534


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything, so tests of permissions step down for a moment."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@contextmanager
def closed_tree(counts: dict[str, int], closed: str) -> Iterator[Path]:
    """Yields a `write_tree` of photos of which those that match a pattern may not be read, stepped down or not."""
    # The folders that pytest hands out cannot be entered by another user.
    with TemporaryDirectory() as name:
        root = write_tree(Path(name), counts)
        root.chmod(0o755)
        for path in root.glob(closed):
            path.chmod(0o000)
        yield root


def picture(width: int = 24, height: int = 16, seed: int = 0) -> np.ndarray:
    """Returns a smooth colour picture, uint8 [height, width, 3], that differs from seed to seed and in all corners."""
    rng = np.random.default_rng(seed)
    corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    return np.asarray(corners.resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray | Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """Returns the picture as a file's content; options are those of Pillow's save."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def jpeg(pixels: np.ndarray | Image.Image, **options: Any) -> bytes:
    """Returns the picture as a JPEG whose colours are close to the original."""
    return encoded(pixels, "JPEG", **{"quality": 95, "subsampling": 0, **options})


def deep_jpeg2000(width: int, height: int) -> bytes:
    """Returns the kind of file that takes the most memory: transparent JPEG 2000 that claims samples of 31 bits."""
    content = bytearray(encoded(np.dstack([picture(width, height)] * 2)[..., :4], "JPEG2000", no_jp2=True))
    # JPEG 2000 (ITU-T T.800), A.5.1: three bytes for each component end the SIZ segment, the first of them its depth.
    components = content.index(b"\xff\x51") + 40
    content[components : components + 12 : 3] = bytes([30] * 4)
    return bytes(content)


def png_header(width: int, height: int) -> bytes:
    """Returns an RGB PNG of any size it likes to claim, without any pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_orientation(orientation: int) -> Image.Exif:
    """Returns EXIF data that holds an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write(path: Path, content: bytes) -> Path:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_tree(root: Path, classes: Mapping[str, int], width: int = 24, height: int = 16, first: int = 0) -> Path:
    """Writes a class-per-folder tree of JPEGs, all different.

    Args:
        root: the data folder.
        classes: number of images by folder, which may be several levels deep.
        width: of the images.
        height: of the images.
        first: seed of the first image, so that several trees hold different ones.
    """
    seed = first
    for folder, count in classes.items():
        for number in range(count):
            write(root / folder / f"{number:03d}.jpg", jpeg(picture(width, height, seed)))
            seed += 1
    return root
