"""Results of labelling as files: a mask and an overlay for each photo, each saying how it was made.

A mask says so in a text chunk, an overlay in a comment. So a result is known wherever it lies, and told from what
somebody else made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

MASK, OVERLAY = "_mask.png", "_overlay.jpg"  # what results are called, behind the photo's name
# What whole files of these kinds begin and end with: PNG's signature and last chunk, JPEG's first markers and its last.
ENDS = {
    MASK: (b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"),
    OVERLAY: (b"\xff\xd8\xff", b"\xff\xd9"),
}
MADE_BY = "hubmodels"  # text chunk of a mask, and first word of an overlay's comment


def is_result(path: Path) -> bool:
    """Whether a file was written by `run`. An overlay without a comment is known by the mask beside it."""
    if path.name.endswith(OVERLAY):
        mask = path.with_name(f"{path.name.removesuffix(OVERLAY)}{MASK}")
        return note_in(path) is not None or note_in(mask) is not None
    return path.name.endswith(MASK) and note_in(path) is not None


def is_remains(path: Path) -> bool:
    """Whether a file with the name of a result is what a crash or a broken copy left of one, before it could say so.

    It is empty, nothing but zeros, or begins as a result does and ends before its end. Of a file by somebody else the
    end may be followed by more, so the whole of it is searched.
    """
    begin, end = ENDS[MASK if path.name.endswith(MASK) else OVERLAY]
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if not data.strip(b"\0"):
        return True
    return begin.startswith(data[: len(begin)]) and end not in data


def is_whole(path: Path) -> bool:
    """Whether a result ends as whole ones do; nothing is decoded. OSError if it cannot be read, or is shorter yet."""
    _, end = ENDS[MASK if path.name.endswith(MASK) else OVERLAY]
    with path.open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def note_in(path: Path) -> str | None:
    """What a result says of how it was made: a mask the note itself, an overlay its digest. None: it is no result."""
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as picture:
            if picture.format == "PNG":
                return picture.info.get(MADE_BY)
            comment = picture.info.get("comment", b"").decode("ascii")
    except Exception:  # none there, or none of ours: what is damaged makes Pillow raise anything
        return None
    return comment if comment.startswith(f"{MADE_BY} ") else None


def note_of(photo: Path, made_by: Mapping[str, Any]) -> str:
    """What the mask of a photo says: how it was made, and of which photo; JSON."""
    with photo.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return json.dumps({**made_by, "photo_sha256": digest}, sort_keys=True)


def short_note(note: str) -> str:
    """The note of an overlay, as comments of JPEG hold 65533 bytes at most, and many labels take more."""
    return f"{MADE_BY} {hashlib.sha256(note.encode()).hexdigest()}"
