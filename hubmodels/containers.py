"""What lies beside the pixels in a photo's file: strangers may ask for all memory, or minutes, with few bytes of it.

Pillow reads it all before anybody can ask it anything, some of it in time that grows with the square of its size, and
copies what a tag points at for every tag, though all may point at the same bytes. So each file is looked at first, in
one pass. Bounds are far above what cameras and programs write.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import IO

from PIL.JpegImagePlugin import MARKER
from PIL.TiffImagePlugin import PREFIXES

MAX_PARTS = 20_000  # segments, chunks or blocks that hold no pixels
MAX_DIRECTORIES = 64  # of tags, or segments that one may come in
MAX_EXIF_BYTES = 4_000_000  # of a JPEG, in all segments
MAX_COMMENT_BYTES = 65_536  # of a GIF, before its first frame
MAX_JUNK_BYTES = 1_000_000  # between parts, which readers pass over byte by byte
MAX_HEADER_BYTES = 4_096  # of a PPM, with its comments
MAX_TAGS = 4_096  # of one directory
SPARE_BYTES = 16_000_000  # that tags may claim beyond their file: damaged ones do

_TIFF = re.compile(b"|".join(map(re.escape, PREFIXES)))
_BLOCK = re.compile(rb"[!,;]")
_MARKER = re.compile(rb"\xff+([^\xff])")
_WITH_CONTENT = {code & 0xFF for code, (_, _, reader) in MARKER.items() if reader is not None}
_BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class ExcessError(ValueError):
    """A file holds far more beside its pixels than photos do; the message says of what."""


def check_container(file: IO[bytes]) -> None:
    """Raise ExcessError for a file that would cost far more than its pixels, and leave it at its start.

    What is no photo, or damaged, passes: readers say so better.
    """
    head = file.read(16)
    file.seek(0)
    if _TIFF.match(head):
        size = file.seek(0, 2)
        _check_directory(file, 0, size)
    elif head[:3] == b"\xff\xd8\xff":
        _check_jpeg(file.read())
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        _check_png(file.read())
    elif head[:4] == b"GIF8":
        _check_gif(file.read())
    elif re.match(rb"P[0-6fy]", head):
        _check_ppm(file.read(MAX_HEADER_BYTES))
    elif head[4:8] == b"ftyp":
        _check_directories_anywhere(file.read())
    file.seek(0)


def check_exif(exif: bytes) -> None:
    """Raise ExcessError for EXIF whose tags claim far more bytes than it has."""
    exif = exif.removeprefix(b"Exif\0\0")
    if _TIFF.match(exif):
        _check_directory(io.BytesIO(exif), 0, len(exif))


def _check_directory(file: IO[bytes], start: int, size: int) -> None:
    """The first directory of a TIFF, or of EXIF, which is one, that begins at `start` and has `size` bytes."""
    file.seek(start)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:3] == b"+"
    at, per_tag, inline = ("Q", 20, 8) if big else ("L", 12, 4)
    try:
        (place,) = struct.unpack_from(order + at, head, 8 if big else 4)
        if place >= size:
            return
        file.seek(start + place)
        (tags,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        if tags > MAX_TAGS:
            raise ExcessError(f"{tags} tags in one directory; at most {MAX_TAGS} are read")
        entries = file.read(tags * per_tag)
        claimed = 0
        for index in range(len(entries) // per_tag):
            _, kind, count = struct.unpack_from(f"{order}HH{at}", entries, index * per_tag)
            own = count * _BYTES_OF_TYPE.get(kind, 0)
            claimed += own if own > inline else 0
    except struct.error:  # too short to be one
        return
    if claimed > size + SPARE_BYTES:
        raise ExcessError(f"tags that claim {claimed:,} bytes of a file of {size:,}")


def _check_directories_anywhere(data: bytes) -> None:
    """Of a file whose structure is not followed, everything that begins as a directory does; chance seldom does."""
    file = io.BytesIO(data)
    for parts, match in enumerate(_TIFF.finditer(data)):
        if parts >= MAX_DIRECTORIES:
            raise ExcessError(f"more than {MAX_DIRECTORIES} directories of tags")
        _check_directory(file, match.start(), len(data) - match.start())


def _check_jpeg(data: bytes) -> None:
    parts = junk = lists = 0
    exif: list[bytes] = []
    for marker, segment, passed in _segments(data):
        parts, junk = parts + 1, junk + passed
        if parts > MAX_PARTS or junk > MAX_JUNK_BYTES:
            raise ExcessError(f"more than {MAX_PARTS} segments, or {MAX_JUNK_BYTES:,} bytes between them")
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            exif.append(segment if not exif else segment[6:])
        if marker == 0xE2 and segment.startswith(b"MPF\0"):  # the list of the pictures in the file
            lists += 1
            if lists > MAX_DIRECTORIES:
                raise ExcessError(f"more than {MAX_DIRECTORIES} lists of pictures")
            check_exif(segment[4:])
    whole = b"".join(exif)
    if len(exif) > MAX_DIRECTORIES or len(whole) > MAX_EXIF_BYTES:
        raise ExcessError(f"{len(whole):,} bytes of EXIF in {len(exif)} segments")
    check_exif(whole)


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content, and bytes passed over before it, of each segment of a JPEG before its first scan.

    As Pillow reads them: what stands behind a marker that it has no use for is looked through for the next one, though
    other decoders would take it for content.
    """
    place = 2
    while (match := _MARKER.search(data, place)) is not None:
        marker, passed = data[match.start(1)], match.start(1) - 1 - place
        if marker == 0xDA:
            return
        place = match.end()
        if marker not in _WITH_CONTENT:
            yield marker, b"", passed
            continue
        length = int.from_bytes(data[place : place + 2], "big")
        yield marker, data[place + 2 : place + max(2, length)], passed
        place += max(2, length)


def _check_png(data: bytes) -> None:
    parts = profiles = 0
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, place)
        parts += kind not in (b"IDAT", b"fdAT")
        profiles += kind == b"iCCP"
        if parts > MAX_PARTS or profiles > 1:
            raise ExcessError(f"more than {MAX_PARTS} chunks, or more than one colour profile")
        place += 12 + length


def _check_gif(data: bytes) -> None:
    flags = data[10] if len(data) > 10 else 0
    place = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    blocks = comments = junk = 0
    while (match := _BLOCK.search(data, place)) is not None:
        place, junk = match.end(), junk + match.start() - place
        if junk > MAX_JUNK_BYTES:
            raise ExcessError(f"more than {MAX_JUNK_BYTES:,} bytes between blocks")
        if match[0] != b"!":  # a frame, the end
            return
        is_comment, place = data[place : place + 1] == b"\xfe", place + 1
        while place < len(data):
            length, blocks = data[place], blocks + 1
            comments += length if is_comment else 0
            if blocks > MAX_PARTS or comments > MAX_COMMENT_BYTES:
                raise ExcessError(f"more than {MAX_PARTS} blocks, or {MAX_COMMENT_BYTES} bytes of comments")
            place += 1 + length
            if length == 0:
                break


def _check_ppm(head: bytes) -> None:
    words = re.sub(rb"#[^\r\n]*", b"", head).split()
    wanted = 3 if head[1:2] in b"14" else 4  # what it is, width, height, and but for bitmaps the largest value
    if len(head) == MAX_HEADER_BYTES and len(words) < wanted:
        raise ExcessError(f"a header of more than {MAX_HEADER_BYTES} bytes")
