"""How large the frames in an AVIF are, whatever the file says of the picture: strangers may ask for a gigabyte.

The size of the picture is a property in the file's boxes (ISO/IEC 23008-12), that of what is decoded stands in the
header of its AV1 stream (AV1 specification, sections 5.3 and 5.5). Where they differ, the decoder makes whole frames
first and scales them then, and Pillow tells of the picture alone. Some lists in the boxes, too, are read in time that
grows with the square of their length, and what they point at is copied each time. So the file is followed before Pillow
opens it. Only the plain structure that programs write for photos is: whatever else there may be, a decoder would read
some of it otherwise, and it is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hubmodels.containers import ExcessError

BRANDS = (b"avif", b"avis", b"mif1", b"msf1")  # what Pillow takes for an AVIF
MAX_BOXES, MAX_ITEMS, MAX_UNITS, MAX_FRAMES = 256, 64, 4096, 4  # photos have 20, 5, 4 and 1 of them
MAX_LIST_BYTES, MAX_PROPERTY_BYTES = 8192, 1024  # photos have 300 and 40
# Of no decoder that Pillow has, or the last: of how to apply a map of gains, whose frames are an item of their own.
ITEMS_WITHOUT_FRAMES = (b"Exif", b"mime", b"uri ", b"jpeg", b"hvc1", b"tmap")
SEQUENCE_HEADER, FRAMES = 1, (3, 6, 7)  # kinds of units


class _UnfollowedError(Exception):
    """Says what was found that photos do not have."""


def is_avif(head: bytes) -> bool:
    """Whether Pillow would take a file that begins so for an AVIF."""
    return head[4:8] == b"ftyp" and head[8:12] in BRANDS


def frame_sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height of the largest frame of each coded item of an AVIF.

    Raises:
        ExcessError: damaged, or no plain photo: an animation, a picture in tiles, a stream of many frames, long lists.
    """
    try:
        return [_frame_size(stream) for stream in _streams(data)]
    except _UnfollowedError as error:
        raise ExcessError(f"an AVIF that is not read: {error}") from error
    except (IndexError, struct.error) as error:
        raise ExcessError("an AVIF that is not read: it is damaged, or has another structure than photos") from error


def _streams(data: bytes) -> Iterator[bytes]:
    """The AV1 stream of every coded item."""
    whole = _boxes(data, 0, len(data), is_top=True)
    if b"moov" in whole or b"mini" in whole:
        raise _UnfollowedError("it is an animation, or has a short header; one picture is expected")
    start, end = _only(whole, b"meta")
    lists = _boxes(data, start + 4, end)
    _check_lists(data, lists)
    places = _places(data[slice(*_only(lists, b"iloc"))])
    if sum(length for _, _, length in places.values()) > len(data):
        raise _UnfollowedError("items that share their bytes")
    for item, kind in _kinds(data, *_only(lists, b"iinf")).items():
        if kind in ITEMS_WITHOUT_FRAMES:
            continue
        if kind != b"av01":
            what = "it is put together from tiles" if kind == b"grid" else f"an item of kind {kind!r}"
            raise _UnfollowedError(what)
        method, offset, length = places.get(item, (1, 0, 0))
        if method:
            raise _UnfollowedError("an item without a place in the file")
        if not 0 < length <= len(data) - offset:
            raise _UnfollowedError("an item that ends behind the file")
        yield data[offset : offset + length]


def _check_lists(data: bytes, lists: dict[bytes, list[tuple[int, int]]]) -> None:
    """Raise _UnfollowedError for lists that take long to read, and for properties that are large to copy for each."""
    properties = _boxes(data, *_only(lists, b"iprp"))
    if set(properties) != {b"ipco", b"ipma"}:
        raise _UnfollowedError(f"boxes of properties other than ipco and ipma: {sorted(properties)}")
    listed = [place for kind in (b"iloc", b"iinf", b"iref", b"grpl") for place in lists.get(kind, [])]
    if sum(end - start for start, end in [*listed, _only(properties, b"ipma")]) > MAX_LIST_BYTES:
        raise _UnfollowedError(f"lists of more than {MAX_LIST_BYTES} bytes")
    for kind, places in _boxes(data, *_only(properties, b"ipco")).items():
        # Colour profiles, which may be large, are not copied.
        if kind != b"colr" and max(end - start for start, end in places) > MAX_PROPERTY_BYTES:
            raise _UnfollowedError(f"a property of more than {MAX_PROPERTY_BYTES} bytes")


