"""How often a JPEG makes its decoder go over the picture."""

import re
from typing import Final

# Cameras and encoders write a dozen.
MOST_SCANS: Final = 200
# Profiles, thumbnails and the like take some hundreds. Pillow keeps each, and a segment can be four bytes long.
_MOST_SEGMENTS: Final = 20_000
TOO_MANY_SCANS: Final = (
    f"a JPEG of more than {MOST_SCANS} scans or {_MOST_SEGMENTS:,} segments, which would take very long to decode"
)

# Within the pixels, 0xFF is followed by zero or by a restart marker, and any number of 0xFF may fill the space before a
# marker; the markers TEM (0x01) and SOI (0xD8), too, begin no segment (JPEG specification, ITU-T T.81, section B.1.1).
_SEGMENT = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA


def has_more_scans(data: bytes, limit: int = MOST_SCANS) -> bool:
    """Tells whether a file is a JPEG whose picture has more scans than allowed, or too many segments to count them.

    Each scan of a progressive JPEG can be a few bytes long, and costs time for each pixel of the picture.

    Args:
        data: content of a file of any kind.
        limit: largest number of scans that is allowed.

    Returns:
        False for whatever is no JPEG.
    """
    if data[:2] != _START_OF_IMAGE:
        return False
    scans, position = 0, 0
    for _ in range(_MOST_SEGMENTS):
        found = _SEGMENT.search(data, position)
        # What follows the picture, such as a film, is nothing that is decoded.
        if not found or found[1][0] == _END_OF_IMAGE:
            return False
        scans += found[1][0] == _START_OF_SCAN
        if scans > limit:
            return True
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return True
