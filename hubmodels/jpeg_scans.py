"""How often a JPEG paints over the whole picture: strangers may ask for hours of work with few bytes.

A progressive JPEG comes in scans (ITU-T T.81, section G), each of which costs a pass over all blocks. Encoders write
some ten; nothing in the format forbids a hundred thousand, and Pillow decodes them all.
"""

from __future__ import annotations

import bisect
import re

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

MAX_SCANS = 64  # of one picture, or of one strip or tile of a TIFF
TIFF_JPEG, TIFF_OLD_JPEG = 7, 6  # values of TIFF's tag Compression
COMPRESSION, STRIPS, STRIP_SIZES, TILES, TILE_SIZES = 259, 273, 279, 324, 325

# A marker but for what stands in the data of scans: stuffed bytes and restarts. Fill bytes may come before it.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_ALONE = (0x01, 0xD8)  # markers without a segment behind them
_SCAN, _END = 0xDA, 0xD9


def most_scans(picture: Image.Image) -> int:
    """Scans of an opened picture that is not yet decoded: 0 if it is no JPEG or TIFF, or not read from a file.

    Counting stops soon after `MAX_SCANS`. Of a TIFF whose strips or tiles are JPEGs it is the one with the most.
    """
    file = getattr(picture, "fp", None)
    if file is None or picture.format not in ("JPEG", "MPO", "TIFF"):
        return 0
    compression = picture.tag_v2.get(COMPRESSION) if isinstance(picture, TiffImageFile) else TIFF_JPEG
    if compression not in (TIFF_JPEG, TIFF_OLD_JPEG):
        return 0
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    if not isinstance(picture, TiffImageFile):
        return _count(data)
    found = [match.start() for match in re.finditer(rb"\xff\xda", data)]
    if compression == TIFF_OLD_JPEG:  # has no strips that could be told apart
        return len(found)
    parts = _parts(picture)
    most = max((_within(found, start, size) for start, size in parts), default=0)
    return max(most, len(found) - len(parts))  # one scan each is usual; the decoder may see other parts than we do


def _count(data: bytes) -> int:
    """Scans of a JPEG, by a walk from marker to marker: what segments hold, such as thumbnails, is no scan."""
    scans, place = 0, 0
    while scans <= MAX_SCANS and (match := _MARKER.search(data, place)) is not None:
        marker, place = data[match.start() + 1], match.end()
        if marker == _END:
            break
        scans += marker == _SCAN
        if marker not in _ALONE:
            place += int.from_bytes(data[place : place + 2], "big")
    return scans


def _parts(picture: TiffImageFile) -> list[tuple[int, int]]:
    """First byte and size of the strips or tiles of a TIFF, which may overlap."""
    tags = picture.tag_v2
    return [
        (int(start), int(size))
        for starts, sizes in ((STRIPS, STRIP_SIZES), (TILES, TILE_SIZES))
        for start, size in zip(tags.get(starts, ()), tags.get(sizes, ()), strict=False)
    ]


def _within(found: list[int], start: int, size: int) -> int:
    return bisect.bisect_left(found, start + size) - bisect.bisect_left(found, start)
