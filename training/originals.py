"""Original files of Fashionista and Clothing Co-Parsing (CCP): one file in, an array or bytes out, else a DataError."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from scipy.io.matlab import MatReadError

from hubmodels.images import DAMAGED
from hubmodels.labels import FASHION
from training.errors import DataError

JPEG_QUALITY = 75

# Pascal VOC's palette, in which the original clothes labels are painted, in id order.
VOC_COLOURS = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128))

# What SciPy raises for damaged files.
DAMAGED_MAT = (
    MatReadError,
    NotImplementedError,  # MATLAB 7.3
    OSError,
    ValueError,
    TypeError,
    LookupError,
    NameError,  # SciPy 1.17 meets a variable of its own that was never set
    EOFError,
    zlib.error,
)

Size = tuple[int, int]  # width, height


def read_photo(path: Path) -> tuple[bytes, Size]:
    """A photo's bytes in the form of the shared data, and its width and height.

    Raises:
        DataError: the file is no picture, or damaged.
    """
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = picture.convert("RGB")
    except DAMAGED as error:
        raise DataError(
            f"{path}: expected a JPEG; got a file that cannot be decoded ({error}): get it again"
        ) from error
    buffer = io.BytesIO()
    Image.fromarray(np.array(pixels)).save(buffer, "JPEG", quality=JPEG_QUALITY)  # through an array: no metadata
    encoded = buffer.getvalue()
    scan = encoded.index(b"\xff\xda")  # all before it, tables and size, says how the scan was encoded
    return data if data[:scan] == encoded[:scan] else encoded, pixels.size


def clothes_ids(path: Path, size: Size) -> np.ndarray:
    """(H, W) uint8 ids of `FASHION` from an original clothes label: ids, palette indices, or VOC colours.

    Raises:
        DataError: damaged, another size or kind, or an id or colour without a label.
    """
    values = _read_label(path, size)
    if values.ndim == 2:
        if (top := int(values.max())) >= len(FASHION):
            raise DataError(
                f"{path}: expected label ids 0..{len(FASHION) - 1}; got {top}: is it the label file with "
                f"{len(FASHION)} labels?"
            )
        return values
    ids = np.full(values.shape[:2], 255, np.uint8)
    for index, colour in enumerate(VOC_COLOURS):
        ids[(values == colour).all(-1)] = index
    if (unknown := ids == 255).any():
        raise DataError(
            f"{path}: expected the colours of {', '.join(FASHION.names)} in Pascal VOC's palette; got "
            f"{tuple(map(int, values[unknown][0]))}: was the label file resized or saved with losses?"
        )
    return ids


def person_ids(path: Path, size: Size) -> np.ndarray:
    """(H, W) uint8, 1 where a person is, from an original person label: 0 and one other value.

    Raises:
        DataError: damaged, another size or kind, or more than two values.
    """
    values = _read_label(path, size)
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim == 3 or len(np.unique(values[values > 0])) > 1:
        got = "colours" if values.ndim == 3 else f"the values {some_of(np.unique(values).tolist())}"
        raise DataError(
            f"{path}: expected 0 for background and one other value for person; got {got}: is it the person label, "
            f"neither resized nor saved with losses?"
        )
    return (values > 0).astype(np.uint8)


def tag_ids(path: Path, size: Size, *, tags: int) -> np.ndarray:
    """(H, W) uint8 tag ids from an annotation of CCP.

    Args:
        path: a .mat file with the matrix `groundtruth`.
        size: width and height of its photo.
        tags: number of tags.

    Raises:
        DataError: damaged, without that key, another shape than the photo, or an id without a tag.
    """
    values = read_mat(path, "groundtruth")
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DataError(
            f"{path}: expected groundtruth to be a matrix of tag ids; got {values.shape} {values.dtype}: "
            f"is it a file of annotations/pixel-level?"
        )
    if (got := values.shape[::-1]) != size:
        raise DataError(
            f"{path}: expected {text_of(size)} pixels as in the photo; got {text_of(got)}: get both files again"
        )
    if not np.isin(values, np.arange(tags)).all():
        bad = values[~np.isin(values, np.arange(tags))].flat[0]
        raise DataError(f"{path}: expected whole tag ids 0..{tags - 1}; got {bad:g}: get the file again")
    return values.astype(np.uint8)


def read_mat(path: Path, key: str) -> np.ndarray:
    """An array of a MATLAB file.

    Raises:
        DataError: the file cannot be read, or has no such key.
    """
    try:
        content = scipy.io.loadmat(path)
    except DAMAGED_MAT as error:
        raise DataError(
            f"{path}: expected a MATLAB file of version 4 to 7.2; got one that cannot be read ({error}): get it again"
        ) from error
    if key not in content or not isinstance(content[key], np.ndarray):
        keys = [name for name in content if not name.startswith("__")]
        raise DataError(
            f"{path}: expected an array under the key {key!r}; got {', '.join(keys) or 'no key'}: is it in its folder?"
        )
    return content[key]


def check_tags(path: Path, tags: list[str]) -> None:
    """Raise DataError unless CCP's own list of tag names is the one that its ids are read by."""
    cells = read_mat(path, "label_list").ravel()
    names = [str(cell.ravel()[0]) if isinstance(cell, np.ndarray) and cell.size == 1 else repr(cell) for cell in cells]
    for index, (expected, got) in enumerate(zip(tags, names, strict=False)):
        if expected != got:
            raise DataError(f"{path}: expected tag {index} to be {expected!r}; got {got!r}: is it another release?")
    if len(names) != len(tags):
        raise DataError(f"{path}: expected {len(tags)} tags; got {len(names)}: is it another release?")


def _read_label(path: Path, size: Size) -> np.ndarray:
    """(H, W) uint8 values or palette indices, or (H, W, 3) uint8 colours, of a label picture as large as its photo."""
    try:
        with Image.open(path) as picture:
            picture.load()
            mode, got = picture.mode, picture.size
            if mode in ("1", "L", "P"):
                values = np.array(picture).astype(np.uint8)
            elif mode in ("RGB", "RGBA"):
                values = np.array(picture.convert("RGB"))
            else:
                raise DataError(f"{path}: expected a grey, indexed or RGB PNG; got mode {mode}: use the original file")
    except DAMAGED as error:
        raise DataError(f"{path}: expected a PNG; got a file that cannot be decoded ({error})") from error
    if got != size:
        raise DataError(
            f"{path}: expected {text_of(size)} pixels as in the photo; got {text_of(got)}: get both files again"
        )
    return values


def text_of(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def some_of(values: list[int]) -> str:
    """The first numbers of a list, and how many more there are."""
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""
    return ", ".join(map(str, values[:5])) + more
