"""Reading one image file: proof that it decodes, upright 8-bit RGB, capped size."""

import codecs
import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from components.image_example_gen.engine.encoding import StoredFormat, encode, own_bytes_will_do
from components.image_example_gen.engine.likeness import describe
from components.image_example_gen.engine.quarantine import printable
from serving.jpeg_scans import TOO_MANY_SCANS, has_more_scans
from serving.photos import FORMATS, NAMES_OF_FORMATS, NoWhiteLevelError, to_rgb, turn_to_upright

# A file is held in memory as a whole, and a photo of 100 million pixels stays below this even uncompressed.
_MAX_FILE_BYTES = 512 * 2**20

# Beyond this gap between the decoder's reduced size and the final one, scaling cannot be told from a full-size decode
# (Pillow's documentation of Image.thumbnail).
_REDUCING_GAP = 3.0

# Those after which rows are columns.
_SWAPPING = frozenset(
    (
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
    )
)

# Without it Pillow knows only its five most common formats until one of them fails.
Image.init()

# Quarantine has the user's ear for what matters; Pillow also warns of odd metadata, once per file.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A picture as it goes into a record.

    Attributes:
        encoded: JPEG or 8-bit RGB PNG that TensorFlow decodes to the picture.
        stored_format: which of the two.
        original: True if `encoded` is the file's own content.
        width: pixels, upright, after capping.
        height: pixels, upright, after capping.
        source_width: pixels, upright, before capping.
        source_height: pixels, upright, before capping.
        brightness: mean luma (ITU-R BT.601, as in JPEG) in [0, 1].
        likeness: what it looks like, see `likeness.describe`.
        sha256: hex digest of the file's content.
    """

    encoded: bytes
    stored_format: StoredFormat
    original: bool
    width: int
    height: int
    source_width: int
    source_height: int
    brightness: float
    likeness: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that is no usable picture, and why, in plain words on one line."""

    reason: str


def read_bytes(path: Path) -> bytes | Rejected:
    """Reads a file, or says why it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        return Rejected(f"cannot be read ({error.strerror or error})")
    return data if len(data) <= _MAX_FILE_BYTES else Rejected(f"larger than {_MAX_FILE_BYTES // 2**20} MiB")


def load_image(source: bytes | Path, max_side: int, max_pixels: int) -> LoadedImage | Rejected:
    """Decodes a picture once, fully, and prepares it for a record.

    Args:
        source: the content of an image file, or its path.
        max_side: longest side of the result in pixels; larger pictures are scaled down with antialiasing.
        max_pixels: pictures with more pixels are rejected by their header, before memory is spent on them.

    Returns:
        The upright picture (EXIF orientation applied, first frame of several, transparency over white), or the reason
        why there is none. No content whatsoever makes this function raise.
    """
    data = read_bytes(source) if isinstance(source, Path) else source
    if isinstance(data, Rejected):
        return data
    if not data:
        return Rejected("empty file (0 bytes)")
    if has_more_scans(data):
        return Rejected(TOO_MANY_SCANS)
    try:
        return _load(data, max_side, max_pixels)
    except Exception as error:  # Pillow's readers raise whatever comes to hand.
        return Rejected(_reason(error, data))


def _load(data: bytes, max_side: int, max_pixels: int) -> LoadedImage | Rejected:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            return Rejected(f"{width} x {height} pixels, more than data.max_pixels = {max_pixels:,}")
        image_format = "JPEG" if image.format in ("JPEG", "MPO") else str(image.format)
        too_large = max(width, height) > max_side
        if too_large and image_format == "JPEG":
            # Before loading, this lets libjpeg decode at a fraction of the size.
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
        image.load()
        rotation = turn_to_upright(image)
        plain = not too_large and rotation is None and image.mode in ("RGB", "L")
        rgb = to_rgb(image)
    if too_large:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    if rotation is not None:
        rgb = rgb.transpose(rotation)
        width, height = (height, width) if rotation in _SWAPPING else (width, height)
    original = plain and own_bytes_will_do(data, image_format, np.asarray(rgb))
    gray = rgb.convert("L")
    stored_format: StoredFormat = "jpeg" if image_format == "JPEG" else "png"
    return LoadedImage(
        encoded=data if original else encode(rgb, stored_format),
        stored_format=stored_format,
        original=original,
        width=rgb.width,
        height=rgb.height,
        source_width=width,
        source_height=height,
        brightness=float(np.asarray(gray).mean()) / 255,
        likeness=describe(gray),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _reason(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _what_it_is(data)
    if isinstance(error, NoWhiteLevelError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return "far more pixels than data.max_pixels allows"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "truncated: the file ends before the picture does"
    return f"damaged ({type(error).__name__}: {printable(str(error))})"


def _what_it_is(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if b"ftyphei" in head or b"ftypmif1" in head or b"ftyphev" in head:
        return "HEIC/HEIF picture, not supported; convert it to JPEG or PNG"
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image"
    if b"<svg" in head:
        return "SVG drawing, not supported; convert it to PNG"
    if _is_text(data[:512]):
        return "text, not an image"
    return f"not a readable image: damaged header or unsupported format (supported: {NAMES_OF_FORMATS})"


def _is_text(head: bytes) -> bool:
    try:
        # Incremental, since the cut may go through the middle of a character.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
