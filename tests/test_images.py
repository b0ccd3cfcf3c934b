"""One loader for every photo: orientation, modes, sizes, damage."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels import ImageError, read_image


def encoded(picture: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def corners() -> np.ndarray:
    """(24, 16, 3): a different colour in each quarter, so that every orientation looks different."""
    image = np.zeros((24, 16, 3), np.uint8)
    image[:12, :8], image[:12, 8:], image[12:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return image


# What a camera stores for each EXIF orientation of the upright picture (TIFF 6.0, tag 274).
STORED_AS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED_AS)
def test_every_exif_orientation_comes_back_upright(corners, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](corners)))
    assert_array_equal(read_image(encoded(stored, exif=exif)), corners)


def with_exif(stored: np.ndarray, tag: bytes) -> bytes:
    """A JPEG whose EXIF has orientation 6 and one more entry of 12 bytes, as it stands."""
    entries = struct.pack("<H", 2) + struct.pack("<HHII", 274, 3, 1, 6) + tag + bytes(4)
    return encoded(Image.fromarray(stored), "JPEG", quality=100, exif=b"Exif\0\0II*\0\x08\0\0\0" + entries)


@pytest.mark.parametrize(
    "tag",
    [
        struct.pack("<HHI4s", 282, 2, 3, b"72\0"),  # a resolution as text
        struct.pack("<HHI4s", 296, 2, 2, b"2\0"),
        struct.pack("<HHII", 296, 4, 1, 70_000),  # its unit in four bytes instead of two
        struct.pack("<HHII", 34_665, 4, 1, 2**31),  # more of it where the file has ended
    ],
)
def test_odd_exif_beside_the_orientation_does_no_harm(corners, tag):
    image = read_image(with_exif(np.ascontiguousarray(STORED_AS[6](corners)), tag))
    assert image.shape == corners.shape and image[2, 2, 0] > 200 and image[2, 13, 1] > 200


def test_exif_that_cannot_be_parsed_leaves_a_photo_as_it_is_stored(corners):
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff"):
        image = read_image(encoded(Image.fromarray(corners), "WEBP", lossless=True, exif=exif))
        assert_array_equal(image, corners)


def test_path_bytes_pil_and_array_are_one_photo(tmp_path, corners):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.fromarray(corners)))
    for source in (path, str(path), path.read_bytes(), Image.fromarray(corners), corners):
        assert_array_equal(read_image(source), corners)


def grey_ramp() -> np.ndarray:
    return np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)


# Modes that grey reaches through another one only.
BEFORE = {"La": "LA", "RGBa": "RGBA", **dict.fromkeys(("CMYK", "LAB", "HSV", "YCbCr"), "RGB")}


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "La", "RGBa"]
)
def test_every_mode_becomes_rgb(mode):
    picture = Image.fromarray(grey_ramp())
    picture = picture.convert(BEFORE.get(mode, mode)).convert(mode)
    image = read_image(picture)
    assert image.shape == (4, 4, 3) and image.dtype == np.uint8
    if mode != "1":
        assert np.abs(image.astype(int) - grey_ramp()[..., None]).max() <= 2  # rounding of the colour space


def test_one_transparent_grey_of_16_bits_lies_over_white():
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header, pixels = struct.pack(">IIBBBBB", 3, 1, 16, 0, 0, 0, 0), b"\0" + struct.pack(">3H", 500, 30_000, 501)
    chunks = ((b"IHDR", header), (b"tRNS", struct.pack(">H", 500)), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    photo = read_image(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    assert photo[0, :, 0].tolist() == [255, 117, 1]


@pytest.mark.parametrize("format, mode", [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B")])
def test_sixteen_bit_greys_are_scaled_not_clipped(format, mode):
    values = grey_ramp().astype(np.uint16) << 8  # 256 times, not 257: the lower byte only says more of the same
    values[:2] += 255
    stored = values.astype(">u2") if mode.endswith("B") else values
    picture = Image.frombytes(mode, (4, 4), stored.tobytes())
    assert_array_equal(read_image(encoded(picture, format))[..., 0], grey_ramp())


@pytest.mark.parametrize("bits", [8, 16])
def test_integers_are_taken_for_8_bits_where_they_fit(bits):
    """Mode I, as of `convert("I")` or of a grey PGM of 16 bits."""
    values = grey_ramp().astype(np.int32) << (bits - 8)
    assert_array_equal(read_image(Image.fromarray(values))[..., 0], grey_ramp())


def test_transparency_lies_over_white_and_hides_nothing():
    secret = np.zeros((2, 2, 4), np.uint8)
    secret[0, 0] = (9, 9, 9, 255)
    image = read_image(encoded(Image.fromarray(secret)))
    assert_array_equal(image[0, 0], (9, 9, 9))
    assert (image.reshape(-1, 3)[1:] == 255).all()


def test_palette_transparency_lies_over_white():
    picture = Image.frombytes("P", (2, 1), b"\x00\x01")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    assert_array_equal(read_image(encoded(picture, transparency=0)), [[[255] * 3, [40, 50, 60]]])


@pytest.mark.parametrize("mode, clear", [("L", 0), ("RGB", (0, 0, 0))])
def test_one_transparent_colour_lies_over_white(mode, clear):
    picture = Image.new(mode, (2, 1), clear)
    picture.putpixel((1, 0), 9 if mode == "L" else (9, 9, 9))
    assert_array_equal(read_image(encoded(picture, transparency=clear)), [[[255] * 3, [9] * 3]])


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert_array_equal(read_image(data), np.full((4, 4, 3), (255, 0, 0)))


@pytest.mark.parametrize("size", [(1, 1), (20000, 40), (40, 20000)])
def test_extreme_shapes_are_read(size):
    assert read_image(encoded(Image.new("RGB", size))).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files_are_refused(rng, format, keep):
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), format)
    with pytest.raises(ImageError):
        read_image(data[: int(len(data) * keep)])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM"])
def test_damaged_files_are_read_or_refused_and_nothing_else(rng, format):
    exif = {"exif": with_exif(np.zeros((8, 8, 3), np.uint8), bytes(12))} if format in ("JPEG", "WEBP", "AVIF") else {}
    exif = {key: Image.open(io.BytesIO(value)).info["exif"] for key, value in exif.items()}
    data = encoded(Image.fromarray(rng.integers(0, 256, (24, 16, 3), dtype=np.uint8)), format, **exif)
    for _ in range(200):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(len(data), size=4)] = rng.integers(256, size=4)
        try:
            assert read_image(damaged.tobytes(), max_pixels=10_000).dtype == np.uint8
        except ImageError as error:
            assert "the bytes" in str(error)


def test_formats_that_pillow_was_built_without_are_left_out(monkeypatch, corners):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF")
    assert_array_equal(read_image(encoded(Image.fromarray(corners), "BMP")), corners)
    with pytest.raises(ImageError, match="expected JPEG, PNG, WEBP, GIF"):
        read_image(b"nonsense")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"%!PS-Adobe-3.0", bytes(1000)]
)
def test_bytes_that_are_no_image_are_refused(data):
    with pytest.raises(ImageError, match="not an image"):
        read_image(data)


def test_only_the_listed_formats_are_read(corners):
    """Others have decoders that strangers need not reach."""
    for format in ("ICO", "TGA", "JPEG2000", "PCX"):
        with pytest.raises(ImageError, match="not an image of a known kind"):
            read_image(encoded(Image.fromarray(corners), format))


def test_the_limit_is_50_megapixels_unless_said_otherwise():
    """Of an array that is one byte in memory."""
    most = np.broadcast_to(np.uint8(0), (5_000, 10_000, 3))
    assert read_image(most) is most
    with pytest.raises(ImageError, match=r"10001x5000 is 50\.0 megapixels; at most 50\.0 are read"):
        read_image(np.broadcast_to(np.uint8(0), (5_000, 10_001, 3)))
    with pytest.raises(ImageError, match=r"5712x4284 is 24\.5 megapixels; at most 24\.0 are read"):
        read_image(np.broadcast_to(np.uint8(0), (4284, 5712, 3)), max_pixels=24_000_000)


def test_too_little_memory_is_no_fault_of_the_photo(corners, monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("hubmodels.images.to_srgb", full)
    with pytest.raises(MemoryError):
        read_image(encoded(Image.fromarray(corners)))


def test_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(ImageError, match="megapixels"):
        read_image(encoded(Image.new("L", (300, 300))), max_pixels=80_000)


def test_a_decompression_bomb_is_refused():
    header = encoded(Image.new("1", (8, 8)))
    huge = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]  # IHDR claims 3600 megapixels
    import zlib

    huge = huge[:29] + zlib.crc32(huge[12:29]).to_bytes(4, "big") + huge[33:]
    with pytest.raises(ImageError, match="pixels"):
        read_image(huge)


@pytest.mark.parametrize("magic", [b"P1", b"P2", b"P3"])
def test_pixels_written_as_text_are_refused_however_many_comments_are_among_them(magic):
    """A megabyte of comments would be read for hours."""
    values = b"1 " * 48
    header = magic + b"\n4 4\n" + (b"" if magic == b"P1" else b"255\n")
    with Image.open(io.BytesIO(header + values)) as picture:
        picture.load()  # they are whole
    for comments in (b"", b"#\n" * 500_000):
        with pytest.raises(ImageError, match="pixels written as text"):
            read_image(header + comments + values)
    assert read_image(b"P6\n4 4\n255\n" + bytes(48)).shape == (4, 4, 3)


@pytest.mark.parametrize(("magic", "bands", "bytes_each"), [(b"P6", 3, 1), (b"P6", 3, 2), (b"P5", 1, 2)])
def test_pictures_that_pillow_decodes_in_python_may_not_be_large(magic, bands, bytes_each, monkeypatch):
    maxval = b"100" if bytes_each == 1 else b"4095"
    data = magic + b"\n8 10\n" + maxval + b"\n" + bytes(80 * bands * bytes_each)
    assert read_image(data).shape == (10, 8, 3)
    monkeypatch.setattr("hubmodels.images.MAX_PYTHON_VALUES", 80 * bands - 1)
    with pytest.raises(ImageError, match="other values than 0 to 255 may not be that large"):
        read_image(data)
    usual = magic + b"\n8 10\n255\n" + bytes(80 * bands)
    assert read_image(usual).shape == (10, 8, 3)


def test_float_and_wide_integer_pixels_are_refused():
    for picture in (Image.new("F", (2, 2)), Image.new("I", (2, 2), 70_000)):
        with pytest.raises(ImageError, match="8 bits"):
            read_image(picture)


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    for source, message in (
        ("https://example.com/a.jpg", r"https://example\.com/a\.jpg: addresses are not opened; download the photo"),
        ("", "expected the path of a photo; got an empty text"),
        ("a\0.jpg", "no file is called so"),
    ):
        with pytest.raises(ImageError, match=message):
            read_image(source)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    "array, hint",
    [
        (np.zeros((3, 8, 8), np.uint8), "channels-first"),
        (np.zeros((8, 8, 3), np.float32), "255"),
        (np.zeros((8, 8), np.uint8), "H, W, 3"),
        (np.zeros((0, 8, 3), np.uint8), "H, W, 3"),
    ],
)
def test_wrong_arrays_get_a_hint(array, hint):
    with pytest.raises(ValueError, match=hint):
        read_image(array)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="got int"):
        read_image(3)
