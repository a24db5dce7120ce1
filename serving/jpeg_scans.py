"""How often a JPEG makes its decoder go over the picture."""

import re
from typing import Final

# Cameras and encoders write a dozen.
MOST_SCANS: Final = 200
TOO_MANY_SCANS: Final = f"a JPEG of more than {MOST_SCANS} scans, which would take very long to decode"

# Within the pixels, 0xFF is followed by zero or by a restart marker, and any number of 0xFF may fill the space before a
# marker (JPEG specification, ITU-T T.81, section B.1.1).
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01


def has_more_scans(data: bytes, limit: int = MOST_SCANS) -> bool:
    """Tells whether a file is a JPEG whose picture has more scans than allowed.

    Each scan of a progressive JPEG can be a few bytes long, and costs time for each pixel of the picture.

    Args:
        data: content of a file of any kind.
        limit: largest number of scans that is allowed.

    Returns:
        False for whatever is no JPEG.
    """
    scans, position = 0, 0
    # The count is an upper bound that takes microseconds; going from marker to marker takes a tenth of the decoding.
    if data[:2] != bytes((0xFF, _START_OF_IMAGE)) or data.count(bytes((0xFF, _START_OF_SCAN))) <= limit:
        return False
    while scans <= limit and (found := _MARKER.search(data, position)):
        marker, position = found[1][0], found.end()
        # What follows the picture, such as a film, is nothing that is decoded.
        if marker == _END_OF_IMAGE:
            return False
        scans += marker == _START_OF_SCAN
        if marker not in (_START_OF_IMAGE, _TEMPORARY):
            position += int.from_bytes(data[position : position + 2])
    return scans > limit
