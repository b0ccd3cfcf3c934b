"""Checkpoints of a run: written to a temporary file and renamed, so that a kill never leaves half a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from training.errors import DataError


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors and plain values only) to `path` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing in the file is executed.

    Raises:
        DataError: no such file.
    """
    if not path.is_file():
        raise DataError(f"{path}: no checkpoint there")
    return torch.load(path, map_location="cpu", weights_only=True)
