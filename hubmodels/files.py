"""Files are written to a temporary name and renamed, so that none is ever half there."""

from __future__ import annotations

import errno
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hubmodels.errors import OutputError
from hubmodels.paths import is_folder

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # why a folder takes no further file


def make_folder(path: Path) -> Path:
    """The folder `path`, made if it is missing; long work asks for it before it starts.

    Raises:
        OutputError: it cannot be made, or nothing can be written into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: expected a folder to write into; got {error.strerror or error}: name another place"
        ) from error
    return path


def make_place(path: Path, *, example: str) -> Path:
    """The place `path` of a file to be written, its folder made; long work asks for it before it starts.

    Raises:
        OutputError: it is a folder, where a file of the name `example` would do, or has another suffix than that: a
            photo, perhaps; or its folder cannot be made or written into.
    """
    if is_folder(path):
        raise OutputError(
            f"{path}: expected a file to write; got a folder: name a file in it, such as {path / example}"
        )
    if path.suffix.lower() != Path(example).suffix:
        raise OutputError(f"{path}: expected a name that ends in {Path(example).suffix}, such as {example}")
    make_folder(path.parent)
    return path


@contextmanager
def whole_file(path: Path, *, temporary: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write that gets its name once it is complete, with the permissions of any new one; folders are made.

    Args:
        path: its name in the end.
        temporary: its name until then, where one process alone writes it: what a kill left of the last try is replaced.
            None: one of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if temporary is None:
        # Without the name, which may be of full length, or its suffix: what a kill leaves is taken for nothing else.
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or else a power cut may leave the new name with nothing, or half of it, behind it
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # a full disk names none
            error.filename = str(path)
        raise


def write_bytes(data: bytes, path: Path) -> Path:
    """Write a file atomically; returns its path."""
    with whole_file(path) as file:
        file.write(data)
    return path


def read_json(path: Path, *, what: str) -> Any:
    """What a JSON file of `what` holds.

    Raises:
        ValueError: it is no JSON; the message names it.
        OSError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin files with a mark
    except (ValueError, RecursionError) as error:  # the latter of brackets in brackets
        raise ValueError(f"{path}: expected a JSON file of {what}; {error}") from error
