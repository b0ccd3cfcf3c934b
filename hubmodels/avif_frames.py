"""How large the frames in an AVIF are, whatever the file says of the picture: strangers may ask for a gigabyte.

The size of the picture is a property in the file's boxes (ISO/IEC 23008-12), that of what is decoded stands in the
sequence header of its AV1 streams (AV1 specification, section 5.5.1). Where they differ, the decoder makes the whole
frame first and scales it then. Pillow tells of the former only.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

from PIL import Image

MAX_LISTS = 64  # of items, or of a track's samples
MAX_PARTS = 20_000  # boxes, extents or units of a stream; photos have some hundred
SEQUENCE_HEADER = 1  # kind of unit
HEADER_BYTES = 512  # more than any sequence header has before its sizes
_CONTAINERS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"meta": 4, b"iinf": 0}
_Box = tuple[bytes, int, int]  # kind, and where its content begins and ends


def largest_frame(picture: Image.Image) -> tuple[int, int]:
    """Width and height of the largest frame that decoding an opened picture may make; (0, 0) if it is no AVIF.

    What cannot be followed has no frames: the decoder will say what is wrong with it.

    Raises:
        ValueError: parts without an end, or items that claim more bytes than there are.
    """
    file = getattr(picture, "fp", None)
    if file is None or picture.format != "AVIF":
        return 0, 0
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    sizes = [size for stream in _streams(data) for size in _frame_sizes(stream)]
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _streams(data: bytes) -> Iterator[bytes]:
    """The AV1 streams that a reader may decode: every coded item, and the first sample of every track."""
    boxes = list(itertools.islice(_boxes(data, 0, len(data)), MAX_PARTS + 1))
    lists = [box for box in boxes if box[0] in (b"meta", b"stbl")]
    if len(boxes) > MAX_PARTS or len(lists) > MAX_LISTS:
        raise ValueError(f"more than {MAX_PARTS} boxes, or {MAX_LISTS} of them with lists")
    for kind, start, end in lists:
        within = [box for box in boxes if start <= box[1] and box[2] <= end]
        try:
            yield from _items(data, within) if kind == b"meta" else _first_samples(data, within)
        except (KeyError, IndexError, struct.error):  # lacks a box, or ends too early
            continue


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    """All boxes from `start` to `end`, those in them too."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">L4s", data, start)
        content = start + 8
        if size == 1 and content + 8 <= end:
            (size,), content = struct.unpack_from(">Q", data, content), content + 8
        stop = min(start + size, end) if size else end
        if stop < content:
            return
        yield kind, content, stop
        if kind in _CONTAINERS:
            skipped = _CONTAINERS[kind]
            if kind == b"iinf":  # version, flags, and how many there are
                skipped = 6 if data[content : content + 1] == b"\0" else 8
            yield from _boxes(data, content + skipped, stop)
        start = stop


def _items(data: bytes, boxes: list[_Box]) -> Iterator[bytes]:
    """The streams of the items that one `meta` lists."""
    coded = {_item_of(data, start) for kind, start, _ in boxes if kind == b"infe"}
    own = next(((start, end) for kind, start, end in boxes if kind == b"idat"), (0, 0))
    claimed = 0
    for kind, start, _ in boxes:
        if kind != b"iloc":
            continue
        for item, in_idat, extents in _locations(data, start):
            if (item, b"av01") not in coded:
                continue
            claimed += sum(length for _, length in extents)
            if claimed > 2 * len(data):  # a file may be one item, and give a length of 0 for "to the end"
                raise ValueError(f"items of {claimed:,} bytes in a file of {len(data):,}")
            whole = data[slice(*own)] if in_idat else data
            yield b"".join(whole[at : at + length if length else None] for at, length in extents)


def _item_of(data: bytes, start: int) -> tuple[int, bytes]:
    """Number and kind of the item that an `infe` describes."""
    wide = data[start] > 2
    number, _, kind = struct.unpack_from(">LH4s" if wide else ">HH4s", data, start + 4)
    return number, kind


