"""Files are written to a temporary name and renamed, so that none is ever half there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_bytes(data: bytes, path: Path) -> Path:
    """Write a file atomically; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp makes files private; saved ones follow the umask
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
