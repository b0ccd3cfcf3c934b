"""Any photo in, one kind of array out: (H, W, 3) uint8 sRGB, upright. Photos are untrusted."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from hubmodels.avif_frames import frame_sizes, is_avif
from hubmodels.colour_profiles import to_srgb
from hubmodels.containers import ExcessError, check_container, check_exif
from hubmodels.errors import ImageError
from hubmodels.jpeg_scans import MAX_SCANS, most_scans
from hubmodels.paths import is_folder

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

ImageSource: TypeAlias = "str | Path | bytes | Image.Image | np.ndarray"

MAX_PIXELS = 50_000_000  # a decoded photo takes 3 bytes a pixel, its probabilities 28
WORK_PX = 800  # long side of a larger photo while settings are tried, which mean the same at any size
MAX_PYTHON_VALUES = 5_000_000  # that Pillow decodes one by one, a million a second
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "AVIF",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",  # but for pixels written as text
)  # all that strangers may reach; JPEG reads MPO too
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .pjpeg .pjp .mpo .png .apng .webp .avif .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm".split()
)
UNREAD_SUFFIXES = frozenset(
    ".heic .heif .hif .jp2 .jpf .j2k .jxl .psd .tga"
    " .cr2 .cr3 .nef .arw .dng .orf .raf .rw2 .pef .srw .x3f .rwl".split()  # raw files of cameras
)
# What Pillow raises for a file that is no picture, or a damaged one.
DAMAGED = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
TURNS = {  # value of EXIF's orientation -> what brings the stored picture upright (TIFF 6.0, tag 274)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of TIFF
TURNED_BY_90 = {TURNS[value] for value in (5, 6, 7, 8)}  # height and width change places


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photo.

    Args:
        source: path, encoded bytes, PIL image, or an (H, W, 3) uint8 RGB array (returned as it is).
        max_pixels: photos with more pixels are refused before they are decoded.

    Returns:
        (H, W, 3) uint8 sRGB: EXIF orientation applied, colour profile converted, transparency laid over white, 16-bit
        greys scaled to 8 bits. Greys of mode I are 8-bit if none is above 255, and else 16-bit.

    Raises:
        FileNotFoundError: no file at the path.
        ImageError: not an image, damaged, too large, or of a kind that cannot be read.
        TypeError, ValueError: `source` is of another type, or an array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        return checked_array(source, max_pixels=max_pixels)
    if isinstance(source, Image.Image):
        with _refusing("the image"):
            return _to_array(source, "the image", max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), "the bytes", max_pixels)
    if isinstance(source, (str, Path)):
        path = local_path(source)
        if is_folder(path):
            raise ImageError(f"{path}: is a folder; expected an image file")
        with path.open("rb") as file:
            return _decode(file, str(path), max_pixels)
    raise TypeError(
        f"photo must be a path, bytes, a PIL image or an (H, W, 3) uint8 array; got {type(source).__name__}"
    )


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width that `read_image` would give a photo; its pixels are not decoded.

    Raises:
        FileNotFoundError: no file at the path.
        ImageError: not an image.
    """
    with path.open("rb") as file, _refusing(str(path)), _opened(file, str(path), MAX_PIXELS) as picture:
        width, height = picture.size
        return (width, height) if _turn(picture) in TURNED_BY_90 else (height, width)


def local_path(source: str | Path) -> Path:
    """Where a photo is on this machine, of what a user typed.

    Raises:
        ImageError: nothing, an address, or what no file can be called.
    """
    text = str(source)
    if isinstance(source, str) and not text.strip():
        raise ImageError("expected the path of a photo; got an empty text")
    if _ADDRESS.match(text):
        raise ImageError(f"{text}: addresses are not opened; download the photo, and pass its path or its bytes")
    if "\0" in text:
        raise ImageError(f"{text!r}: no file is called so; expected the path of a photo")
    return Path(source)


def checked_array(array: np.ndarray, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The array itself, if it is a photo.

    Raises:
        TypeError: no array.
        ValueError: its shape is not (H, W, 3), or its dtype not uint8.
        ImageError: more pixels than `max_pixels`.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"photo must be an (H, W, 3) uint8 array; got {type(array).__name__}")
    if array.ndim != 3 or array.shape[2] != 3 or array.shape[0] < 1 or array.shape[1] < 1:
        hint = "; it looks channels-first: pass np.moveaxis(photo, 0, -1)" if array.shape[:1] == (3,) else ""
        raise ValueError(f"photo array must be (H, W, 3); got {array.shape}{hint}")
    if array.dtype != np.uint8:
        hint = "; for values in 0..1 pass (photo * 255).astype(np.uint8)" if array.dtype.kind == "f" else ""
        raise ValueError(f"photo array must be uint8; got {array.dtype}{hint}")
    _check_size(array.shape[1], array.shape[0], "the array", max_pixels)
    return array


def _check_size(width: int, height: int, what: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{what}: {width}x{height} is {width * height / 1e6:.1f} megapixels; "
            f"at most {max_pixels / 1e6:.1f} are read. Scale the photo down first"
        )


