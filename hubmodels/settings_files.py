"""Files of settings: what the page and `hubmodels tune` write and `hubmodels label --settings` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hubmodels.labels import TASKS
from hubmodels.paths import exists
from hubmodels.refine.settings import Refinement


def encoded_settings(settings: Refinement, task: str | None) -> bytes:
    """JSON of settings, with the published task that they were tuned for, if it is one."""
    said = {"task": task} if task in TASKS else {}
    return json.dumps({**said, **settings.to_dict()}, indent=1).encode() + b"\n"


def read_settings(path: Path) -> tuple[dict[str, Any], str | None]:
    """The settings of a file as `Refinement.from_dict` takes them, and the task that they were tuned for, if it says.

    Raises:
        ValueError: no file of settings; the message names it.
        OSError: it cannot be read.
    """
    if not exists(path):
        raise FileNotFoundError(f"{path}: no such file of settings; the page and `hubmodels tune --out` write them")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin files with a mark
    except (ValueError, RecursionError) as error:  # the latter of brackets in brackets
        raise ValueError(f"{path}: expected a JSON file of settings; {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object of settings; got {type(values).__name__}")
    task = values.pop("task", None)
    if task is not None and not (isinstance(task, str) and task in TASKS):
        raise ValueError(f"{path}: expected a task of {', '.join(TASKS)}; got {task!r}")
    try:
        Refinement.from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return values, task
