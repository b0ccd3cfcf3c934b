"""Files are written to a temporary name and renamed, so that none is ever half there."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path


def make_writable(folder: Path) -> None:
    """Make a folder if it is missing; OSError if that fails or nothing can be written into it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_bytes(data: bytes, path: Path) -> Path:
    """Write a file atomically, with the permissions of any new file; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the name, which may be of full length, or its suffix: what a kill leaves is taken for nothing else.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or else a power cut may leave the new name with nothing, or half of it, behind it
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
