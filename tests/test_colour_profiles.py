"""Photos of other colour spaces are brought to sRGB; profiles are untrusted."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageCms

from hubmodels import read_image
from hubmodels.colour_profiles import MAX_PROFILE_BYTES

# Red, green and blue of Display P3 in the profile connection space (SMPTE EG 432-1, adapted to D50).
SRGB_PRIMARIES = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))  # likewise
P3_PRIMARIES = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
D50 = (0.9642, 1.0, 0.8249)


def fixed(*values: float) -> bytes:
    """s15Fixed16Number of ICC.1."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def profile(space: bytes, tags: dict[bytes, bytes], name: bytes = b"drawn") -> bytes:
    """A profile of version 2 for displays, by hand (ICC.1:2001-04)."""
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(1 + 78),
        b"cprt": b"text" + bytes(5),
        b"wtpt": b"XYZ " + bytes(4) + fixed(*D50),
        **tags,
    }
    offset, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        table += key + struct.pack(">II", offset + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4xI4s4s4s", offset + len(body), 0x02100000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    header = header.ljust(68, b"\0") + fixed(*D50)
    return header.ljust(128, b"\0") + table + body


def table() -> bytes:
    """The curve of sRGB (IEC 61966-2-1) in 1024 steps, as of the profile that most cameras and scanners embed."""
    x = np.linspace(0, 1, 1024)
    y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + np.round(65535 * y).astype(">u2").tobytes()


def display(trc: bytes | None = None, name: bytes = b"drawn", primaries=P3_PRIMARIES) -> bytes:
    """A screen; its curve is that of gamma 2.2 unless given."""
    tags = {}
    for letter, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags[letter + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*primary)
        tags[letter + b"TRC"] = trc or curve(2.2)
    return profile(b"RGB ", tags, name)


def encoded(picture: Image.Image, icc: bytes | None, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, icc_profile=icc, **options)
    return buffer.getvalue()


def as_stored(photo: np.ndarray, icc: bytes) -> Image.Image:
    """What a camera stores of an sRGB photo that all fits into its own colour space."""
    own, srgb = ImageCms.getOpenProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(Image.fromarray(photo), srgb, own, outputMode="RGB")


@pytest.fixture
def photo(rng) -> np.ndarray:
    return rng.integers(0, 256, (12, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("format, options", [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_a_photo_in_display_p3_is_the_photo_in_srgb(photo, format, options):
    stored = as_stored(photo, display())
    assert np.abs(np.asarray(stored).astype(int) - photo).max() > 20  # as it would be without its profile
    got = read_image(encoded(stored, display(), format, **options)).astype(int)
    assert np.abs(got - photo).max() <= 12 and np.abs(got - photo).mean() < 1  # 8 bits lose most in the shadows


def test_grey_follows_its_curve_too():
    """Linear light of 0.25 is 137 in sRGB (IEC 61966-2-1): 255 * (1.055 * 0.25 ** (1 / 2.4) - 0.055)."""
    icc = profile(b"GRAY", {b"kTRC": curve(1.0)})
    got = read_image(encoded(Image.new("L", (4, 4), 64), icc))
    assert np.abs(got.astype(int) - 137).max() <= 1


def test_alpha_and_palettes_are_kept(photo):
    stored = as_stored(photo, display())
    opaque = read_image(encoded(stored, display()))
    clear = stored.convert("RGBA")
    clear.putpixel((0, 0), (10, 200, 10, 0))
    got = read_image(encoded(clear, display()))
    assert_array_equal(got[0, 0], [255] * 3)
    assert_array_equal(got[1:], opaque[1:])
    few = stored.quantize(256)
    assert_array_equal(read_image(encoded(few, display())), read_image(encoded(few.convert("RGB"), display())))


@pytest.mark.parametrize("mode, clear", [("RGB", (10, 200, 10)), ("L", 77)])
def test_one_transparent_colour_stays_transparent(mode, clear):
    """As a chunk beside the pixels; conversion changes the pixels, and would leave the chunk."""
    picture = Image.new(mode, (2, 1), clear)
    picture.putpixel((1, 0), 9 if mode == "L" else (200, 30, 30))
    got = read_image(encoded(picture, display(), transparency=clear))
    plain = read_image(encoded(picture.convert("RGB"), display()))
    assert_array_equal(got, [[[255] * 3, plain[0, 1]]])


@pytest.mark.parametrize(
    "icc",
    [
        None,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        display(table(), primaries=SRGB_PRIMARIES),
    ],
    ids=["none", "built in", "by another name"],
)
def test_srgb_stays_bit_by_bit(photo, icc):
    assert_array_equal(read_image(encoded(Image.fromarray(photo), icc)), photo)


def test_grey_of_the_curve_of_srgb_stays_too():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    icc = profile(b"GRAY", {b"kTRC": table()})
    assert_array_equal(read_image(encoded(Image.fromarray(ramp), icc))[..., 0], ramp)


@pytest.mark.parametrize(
    "linear", [curve(1.0), b"curv" + bytes(8)], ids=["gamma of one", "no table, which stands for the same"]
)
def test_srgb_in_linear_light_is_not_srgb_for_its_name(linear):
    """As GIMP writes it: half of the light is 188 (IEC 61966-2-1)."""
    icc = display(linear, b"GIMP built-in Linear sRGB", SRGB_PRIMARIES)
    got = read_image(encoded(Image.new("RGB", (4, 4), (128, 128, 128)), icc))
    assert np.abs(got.astype(int) - 188).max() <= 1


@pytest.mark.parametrize(
    "icc",
    [
        b"no profile",
        display()[:200],
        profile(b"GRAY", {b"kTRC": curve(1.0)}),  # of other pixels than these
        profile(b"RGB ", {}),
        display() + bytes(MAX_PROFILE_BYTES),
    ],
    ids=["nonsense", "cut off", "of grey", "empty", "huge"],
)
def test_a_profile_that_cannot_be_used_is_no_obstacle(photo, icc):
    assert_array_equal(read_image(encoded(Image.fromarray(photo), icc, "TIFF")), photo)
