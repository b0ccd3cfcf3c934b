"""How large the frames of an AVIF are: by what its streams say, not by what the file says of the picture."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from hubmodels import ImageError, avif_frames, read_image
from hubmodels.avif_frames import largest_frame

pytestmark = pytest.mark.skipif("AVIF" not in Image.OPEN and not Image.init(), reason="this Pillow reads no AVIF")


def encoded(width: int, height: int, mode: str = "RGB", frames: int = 1, **options) -> bytes:
    pictures = [Image.new(mode, (width, height), index) for index in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "AVIF", save_all=frames > 1, append_images=pictures[1:], **options)
    return buffer.getvalue()


def frame_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as picture:
        return largest_frame(picture)


def smaller(data: bytes, was: tuple[int, int]) -> bytes:
    """The same file, which says that its picture has 8x8 pixels."""
    size, small = (b"ispe" + bytes(4) + struct.pack(">LL", *each) for each in (was, (8, 8)))
    assert data.count(size) == 1
    return data.replace(size, small)


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (333, 77), (1031, 700)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_frame_has_the_size_of_the_picture(size, mode):
    assert frame_of(encoded(*size, mode)) == size
    assert frame_of(encoded(*size, mode, subsampling="4:4:4")) == size


def test_items_that_are_no_streams_are_left_out():
    """This one, taken for a unit of a stream, would be a sequence header of large frames."""
    exif = Image.Exif()
    exif[270] = "a photo"
    assert frame_of(encoded(20, 30, xmp=b"\x0a\x14" + b"\xff" * 20, exif=exif.tobytes())) == (20, 30)


def test_a_sequence_tells_too():
    data = encoded(40, 30, frames=3)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.n_frames == 3
    assert frame_of(data) == (40, 30)
    tracks_alone = data.replace(b"meta", b"free", 1)
    assert [list(avif_frames._frame_sizes(each)) for each in avif_frames._streams(tracks_alone)] == [[(40, 30)]]


def test_frames_larger_than_the_picture_are_refused_before_they_are_made():
    data = smaller(encoded(64, 48), (64, 48))
    assert read_image(data).shape == (8, 8, 3)  # as the file says, by scaling
    with pytest.raises(ImageError, match=r"a frame of it: 64x48 is 0\.0 megapixels; at most"):
        read_image(data, max_pixels=64 * 48 - 1)
    with Image.open(io.BytesIO(data)) as picture, pytest.raises(ImageError, match="a frame of it"):
        read_image(picture, max_pixels=64 * 48 - 1)


def in_idat(data: bytes) -> bytes:
    """The same file with its stream in `idat`, and where that is in version 1 of `iloc`, in two parts."""
    at = data.index(b"mdat") + 4
    stream = data[at:]
    meta = data.index(b"meta") - 4
    iloc = data.index(b"iloc") - 4
    (size,) = struct.unpack_from(">L", data, iloc)
    item = struct.pack(">HHHLH", 1, 1, 0, 5, 2)  # number, method, where, base, parts
    parts = struct.pack(">LLLL", 0, 3, 3, len(stream) - 3)
    body = b"\1\0\0\0" + bytes([0x44, 0x40]) + struct.pack(">H", 1) + item + parts
    inner = data[meta + 8 : iloc] + box(b"iloc", body) + data[iloc + size : data.index(b"mdat") - 4]
    return data[:meta] + box(b"meta", inner + box(b"idat", bytes(5) + stream))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content) + 8) + kind + content


def test_streams_are_found_wherever_they_lie():
    data = in_idat(encoded(50, 60))
    assert frame_of(data) == (50, 60)
    assert read_image(data).shape == (60, 50, 3)  # as the decoder finds them


def header(text: str) -> avif_frames._Bits:
    bits = text.replace(" ", "")
    return avif_frames._Bits(int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big"))


SIZE = "0100 0011 10011 0111"  # 5 and 4 bits, 19 + 1 and 7 + 1


@pytest.mark.parametrize(
    "text",
    [
        "000 1 1 00100",  # profile, still picture, reduced, level
        "000 0 0 0 0 00000 000000000000 00100",  # no timing, no delay, one operating point at level 4
        "000 0 0 0 0 00001 000000000000 01001 1 000000000000 00100",  # two; a level above 7 has a tier
        "000 0 0 0 1 00000 000000000000 00100 1 0101",  # with a delay of display
        f"000 0 0 1 {'0' * 64} 1 00101 0 0 00000 000000000000 00100",  # timing, with Exp-Golomb 00101
        f"000 0 0 1 {'0' * 64} 0 1 00010 {'0' * 42} 0 00000 000000000000 00100 1 101 010 1",  # decoder model of 3 bits
    ],
)
def test_sizes_in_headers_written_by_hand(text):
    assert avif_frames._size_in_header(header(f"{text} {SIZE}")) == (20, 8)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (box(b"free", b"") * 20_001, "more than 20000 boxes"),
        (box(b"meta", bytes(4)) * 65, "64 of them with lists"),
    ],
    ids=["boxes", "lists"],
)
def test_what_would_take_long_to_follow_is_refused(data, words):
    with pytest.raises(ValueError, match=words):
        list(avif_frames._streams(data))


def test_items_that_share_their_bytes_and_streams_of_nothing_are_refused():
    entry = b"\2\0\0\0" + struct.pack(">HH4s", 1, 0, b"av01")
    part = struct.pack(">LL", 0, 1000)
    listed = b"\0\0\0\0" + bytes([0x44, 0]) + struct.pack(">HHHH", 1, 1, 0, 9) + 9 * part
    meta = bytes(4) + box(b"iinf", bytes(6) + box(b"infe", entry)) + box(b"iloc", listed)
    with pytest.raises(ValueError, match="items of 9,000 bytes in a file of"):
        list(avif_frames._streams(box(b"meta", meta)))
    endless = b"\0\0\0\0" + bytes([0, 0]) + struct.pack(">H", 1) + struct.pack(">HHH", 1, 0, 65_535)
    meta = bytes(4) + box(b"iinf", bytes(6) + box(b"infe", entry)) + box(b"iloc", endless)
    with pytest.raises(ValueError, match="more than 20000 parts"):
        list(avif_frames._streams(box(b"meta", meta)))
    with pytest.raises(ValueError, match="more than 20000 units"):
        list(avif_frames._frame_sizes(b"\x12\0" * 20_001))


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_say_no_size_or_one_and_nothing_else(seed):
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(24, 24, frames=1 + seed % 2))
    for place in rng.integers(0, len(data), 1 + seed):
        data[place] = rng.integers(256)
    for whole in (bytes(data), bytes(data[: rng.integers(len(data))])):
        try:
            sizes = [size for stream in avif_frames._streams(whole) for size in avif_frames._frame_sizes(stream)]
        except ValueError:
            continue
        assert all(1 <= side <= 65_536 for size in sizes for side in size)