def _decode(file: IO[bytes], what: str, max_pixels: int) -> np.ndarray:
    with _refusing(what), _opened(file, what, max_pixels) as picture:
        return _to_array(picture, what, max_pixels)


def _opened(file: IO[bytes], what: str, max_pixels: int) -> Image.Image:
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]  # older Pillow, or one built without a library
    try:
        check_container(file)
    except ExcessError as error:
        raise ImageError(f"{what}: {error}. Save the photo anew") from error
    if "AVIF" in formats:
        _check_frames(file, what, max_pixels)
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise ImageError(f"{what}: not an image of a known kind; expected {', '.join(formats)}") from error


def _check_frames(file: IO[bytes], what: str, max_pixels: int) -> None:
    """Raise ImageError if a file is an AVIF, but no plain one with frames of up to so many pixels."""
    head = file.read(12)
    if is_avif(head):
        try:
            sizes = frame_sizes(head + file.read())
        except ExcessError as error:
            raise ImageError(f"{what}: {error}. Save the photo as JPEG or PNG") from error
        for width, height in sizes:
            _check_size(width, height, f"{what}: a frame of it", max_pixels)
    file.seek(0)


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError: for damaged files, that is any kind of exception."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{what}: far too many pixels; scale the photo down first") from error
    except Exception as error:
        raise ImageError(f"{what}: damaged image ({error or type(error).__name__})") from error


def _to_array(picture: Image.Image, what: str, max_pixels: int) -> np.ndarray:
    _check_size(*picture.size, what, max_pixels)
    if 0 in picture.size:
        raise ImageError(f"{what}: has no pixels ({picture.width}x{picture.height})")
    _check_work(picture, what, max_pixels)
    picture.load()
    return np.array(_to_rgb(to_srgb(_upright(picture)), what))


def _check_work(picture: Image.Image, what: str, max_pixels: int) -> None:
    """Raise ImageError if decoding would take far more time or memory than a photo of this size usually does."""
    tags = getattr(picture, "tag_v2", {})
    _check_size(tags.get(TILE_WIDTH, 0), tags.get(TILE_LENGTH, 0), f"{what}: a tile of it", max_pixels)
    if (scans := most_scans(picture)) > MAX_SCANS:
        raise ImageError(f"{what}: a JPEG of {scans} scans or more; at most {MAX_SCANS} are read. Save the photo anew")
    decoders = {tile[0] for tile in getattr(picture, "tile", ())}
    if "ppm_plain" in decoders:  # in Python, and time grows with the square of the comments among the pixels
        raise ImageError(f"{what}: pixels written as text, which is not read; save the photo as PNG or binary PPM")
    values = picture.width * picture.height * len(picture.getbands())
    if decoders & {"ppm", "bmp_rle"} and values > MAX_PYTHON_VALUES:  # in Python too; the usual ones are decoded in C
        kind = "BMP with run lengths" if "bmp_rle" in decoders else "PPM of other values than 0 to 255"
        raise ImageError(f"{what}: a {kind} may not be that large; save the photo as PNG")


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as EXIF says. Pillow's exif_transpose also writes the EXIF anew, and fails if any other tag is odd."""
    turn = _turn(picture)
    return picture if turn is None else picture.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright; None: it is."""
    try:
        if picture.format == "PNG" and "exif" not in picture.info:
            picture.load()  # it may come behind the pixels
        if "exif" in picture.info:
            check_exif(picture.info["exif"])
        elif "Raw profile type exif" in picture.info:  # of ImageMagick
            check_exif(bytes.fromhex("".join(picture.info["Raw profile type exif"].split("\n")[3:])))
        return TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF that cannot be parsed says nothing; viewers show such photos as they are stored
        return None


def _to_rgb(picture: Image.Image, what: str) -> Image.Image:
    if picture.mode.startswith("I"):  # I;16 and its byte orders, or I: Pillow would clip at 255, nearly all white
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{what}: integer pixels beyond 16 bits; convert the photo to 8 bits first")
        if picture.mode != "I" or values.max() > 255:  # I may hold 8 bits as well, as after convert("I")
            values[values == picture.info.get("transparency", -1)] = 65535  # white, as below
            values >>= 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ImageError(f"{what}: floating-point pixels have no fixed range; convert the photo to 8 bits first")
    if picture.mode == "La":  # premultiplied; Pillow has no direct way
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, picture).convert("RGB")
    return picture.convert("RGB")


def fit_within(image: np.ndarray, long_side_px: int) -> np.ndarray:
    """(h, w, 3) uint8: a photo (H, W, 3) uint8 with its long side brought to so many pixels by averaging areas, or
    itself if that is no longer."""
    height, width = image.shape[:2]
    factor = long_side_px / max(height, width)
    if factor >= 1:
        return image
    small = max(1, round(width * factor)), max(1, round(height * factor))
    return np.array(Image.fromarray(image).resize(small, Image.Resampling.BOX))
