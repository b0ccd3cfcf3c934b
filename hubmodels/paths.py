"""Paths where pathlib may raise: names that are too long, folders closed to us, users without a folder of their own."""

from __future__ import annotations

import os
from pathlib import Path

PathLike = str | Path


def exists(path: PathLike) -> bool:
    """Whether something is there that can be looked at; a link to nothing is not."""
    return os.path.exists(path)


def is_folder(path: PathLike) -> bool:
    """Whether a folder is there, or a link to one."""
    return os.path.isdir(path)


def home() -> Path:
    """The folder of this user; `~` itself where the system knows none, as pathlib does not."""
    return Path(os.path.expanduser("~"))


def printable(message: object) -> str:
    """A message with escapes for what terminals would obey or break the line at: files may be called anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(message))


def is_file(path: PathLike) -> bool:
    """Whether a regular file is there, or a link to one."""
    return os.path.isfile(path)
