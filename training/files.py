"""Small files: read with their mistakes named, written to a temporary name and renamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hubmodels import files
from training.errors import DataError

ROOT = Path(__file__).resolve().parent.parent  # of the clone
RESULTS = ROOT / "training" / "results"  # what commands measured, kept in the repository


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is missing, cannot be read, or is not JSON.
    """
    try:
        return files.read_json(path, what="that name")
    except FileNotFoundError:
        raise DataError(f"{path}: missing; expected a JSON file of that name") from None
    except OSError as error:
        raise DataError(f"{path}: expected a JSON file; it cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{error}: correct the file") from error


def write_json(value: Any, path: Path) -> None:
    """Write JSON with sorted keys, so that a difference shows what changed."""
    files.write_bytes((json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), path)


def update_json(path: Path, rows: dict[str, Any]) -> None:
    """Set top-level keys of a JSON file, made if it is missing."""
    old = json.loads(path.read_text()) if path.is_file() else {}
    write_json({**old, **rows}, path)
