"""Any photo in, one kind of array out: (H, W, 3) uint8 sRGB, upright. Photos are untrusted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hubmodels.errors import ImageError

ImageSource: TypeAlias = "str | Path | bytes | Image.Image | np.ndarray"

MAX_PIXELS = 50_000_000  # a decoded photo takes 3 bytes a pixel, its probabilities 28
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "AVIF",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",
)  # all that strangers may reach; JPEG reads MPO too
SUFFIXES = frozenset({".jpg", ".jpeg", ".mpo", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photo.

    Args:
        source: path, encoded bytes, PIL image, or an (H, W, 3) uint8 RGB array (returned as it is).
        max_pixels: photos with more pixels are refused before they are decoded.

    Returns:
        (H, W, 3) uint8 sRGB: EXIF orientation applied, transparency laid over white, 16-bit greys scaled to 8 bits.

    Raises:
        FileNotFoundError: no file at the path.
        ImageError: not an image, damaged, too large, or of a kind that cannot be read.
        TypeError, ValueError: `source` is of another type, or an array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _to_array(source, "the image", max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), "the bytes", max_pixels)
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            raise ImageError(f"{path}: is a folder; expected an image file")
        with path.open("rb") as file:
            return _decode(file, str(path), max_pixels)
    raise TypeError(
        f"photo must be a path, bytes, a PIL image or an (H, W, 3) uint8 array; got {type(source).__name__}"
    )


def _check_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
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
            f"{what}: {width}x{height} is {width * height / 1e6:.0f} megapixels; "
            f"at most {max_pixels / 1e6:.0f} are read. Scale the photo down first"
        )


def _decode(file: IO[bytes], what: str, max_pixels: int) -> np.ndarray:
    try:
        with Image.open(file, formats=FORMATS) as picture:
            return _to_array(picture, what, max_pixels)
    except UnidentifiedImageError as error:
        raise ImageError(f"{what}: not an image of a known kind; expected {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{what}: far too many pixels; scale the photo down first") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise for damaged files
        raise ImageError(f"{what}: damaged image ({error})") from error


def _to_array(picture: Image.Image, what: str, max_pixels: int) -> np.ndarray:
    _check_size(*picture.size, what, max_pixels)
    if 0 in picture.size:
        raise ImageError(f"{what}: has no pixels ({picture.width}x{picture.height})")
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{what}: damaged image ({error})") from error
    return np.array(_to_rgb(ImageOps.exif_transpose(picture), what))


def _to_rgb(picture: Image.Image, what: str) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I"):  # I;16 and its byte orders, or I: Pillow would clip at 255, nearly all white
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{what}: integer pixels beyond 16 bits; convert the photo to 8 bits first")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ImageError(f"{what}: floating-point pixels have no fixed range; convert the photo to 8 bits first")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, picture).convert("RGB")
    return picture.convert("RGB")
