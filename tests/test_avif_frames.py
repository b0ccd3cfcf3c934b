"""How large the frames of an AVIF are: by what its streams say, not by what the file says of the picture."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from hubmodels import ImageError, read_image
from hubmodels.avif_frames import MAX_UNITS, _Bits, _frame_size, _size_in_header, _UnfollowedError, frame_sizes
from hubmodels.containers import ExcessError
from hubmodels.images import upright_size

pytestmark = pytest.mark.skipif("AVIF" not in Image.OPEN and not Image.init(), reason="this Pillow reads no AVIF")


def encoded(width: int, height: int, mode: str = "RGB", frames: int = 1, **options) -> bytes:
    pictures = [Image.new(mode, (width, height), index) for index in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "AVIF", save_all=frames > 1, append_images=pictures[1:], **options)
    return buffer.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content) + 8) + kind + content


# One picture of one item, put together by hand: whatever of it is given takes the place of what belongs there.
STREAM = encoded(64, 48)
STREAM = STREAM[STREAM.index(b"mdat") + 4 :]
ENTRY = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 1, 0, b"av01") + b"\0")
PICTURE = box(b"pitm", bytes(4) + struct.pack(">H", 1))
HEAD = box(b"ftyp", b"avif\0\0\0\0avifmif1")
HANDLER = box(b"hdlr", bytes(8) + b"pict" + bytes(13))


def listed(entries: bytes, count: int) -> bytes:
    return box(b"iinf", bytes(4) + struct.pack(">H", count) + entries)


def properties(more: bytes = b"", padding: bytes = b"") -> bytes:
    size = box(b"ispe", bytes(4) + struct.pack(">LL", 64, 48))
    depth = box(b"pixi", bytes(4) + b"\3\x08\x08\x08")
    of_item = bytes(4) + struct.pack(">LHB", 1, 1, 3) + b"\1\2\x83"
    listed = box(b"ipco", size + depth + box(b"av1C", b"\x81\0\x0c\0") + more)
    return box(b"iprp", listed + box(b"ipma", of_item + padding))


def located(offset: int, length: int, *, method: int = 0, item: int = 1, parts: int = 1, copies: int = 1) -> bytes:
    """Places of one item in version 1 of `iloc`, each of its parts the same."""
    entry = struct.pack(">HHHH", item, method, 0, parts) + parts * struct.pack(">LL", offset, length)
    return box(b"iloc", b"\1\0\0\0\x44\0" + struct.pack(">H", copies) + copies * entry)


def by_hand(
    *,
    items: bytes = listed(ENTRY, 1),
    properties: bytes = properties(),
    more: bytes = b"",
    top: bytes = b"",
    stream: bytes = STREAM,
    **place: int,
) -> bytes:
    """A file, and `located` with what is not given made right."""
    whole = {"offset": 0, "length": len(stream), **place}
    for _ in range(2):  # once to know how long it is
        inner = bytes(4) + HANDLER + PICTURE + located(**whole) + items + properties + more
        before = HEAD + top + box(b"meta", inner)
        if "offset" not in place:
            whole["offset"] = len(before) + 8
    return before + box(b"mdat", stream)


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (333, 77), (1031, 700)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_frames_have_the_size_of_the_picture_and_so_have_those_of_transparency(size, mode):
    for subsampling in ("4:2:0", "4:4:4"):
        assert frame_sizes(encoded(*size, mode, subsampling=subsampling)) == [size] * (2 if mode == "RGBA" else 1)


def test_items_that_are_no_streams_are_left_out():
    exif = Image.Exif()
    exif[270] = "a photo"
    data = encoded(20, 30, xmp=b"\x0a\x14" + b"\xff" * 20, exif=exif.tobytes())
    assert frame_sizes(data) == [(20, 30)]
    assert read_image(data).shape == (30, 20, 3)


def test_one_put_together_by_hand_is_read():
    data = by_hand()
    assert frame_sizes(data) == [(64, 48)]
    assert read_image(data).shape == (48, 64, 3)  # so that the decoder takes it for one, too


@pytest.mark.parametrize("behind", [b"\r\n", bytes(4), bytes(16), box(b"free", b"abc"), struct.pack(">L", 0) + b"free"])
def test_a_few_bytes_behind_it_do_no_harm(behind):
    assert frame_sizes(by_hand() + behind) == [(64, 48)]
    assert read_image(by_hand() + behind).shape == (48, 64, 3)


def test_items_that_the_decoder_passes_over_do_no_harm():
    thumbnail = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 2, 0, b"jpeg") + b"\0")
    data = by_hand(items=listed(ENTRY + thumbnail, 2))
    assert frame_sizes(data) == [(64, 48)]
    assert read_image(data).shape == (48, 64, 3)


def test_a_large_colour_profile_is_no_excess():
    assert frame_sizes(encoded(20, 30, icc_profile=bytes(100_000))) == [(20, 30)]


def test_the_size_of_a_photo_is_not_asked_of_a_file_that_is_refused(tmp_path):
    """Pillow would have read all of its lists by then."""
    (tmp_path / "a.avif").write_bytes(by_hand(more=box(b"iref", bytes(8200))))
    with pytest.raises(ImageError, match="lists of more than"):
        upright_size(tmp_path / "a.avif")


def test_frames_larger_than_the_picture_are_refused_before_they_are_made():
    data = by_hand()
    told, small = (struct.pack(">LL", *size) for size in ((64, 48), (8, 8)))
    assert data.count(told) == 1
    data = data.replace(told, small)
    assert read_image(data).shape == (8, 8, 3)  # as the file says, by scaling
    with pytest.raises(ImageError, match=r"a frame of it: 64x48 is 0\.0 megapixels; at most"):
        read_image(data, max_pixels=64 * 48 - 1)


OTHER = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 2, 0, b"grid") + b"\0")
LATER = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 2, 0, b"av01") + b"\0")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encoded(40, 30, frames=3), "an animation"),
        (by_hand(top=box(b"moov", b"")), "an animation"),
        (by_hand(items=listed(ENTRY + OTHER, 2)), "put together from tiles"),
        (by_hand(items=listed(ENTRY.replace(b"av01", b"iovl"), 1)), "an item of kind b'iovl'"),
        (by_hand(items=listed(ENTRY + LATER, 2)), "an item without a place"),
        (by_hand(items=listed(2 * ENTRY, 2)), "an item twice"),
        (by_hand(items=listed(ENTRY.replace(b"\2\0\0\0", b"\1\0\0\0"), 1)), "an item of version 1"),
        (by_hand(items=2 * listed(ENTRY, 1)), "2 boxes iinf in one, expected 1"),
        (by_hand(items=b""), "0 boxes iinf in one, expected 1"),
        (by_hand(more=located(0, 1)), "2 boxes iloc in one"),
        (by_hand(top=box(b"meta", bytes(4))), "2 boxes meta in one"),
        (by_hand(method=1), "an item without a place in the file"),  # in a box of its own
        (by_hand(parts=0), "an item without a place|ends behind"),
        (by_hand(parts=2), "in several places or parts"),
        (by_hand(copies=2), "in several places or parts"),
        (by_hand(copies=65), "more than 64 places"),
        (by_hand(length=0), "an item without a length"),  # to the end of the file
        (by_hand(length=2**31), "items that share their bytes"),
        (by_hand(offset=400), "ends behind the file"),
        (by_hand(more=box(b"iref", bytes(8200))), "lists of more than 8192 bytes"),
        (by_hand(more=box(b"grpl", bytes(8200))), "lists of more than 8192 bytes"),
        (by_hand(properties=properties(b"", bytes(8200))), "lists of more than 8192 bytes"),
        (by_hand(properties=properties(box(b"zzzz", bytes(1025)))), "a property of more than 1024 bytes"),
        (by_hand(properties=properties() + properties()), "2 boxes iprp in one"),
        (by_hand(properties=box(b"iprp", properties()[8:] + box(b"ipma", bytes(8)))), "2 boxes ipma in one"),
        (by_hand(properties=box(b"iprp", properties()[8:] + box(b"free", b""))), "other than ipco and ipma"),
        (by_hand(more=struct.pack(">L4s", 0, b"free")), "ends elsewhere than its parts"),
        (by_hand(more=struct.pack(">L4s", 9, b"free")), "ends elsewhere than its parts"),
        (by_hand(more=struct.pack(">L4sQ", 1, b"free", 2**63)), "ends elsewhere than its parts"),
        (by_hand(more=256 * box(b"free", b"")), "more than 256 boxes in one"),
        (by_hand(stream=STREAM * 5), "a stream of 5 frames"),
        (by_hand(stream=STREAM + b"\x3a\0" * 4), "a stream of 5 frames"),  # by headers said to be redundant
        (by_hand(stream=b"\x12\0"), "a stream of 0 frames"),
        (by_hand(stream=b"\x12\0" * MAX_UNITS + STREAM), "other units than there are in photos"),
        (by_hand(stream=b"\x12\5" + STREAM[:3]), "other units"),
        (by_hand(stream=b"\x12" + b"\x80" * 8), "a length of more than 8 bytes"),
        (by_hand(stream=b"\x92\0" + STREAM), "other units"),  # a bit that is never set
        (by_hand()[:60], "ends elsewhere|damaged"),
    ],
)
def test_what_photos_do_not_have_is_refused(data, words):
    with pytest.raises(ExcessError, match=f"an AVIF that is not read: .*({words})"):
        frame_sizes(data)


def test_what_is_refused_is_said_with_what_to_do():
    with pytest.raises(ImageError, match=r"put together from tiles\. Save the photo as JPEG or PNG"):
        read_image(by_hand(items=listed(ENTRY + OTHER, 2)))


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_pictures_of_heic_are_still_named_as_such(brand):
    data = by_hand(items=listed(ENTRY.replace(b"av01", b"hvc1"), 1)).replace(b"avif", brand)
    with pytest.raises(ImageError, match="not an image of a known kind"):
        read_image(data)


def header(text: str) -> _Bits:
    bits = text.replace(" ", "")
    count = -(-len(bits) // 8)
    return _Bits(int(bits.ljust(8 * count, "0"), 2).to_bytes(count, "big"))


NARROW = "0100 0011 10011 1000"  # 5 and 4 bits, none to spare: 19 + 1 and 8 + 1
WIDE = "0101 0011 010011 1000"  # 6 bits for 19 + 1


@pytest.mark.parametrize(
    "text",
    [
        "000 0 0 0 0 00000 000000000000 00100",  # no timing, no delay, one operating point at level 4
        "000 0 0 0 0 00001 000000000000 01001 1 000000000000 00100",  # two; a level above 7 has a tier
        "000 0 0 0 1 00000 000000000000 00100 1 0101",  # with a delay of display
        "000 0 0 0 1 00001 000000000000 00100 0 000000000000 00100 1 0101",
    ],
)
def test_sizes_in_headers_written_by_hand(text):
    assert _size_in_header(header(f"{text} {NARROW}")) == (20, 9)
    assert _size_in_header(header(f"{text} {WIDE}")) == (64, 9)  # what frames may say instead


def test_reduced_headers_have_frames_of_their_own_size_alone():
    reduced = "000 1 1 00100"
    assert _size_in_header(header(f"{reduced} {NARROW}")) == _size_in_header(header(f"{reduced} {WIDE}")) == (20, 9)


def test_headers_of_films_and_short_ones_are_refused():
    with pytest.raises(_UnfollowedError, match="with times"):
        _size_in_header(header("000 0 0 1" + "0" * 200))
    with pytest.raises(IndexError):
        _size_in_header(header("000 1 1 00100 1111 1111 111"))


def test_the_largest_of_several_headers_counts():
    small, large = (b"\x0a\x06" + _bytes(f"000 1 1 00100 {size}") for size in (NARROW, "0100 0100 11111 11111"))
    frame = STREAM[STREAM.index(b"\x32") :]
    assert _frame_size(small + large + small + frame) == (32, 32)


def _bytes(text: str) -> bytes:
    bits = text.replace(" ", "").ljust(48, "0")
    return int(bits, 2).to_bytes(6, "big")


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_say_sizes_or_are_refused(seed):
    rng = np.random.default_rng(seed)
    for whole in (encoded(24, 24, "RGBA"), by_hand()):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 1 + seed % 7):
            data[place] = rng.integers(256)
        for each in (bytes(data), bytes(data[: rng.integers(len(data))])):
            try:
                sizes = frame_sizes(each)
            except ExcessError:
                continue
            assert all(1 <= side <= 65_536 for size in sizes for side in size)
