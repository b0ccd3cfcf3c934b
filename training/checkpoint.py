"""Checkpoints of a run: written to a temporary file and renamed, so that a kill never leaves half a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hubmodels.files import whole_file
from training.errors import DataError


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors and plain values only) to `path` atomically.

    Raises:
        OSError: it cannot be written; `filename` says where.
    """
    # Checkpoints are large, and runs are killed while they write one: half of one each time would fill the disk.
    with whole_file(path, temporary=path.with_suffix(".tmp")) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # hidden, as PyTorch closes what could not be written
                raise error.__context__ from None
            raise


DAMAGED = "expected a checkpoint of training.train; if it was damaged, take a copy of it or train again"


def load_checkpoint(path: Path, *, expected: str = DAMAGED) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing in the file is executed.

    Args:
        path: the file.
        expected: what the message says of a file that is something else, with the remedy.

    Raises:
        DataError: no such file, or one that torch refuses: unreadable, damaged, of another kind, or with code in it.
    """
    if not path.is_file():
        raise DataError(f"{path}: no checkpoint there")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of text and damaged files KeyError, IndexError, struct.error and others, as it comes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: {expected}; got a file that torch refuses ({reason})") from error


def load_run(path: Path) -> dict[str, Any]:
    """A checkpoint with the recipe and the averaged weights of a run, as tools that take the network want it.

    Raises:
        DataError: as of `load_checkpoint`, or the file holds something else, such as a plain state dict.
    """
    saved = load_checkpoint(path)
    if not isinstance(saved, dict) or not {"recipe", "ema"} <= set(saved):
        raise DataError(
            f"{path}: expected a checkpoint of training.train; got a file without recipe and averaged weights: "
            "name the best.pt of a run, or bring an original checkpoint into that form by training.import_checkpoint"
        )
    return saved


def averaged_weights(saved: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of a checkpoint, for tools that take the network alone.

    Warns if the run had a CRF on top: its scores on val, by which the epoch was chosen, are of labels after it.
    """
    if crfs := saved.get("crfs"):
        learnt = {name: round(value.item(), 3) for name, value in crfs.items() if value.numel() == 1}
        warnings.warn(
            f"{path}: answers will be the network's alone, without the CRF it was trained and validated with "
            f"([crf] {dict(saved['recipe'].get('crf', {}))}, learnt {learnt}); "
            "the crf_* settings of hubmodels.Refinement come closest to it",
            stacklevel=2,
        )
    return saved["ema"]
