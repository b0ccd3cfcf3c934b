"""Files of settings: what the page and `hubmodels tune` write and `hubmodels label --settings` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hubmodels.files import read_json
from hubmodels.labels import TASKS, LabelSet
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
    values = read_json(path, what="settings")
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


def check_tuned_for(
    path: Path, tuned_for: str | None, task: str | None, labels: LabelSet, *, model: str, anyway: str = ""
) -> None:
    """Raise ValueError if settings were tuned for another task: there they do harm. A file need not say its task.

    Args:
        path: the file, for the message.
        tuned_for: the task that it says.
        task: the published task of the model, if its labels are those of one.
        labels, model: the model's, for the message.
        anyway: how to take the settings all the same, if there is a way.
    """
    if tuned_for in (None, task):
        return
    remedy = f", or {anyway} to take the settings all the same" if anyway else ""
    raise ValueError(
        f"{path} was tuned for {tuned_for}, but {model} labels {task or ', '.join(labels.names)}; "
        f"choose another model{remedy}"
    )
