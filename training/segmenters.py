"""A published model or a checkpoint, whichever a command names, as a Segmenter; and rows whose weights are ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubmodels.config import ModelConfig
from hubmodels.entries import ENTRIES, Entry, find_entry
from hubmodels.hub import load_model
from hubmodels.labels import TASKS, LabelSet
from hubmodels.segmenter import Segmenter
from training.checkpoint import averaged_weights, load_run
from training.engine import select_tasks
from training.errors import CommandError, DataError
from training.recipe import trained_counts

OF_NETWORK = ("name", "arch", "network", "eval_long_side_px")  # what a checkpoint's recipe says of its network


def trained_entry(name: str) -> Entry:
    """The row of a published model or region classifier that was trained here.

    Raises:
        ModelNotFoundError: no such row.
        CommandError: its head was never trained, so there is nothing to measure.
    """
    entry = find_entry(name)
    if not entry.is_trained:
        raise CommandError(f"expected an entry with trained weights; {name} has none of ours: train and export it")
    return entry


def load_segmenter(name: str, task: str) -> Segmenter:
    """A published model, or the averaged weights of a checkpoint of `training.train` for one of its tasks.

    Raises:
        DataError: no such checkpoint, or it was not trained for the task, as may be said of a published model.
    """
    if name in ENTRIES:
        model = load_model(name)
        if model.labels.names != TASKS[task].names:
            raise DataError(f"{name} labels {model.labels.task}; expected a model for {task}")
        return model
    path = Path(name)
    model = segmenter_of(load_run(path), path, task=task)
    model.name = name
    return model


def segmenter_of(saved: Mapping[str, Any], path: Path, *, task: str) -> Segmenter:
    """The averaged weights of a run for one of its tasks.

    Args:
        saved: of `training.checkpoint.load_run`.
        path: where it came from.
        task: one that is published, or the run's own.

    Raises:
        DataError: it was not trained for the task, or does not say what its network is.
    """
    recipe = saved["recipe"]
    if missing := [key for key in OF_NETWORK if key not in recipe]:
        raise DataError(
            f"{path}: expected a checkpoint that says what its network is; it lacks {', '.join(missing)}: "
            "if training.import_checkpoint wrote it, run that again"
        )
    labels = TASKS[task] if task in TASKS else LabelSet.custom(recipe["classes"], task=task)
    try:
        state = select_tasks(averaged_weights(saved, path), trained_counts(saved), {task: len(labels)})
    except KeyError as error:
        raise DataError(f"{path}: {error.args[0]}") from error
    config = ModelConfig(recipe["name"], recipe["arch"], recipe["network"], labels, recipe["eval_long_side_px"])
    network = config.build()
    network.load_state_dict(state)
    return Segmenter.from_network(network, config)
