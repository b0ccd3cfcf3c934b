"""Results as files: a mask, an overlay and a cut-out of each photo, each saying how it was made.

A mask and a cut-out say so in a text chunk, an overlay in a comment. So a result is known wherever it lies, and told
from what somebody else made. PNGs are sealed, too, by the digest of all else in the file: corrected by hand it is a
result no more, even if the program it was corrected with has kept the text.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hubmodels.export import encode_image, fit_jpeg, indexed_png
from hubmodels.files import write_bytes

if TYPE_CHECKING:
    from hubmodels.result import Segmentation

MASK, OVERLAY, CUTOUT = "_mask.png", "_overlay.jpg", "_cutout.png"  # what results are called, behind the photo's name
# What whole files of these kinds begin and end with: PNG's signature and last chunk, JPEG's first markers and its last.
PNG = (b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82")
ENDS = {MASK: PNG, OVERLAY: (b"\xff\xd8\xff", b"\xff\xd9"), CUTOUT: PNG}
MADE_BY = "hubmodels"  # text chunk of a PNG, and first word of an overlay's comment
SEAL = b"hubmodels_sha256\0"  # key of the text chunk that seals a PNG


def is_result(path: Path) -> bool:
    """Whether a file was written by `write_results` or `write_cutout` and, if a PNG, not changed since.

    An overlay without a comment is known by the mask beside it.
    """
    if path.name.endswith(OVERLAY):
        mask = path.with_name(f"{path.name.removesuffix(OVERLAY)}{MASK}")
        return note_in(path) is not None or note_in(mask) is not None
    return path.name.endswith((MASK, CUTOUT)) and note_in(path) is not None


def is_remains(path: Path) -> bool:
    """Whether a file with the name of a result is what a crash or a broken copy left of one, before it could say so.

    It is empty, nothing but zeros, or begins as a result does and ends before its end. Of a file by somebody else the
    end may be followed by more, so the whole of it is searched.
    """
    begin, end = ENDS[OVERLAY] if path.name.endswith(OVERLAY) else PNG
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if not data.strip(b"\0"):
        return True
    return begin.startswith(data[: len(begin)]) and end not in data


def is_anothers(path: Path) -> bool:
    """Whether something stands there that is no result, nor the remains of one: it may not be replaced."""
    return os.path.lexists(path) and not is_result(path) and not is_remains(path)


def is_whole(path: Path) -> bool:
    """Whether an overlay ends as whole ones do; nothing is decoded. OSError if it cannot be read, or is shorter yet."""
    _, end = ENDS[OVERLAY]
    with path.open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def sealed(png: bytes) -> bytes:
    """The file of a PNG with the digest of all else in it, in a text chunk before the last chunk."""
    last = len(PNG[1])
    content = SEAL + hashlib.sha256(png).hexdigest().encode()
    chunk = b"tEXt" + content
    return b"".join(
        (png[:-last], len(content).to_bytes(4, "big"), chunk, zlib.crc32(chunk).to_bytes(4, "big"), png[-last:])
    )


def _unsealed(data: bytes) -> bytes | None:
    """The file of a PNG without its seal; None if it has none, or one of another content."""
    last = len(PNG[1])
    seal = 12 + len(SEAL) + 64  # length, type and checksum of the chunk; key; digits
    png = data[: -last - seal] + data[-last:]
    return png if data == sealed(png) else None


def note_in(path: Path) -> str | None:
    """What a result says of how it was made: a PNG the note itself, an overlay its digest. None: it is no result."""
    try:
        if path.name.endswith(OVERLAY):
            with Image.open(path, formats=["JPEG"]) as picture:
                comment = picture.info.get("comment", b"").decode("ascii")
            return comment if comment.startswith(f"{MADE_BY} ") else None
        if (png := _unsealed(path.read_bytes())) is None:
            return None
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            return picture.info.get(MADE_BY)
    except Exception:  # none there, or none of ours: what is damaged makes Pillow raise anything
        return None


def note_of(photo: Path, made_by: Mapping[str, Any]) -> str:
    """What the mask of a photo says: how it was made, and of which photo; JSON."""
    with photo.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return json.dumps({**made_by, "photo_sha256": digest}, sort_keys=True)


def short_note(note: str) -> str:
    """The note of an overlay, as comments of JPEG hold 65533 bytes at most, and many labels take more."""
    return f"{MADE_BY} {hashlib.sha256(note.encode()).hexdigest()}"


def write_results(result: Segmentation, mask: Path, overlay: Path, *, note: str) -> None:
    """Write the results of a photo.

    Args:
        result: what came out.
        mask, overlay: where they go, each replaced as a whole.
        note: of `note_of`.

    Raises:
        OSError: a file cannot be written.
    """
    mask_file = _noted(indexed_png(result.labels, result.label_set), mask, note)
    overlay_file = encode_image(fit_jpeg(result.overlay()), overlay, quality=90, comment=short_note(note))
    # The mask last: its name is the shorter one, and without it nothing passes for a result in full.
    write_bytes(overlay_file, overlay)
    write_bytes(mask_file, mask)


def write_cutout(picture: Image.Image, path: Path, *, note: str) -> None:
    """Write the cut-out of a photo, replacing what is there as a whole, with a note of `note_of`. Raises OSError."""
    write_bytes(_noted(picture, path, note), path)


def _noted(picture: Image.Image, path: Path, note: str) -> bytes:
    """The file of a PNG that says how it was made."""
    info = PngInfo()
    info.add_text(MADE_BY, note)
    return sealed(encode_image(picture, path, pnginfo=info))