def _boxes(data: bytes, start: int, end: int, *, is_top: bool = False) -> dict[bytes, list[tuple[int, int]]]:
    """Kind -> where the contents of such boxes begin and end, of those that fill `data` from `start` to `end`."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    for _ in range(MAX_BOXES + 1):
        if start == end or (is_top and end - start < 8):  # a few bytes more, as some programs leave
            return found
        size, kind = struct.unpack_from(">L4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        elif size == 0 and is_top:  # to the end
            size = end - start
        if not content - start <= size <= end - start:
            raise _UnfollowedError("a box that ends elsewhere than its parts")
        found.setdefault(kind, []).append((content, start + size))
        start += size
    raise _UnfollowedError(f"more than {MAX_BOXES} boxes in one")


def _only(boxes: dict[bytes, list[tuple[int, int]]], kind: bytes) -> tuple[int, int]:
    found = boxes.get(kind, [])
    if len(found) != 1:
        raise _UnfollowedError(f"{len(found)} boxes {kind.decode()} in one, expected 1")
    return found[0]


def _kinds(data: bytes, start: int, end: int) -> dict[int, bytes]:
    """Number -> kind of every item that an `iinf` lists."""
    start += 6 if data[start] == 0 else 8  # version, flags, and how many there are
    found: dict[int, bytes] = {}
    for content, stop in _boxes(data, start, end).get(b"infe", []):
        version, body = data[content], data[content + 4 : stop]
        if version not in (2, 3):
            raise _UnfollowedError(f"an item of version {version}")
        number, _, kind = struct.unpack_from(">HH4s" if version == 2 else ">LH4s", body)
        if number in found or len(found) == MAX_ITEMS:
            raise _UnfollowedError(f"an item twice, or more than {MAX_ITEMS} of them")
        found[number] = kind
    return found


def _places(body: bytes) -> dict[int, tuple[int, int, int]]:
    """Number -> method (0: in the file), offset and length of every item that has a place, by an `iloc`."""
    version = body[0]
    if version > 2:
        raise _UnfollowedError(f"places of version {version}")
    offset_bytes, length_bytes, base_bytes = body[4] >> 4, body[4] & 15, body[5] >> 4
    index_bytes = body[5] & 15 if version else 0
    place = 6

    def number(width: int) -> int:
        nonlocal place
        place += width
        if place > len(body):
            raise IndexError
        return int.from_bytes(body[place - width : place], "big")

    found: dict[int, tuple[int, int, int]] = {}
    items = number(4 if version == 2 else 2)
    if items > MAX_ITEMS:
        raise _UnfollowedError(f"more than {MAX_ITEMS} places")
    for _ in range(items):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        file, base, parts = number(2), number(base_bytes), number(2)
        if item in found or parts > 1 or file:
            raise _UnfollowedError("an item in several places or parts, or in another file")
        number(index_bytes * parts)
        offset, length = base + number(offset_bytes * parts), number(length_bytes * parts)
        if parts and not length:
            raise _UnfollowedError("an item without a length")
        found[item] = method, offset, length
    return found


def _frame_size(stream: bytes) -> tuple[int, int]:
    """Largest width and height of a frame in a stream of units (section 5.3.1)."""
    place = units = frames = 0
    largest = (0, 0)
    while place < len(stream):
        units += 1
        head = stream[place]
        place += 2 if head & 4 else 1
        length, place = _leb128(stream, place) if head & 2 else (len(stream) - place, place)
        kind = head >> 3 & 15
        if head & 128 or length > len(stream) - place or units > MAX_UNITS:
            raise _UnfollowedError("a stream of other units than there are in photos")
        if kind == SEQUENCE_HEADER:
            size = _size_in_header(_Bits(stream[place : place + length]))
            largest = max(largest, size, key=lambda each: each[0] * each[1])
        frames += kind in FRAMES
        place += length
    if frames > MAX_FRAMES or 0 in largest:
        raise _UnfollowedError(f"a stream of {frames} frames; 1 is expected, {MAX_FRAMES} at most")
    return largest


def _leb128(stream: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits in each byte, the low ones first (section 4.10.5), and where it ends."""
    value = 0
    for index in range(8):
        byte = stream[place + index]
        value |= (byte & 127) << (7 * index)
        if not byte & 128:
            return value, place + index + 1
    raise _UnfollowedError("a length of more than 8 bytes")


class _Bits:
    """The bits of a header, the high one of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data[:256], "big"), 8 * len(data[:256])  # 32 levels need 100 bytes

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << count) - 1)


def _size_in_header(bits: _Bits) -> tuple[int, int]:
    """Largest width and height of a frame, from a sequence header (section 5.5.1)."""
    bits.take(4)  # seq_profile, still_picture
    is_reduced = bits.take(1)
    if is_reduced:
        bits.take(5)
    else:
        if bits.take(1):  # timing_info_present_flag
            raise _UnfollowedError("a stream with times, as films have")
        has_delay = bits.take(1)  # initial_display_delay_present_flag
        for _ in range(bits.take(5) + 1):  # operating points
            bits.take(12)
            if bits.take(5) > 7:  # seq_level_idx
                bits.take(1)
            if has_delay and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    if is_reduced:
        return width, height
    return _most(width, width_bits), _most(height, height_bits)


def _most(side: int, bits: int) -> int:
    """What a frame may have instead of a side, in whose place it may put any number of so many bits (section 5.9.5).

    The side itself if no bit is to spare: it is less than doubled then.
    """
    return side if 2 * side > 1 << bits else 1 << bits