def _locations(data: bytes, start: int) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Of every item in an `iloc`: its number, whether it lies in `idat`, and offset and length of its parts."""
    version, sizes, more = data[start], data[start + 4], data[start + 5]
    offset_bytes, length_bytes, base_bytes = sizes >> 4, sizes & 15, more >> 4
    index_bytes = more & 15 if version else 0
    place = start + 6
    parts = 0

    def number(width: int) -> int:
        nonlocal place
        if place + width > len(data):
            raise struct.error("ends too early")
        place += width
        return int.from_bytes(data[place - width : place], "big")

    for _ in range(number(4 if version > 1 else 2)):
        item = number(4 if version > 1 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_bytes)
        extents = []
        for _ in range(number(2)):
            if (parts := parts + 1) > MAX_PARTS:
                raise ValueError(f"items in more than {MAX_PARTS} parts")
            number(index_bytes)
            extents.append((base + number(offset_bytes), number(length_bytes)))
        yield item, method == 1, extents


def _first_samples(data: bytes, boxes: list[_Box]) -> Iterator[bytes]:
    """The first sample of a track of AV1, by the boxes of its `stbl`."""
    starts = {kind: start for kind, start, _ in boxes}
    if data[starts[b"stsd"] + 12 :][:4] != b"av01":
        return
    if b"co64" in starts:
        (offset,) = struct.unpack_from(">Q", data, starts[b"co64"] + 8)
    else:
        (offset,) = struct.unpack_from(">L", data, starts[b"stco"] + 8)
    of_all, _, of_first = struct.unpack_from(">LLL", data, starts[b"stsz"] + 4)
    yield data[offset : offset + (of_all or of_first)]


def _frame_sizes(stream: bytes) -> Iterator[tuple[int, int]]:
    """Width and height that each sequence header of a stream allows its frames (sections 5.3.1 and 5.3.2)."""
    place = units = 0
    while place < len(stream):
        if (units := units + 1) > MAX_PARTS:
            raise ValueError(f"a stream of more than {MAX_PARTS} units")
        head = stream[place]
        place += 2 if head & 4 else 1
        length = len(stream) - place
        if head & 2:
            length = 0
            for index in range(8):  # 7 bits in each byte, the low ones first
                byte = stream[place] if place < len(stream) else 0
                place, length = place + 1, length | (byte & 127) << (7 * index)
                if not byte & 128:
                    break
        if head >> 3 & 15 == SEQUENCE_HEADER:
            yield _size_in_header(_Bits(stream[place : place + min(length, HEADER_BYTES)]))
        place += length


class _Bits:
    """The bits of a header, the high one of each byte first; zeros behind its end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data + bytes(HEADER_BYTES), "big"), 8 * (len(data) + HEADER_BYTES)

    def take(self, count: int) -> int:
        self._left = max(0, self._left - count)
        return self._value >> self._left & ((1 << count) - 1)

    def skip_if(self, *counts: int) -> bool:
        """A flag; if it is set, so many bits behind it are passed over."""
        if not self.take(1):
            return False
        self.take(sum(counts))
        return True


def _size_in_header(bits: _Bits) -> tuple[int, int]:
    """Largest width and height of a frame, from a sequence header (section 5.5.1)."""
    bits.take(4)  # seq_profile, still_picture
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        delay_bits = 0
        if bits.take(1):  # timing_info_present_flag
            bits.take(64)
            if bits.take(1):  # equal_picture_interval, with a number in Exp-Golomb code
                zeros = next((zeros for zeros in range(32) if bits.take(1)), 32)
                bits.take(zeros if zeros < 32 else 0)
            if bits.take(1):  # decoder_model_info_present_flag
                delay_bits = bits.take(5) + 1
                bits.take(42)
        has_delay = bits.take(1)  # initial_display_delay_present_flag
        for _ in range(bits.take(5) + 1):  # operating points
            bits.take(12)
            if bits.take(5) > 7:  # seq_level_idx
                bits.take(1)
            if delay_bits:
                bits.skip_if(2 * delay_bits, 1)
            if has_delay:
                bits.skip_if(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1
