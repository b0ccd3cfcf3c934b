"""Small files: read with their mistakes named, written to a temporary name and renamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hubmodels.files import make_writable, write_bytes
from training.errors import DataError, OutputError


def make_folder(path: Path) -> Path:
    """The folder `path`, made if it is missing; long work asks for it before it starts.

    Raises:
        OutputError: it cannot be made, or nothing can be written into it.
    """
    try:
        make_writable(path)
    except OSError as error:
        raise OutputError(
            f"{path}: expected a folder to write into; got {error.strerror or error}: name another place"
        ) from error
    return path


def make_place(path: Path) -> Path:
    """The place `path` of a file to be written, its folder made; long work asks for it before it starts.

    Raises:
        OutputError: it is a folder, or its folder cannot be made or written into.
    """
    if path.is_dir():
        raise OutputError(f"{path}: expected a file to write; got a folder: name a file in it, such as {path / 'x.pt'}")
    make_folder(path.parent)
    return path


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin files with a mark
    except FileNotFoundError:
        raise DataError(f"{path}: missing; expected a JSON file of that name") from None
    except OSError as error:
        raise DataError(f"{path}: expected a JSON file; it cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}): correct the file") from error


def write_json(value: Any, path: Path) -> None:
    """Write JSON with sorted keys, so that a difference shows what changed."""
    write_bytes((json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), path)


def update_json(path: Path, rows: dict[str, Any]) -> None:
    """Set top-level keys of a JSON file, made if it is missing."""
    old = json.loads(path.read_text()) if path.is_file() else {}
    write_json({**old, **rows}, path)
