"""What lies beside the pixels: files of a few bytes that would take all memory or minutes are refused at once."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from hubmodels import ImageError, read_image

SMALL = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))


def encoded(format: str, **options) -> bytes:
    buffer = io.BytesIO()
    SMALL.convert("P" if format == "GIF" else "RGB").save(buffer, format, **options)
    return buffer.getvalue()


def tags(count: int, claimed: int, *, at: int) -> bytes:
    """A directory of so many tags that all claim the same bytes."""
    entries = b"".join(struct.pack("<HHLL", 1000 + index, 7, claimed, at) for index in range(count))
    return struct.pack("<H", count) + entries + bytes(4)


def exif(count: int, claimed: int) -> bytes:
    return b"Exif\0\0II*\0" + struct.pack("<L", 8) + tags(count, claimed, at=8).ljust(claimed, b"\0")


def tiff(count: int, claimed: int, *, big: bool = False) -> bytes:
    """A TIFF of one pixel with tags besides that all claim the same bytes."""
    usual = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1))
    if big:
        entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in usual)
        entries += b"".join(struct.pack("<HHQQ", 1000 + index, 7, claimed, 16) for index in range(count))
        head = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16 + claimed)
        return head + bytes(claimed) + struct.pack("<Q", count + len(usual)) + entries + bytes(8)
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in usual)
    entries += b"".join(struct.pack("<HHLL", 1000 + index, 7, claimed, 8) for index in range(count))
    head = b"II*\0" + struct.pack("<L", 8 + claimed)
    return head + b"\x80" * claimed + struct.pack("<H", count + len(usual)) + entries + bytes(4)


def in_jpeg(*segments: tuple[int, bytes]) -> bytes:
    whole = encoded("JPEG")
    parts = (b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data for marker, data in segments)
    return whole[:2] + b"".join(parts) + whole[2:]


def hidden_exif() -> bytes:
    """For who takes the two bytes before it for the length of a segment, EXIF and all are its content."""
    return in_jpeg((0xE1, exif(3000, 60_000)))[2:]


def in_png(chunk: bytes, times: int) -> bytes:
    whole = encoded("PNG")
    return whole[:33] + chunk * times + whole[33:]


def in_gif(blocks: bytes) -> bytes:
    whole = encoded("GIF")
    at = 13 + (3 << ((whole[10] & 7) + 1))
    return whole[:at] + blocks + whole[at:]


COSTLY = {
    "TIFF": lambda: tiff(600, 100_000),
    "BigTIFF": lambda: tiff(600, 100_000, big=True),
    "TIFF of too many tags": lambda: tiff(5000, 10),
    "JPEG, one segment of EXIF": lambda: in_jpeg((0xE1, exif(3000, 60_000))),
    "JPEG, EXIF in several segments": lambda: in_jpeg(
        (0xE1, exif(600, 65_000)), *[(0xE1, b"Exif\0\0" + bytes(60_000))] * 9
    ),
    "JPEG, EXIF behind a marker without content": lambda: encoded("JPEG")[:2] + b"\xff\xf0\x70\x00" + hidden_exif(),
    "JPEG, EXIF in crumbs": lambda: in_jpeg(*[(0xE1, b"Exif\0\0x")] * 100),
    "JPEG, list of pictures": lambda: in_jpeg((0xE2, b"MPF\0" + exif(3000, 60_000)[6:])),
    "JPEG, empty segments": lambda: in_jpeg(*[(0xE5, b"")] * 30_000),
    "JPEG, bytes between": lambda: encoded("JPEG")[:20] + bytes(2_000_000) + encoded("JPEG")[20:],
    "PNG, chunks of text": lambda: in_png(struct.pack(">L", 2) + b"tEXta\0" + bytes(4), 30_000),
    "PNG, colour profiles": lambda: in_png(struct.pack(">L", 4) + b"iCCPa\0\0\0" + bytes(4), 2),
    "GIF, comments": lambda: in_gif(b"\x21\xfe\x01x\0" * 100_000),
    "GIF, one comment": lambda: in_gif(b"\x21\xfe" + (b"\xff" + bytes(255)) * 300 + b"\0"),
    "GIF, bytes between": lambda: in_gif(bytes(2_000_000)),
    "PPM, comment": lambda: b"P6 #" + b"x" * 50_000 + b"\n1 1 255 abc",
    "PPM, spaces": lambda: b"P6" + b" " * 50_000 + b"1 1 255 abc",
    "TIFF, its number the other way round": lambda: tiff(600, 100_000).replace(b"II*\0", b"II\0*", 1),
    "AVIF, one directory many times": lambda: encoded("AVIF") + b"II*\0\0\0\0\0" * 20_000,
    "AVIF": lambda: encoded("AVIF") + exif(600, 100_000)[6:],
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_would_cost_far_more_than_the_pixels_is_refused_at_once(kind):
    data = COSTLY[kind]()
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ImageError, match=r"the bytes: .*Save the photo anew"):
        read_image(data)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 4 and peak < 4 * len(data) + 5_000_000


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_exif_that_is_only_looked_at_for_the_orientation_is_not_read_at_any_price(format):
    tracemalloc.start()
    assert read_image(encoded(format, exif=exif(600, 100_000))).shape == (16, 16, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_tile_larger_than_the_photo_may_be_is_refused():
    """A TIFF is decoded tile by tile, whatever the size of the picture."""
    facts = (
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 20_000),
        (323, 20_000),
        (324, 8),
        (325, 1),
    )
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in facts)
    data = b"II*\0" + struct.pack("<L", 12) + bytes(4) + struct.pack("<H", len(facts)) + entries + bytes(4)
    with pytest.raises(ImageError, match=r"a tile of it: 20000x20000 is 400\.0 megapixels"):
        read_image(data)


def test_a_bmp_with_run_lengths_may_not_be_large():
    head = struct.pack("<LLLHHLLLLLL", 40, 3000, 3000, 1, 8, 1, 2, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<LLL", 0, 0, 54 + 1024) + head + bytes(1024) + b"\0\1"
    with pytest.raises(ImageError, match="a BMP with run lengths may not be that large"):
        read_image(data)


def test_what_programs_write_is_read():
    """Comments, text and EXIF of usual size."""
    usual = Image.Exif()
    usual[0x010F] = "maker" * 1000
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        assert read_image(encoded(format, exif=usual)).shape == (16, 16, 3)
    assert read_image(in_jpeg((0xE1, exif(30, 40_000)))).shape == (16, 16, 3)
    assert read_image(in_gif(b"\x21\xfe\x05hello\0" * 10)).shape == (16, 16, 3)
    assert read_image(in_png(struct.pack(">L", 2) + b"tEXta\0" + b"\x8d\x1a\x1b\x6b", 0)).shape == (16, 16, 3)
    assert read_image(b"P6 # by a program\n1 1\n255\nabc").shape == (1, 1, 3)
