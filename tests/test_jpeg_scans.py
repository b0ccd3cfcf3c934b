"""JPEGs that ask for far more work than they have bytes."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from hubmodels import ImageError, read_image
from hubmodels.jpeg_scans import MAX_SCANS, most_scans


def jpeg(**options) -> bytes:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 48), np.uint8)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def repeated(data: bytes, times: int) -> bytes:
    """A JPEG whose last scan comes so many times more, which is what the format allows."""
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + times * data[start:end] + data[end:]


def scans(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as picture:
        return most_scans(picture)


def tiff(strips: list[bytes], height: int = 64, width: int = 48, *, compression: int = 7) -> bytes:
    """A grey TIFF whose strips are JPEGs."""
    count = len(strips)
    places = [8 + sum(map(len, strips[:i])) for i in range(count)]
    behind = 8 + sum(map(len, strips))
    tags = [(256, 1, width), (257, 1, height), (258, 1, 8), (259, 1, compression), (262, 1, 1), (277, 1, 1)]
    tags += [(278, 1, height // count)]
    lists = struct.pack(f"<{2 * count}I", *places, *map(len, strips))
    where = (behind, behind + 4 * count) if count > 1 else (places[0], len(strips[0]))
    tags += [(273, count, where[0]), (279, count, where[1])]
    body = b"".join(struct.pack("<HHII", tag, 4, n, value) for tag, n, value in sorted(tags))
    directory = struct.pack("<H", len(tags)) + body + bytes(4)
    return b"II*\0" + struct.pack("<I", behind + len(lists)) + b"".join(strips) + lists + directory


def test_scans_are_counted_as_the_encoder_wrote_them():
    assert scans(jpeg()) == 1
    progressive = scans(jpeg(progressive=True))
    assert 1 < progressive < MAX_SCANS / 2
    assert scans(repeated(jpeg(progressive=True), 5)) == progressive + 5
    assert scans(jpeg(progressive=True, restart_marker_rows=1)) == progressive  # restarts are no scans


def test_what_segments_hold_is_no_scan():
    inside = jpeg(exif=b"Exif\0\0" + 3 * jpeg(), comment=100 * b"\xff\xda")
    assert inside.count(b"\xff\xda") > 100 and scans(inside) == 1
    assert read_image(inside).shape == (64, 48, 3)


@pytest.mark.parametrize("times", [MAX_SCANS, 100_000])
def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(times, monkeypatch):
    data = repeated(jpeg(progressive=True), times)
    with Image.open(io.BytesIO(data)) as picture:
        monkeypatch.setattr(type(picture), "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(ImageError, match=f"a JPEG of .* scans or more; at most {MAX_SCANS} are read"):
        read_image(data)


def test_the_most_that_is_allowed_is_read():
    data = jpeg(progressive=True)
    full = repeated(data, MAX_SCANS - scans(data))
    assert scans(full) == MAX_SCANS and read_image(full).shape == (64, 48, 3)


def test_strips_of_a_tiff_may_be_such_jpegs_too():
    fine, bad = jpeg(progressive=True), repeated(jpeg(progressive=True), MAX_SCANS)
    assert np.array_equal(read_image(tiff([fine])), read_image(fine))
    with pytest.raises(ImageError, match="scans or more"):
        read_image(tiff([bad]))
    rows = jpeg()
    many = tiff(100 * [rows], height=6400)
    assert scans(many) == 1 and read_image(many).shape == (6400, 48, 3)
    with pytest.raises(ImageError, match="scans or more"):
        read_image(tiff([*(99 * [rows]), bad], height=6400))
    with pytest.raises(ImageError, match="scans or more"):
        read_image(tiff([bad], compression=6))


def test_other_formats_and_pictures_without_a_file_are_left_alone():
    picture = Image.fromarray(np.zeros((4, 4), np.uint8))
    assert most_scans(picture) == 0
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF")
    assert scans(buffer.getvalue()) == 0
