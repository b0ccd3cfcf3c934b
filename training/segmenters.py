"""A published model or a checkpoint, whichever a command names, as a Segmenter."""

from __future__ import annotations

from pathlib import Path

from hubmodels.entries import ENTRIES
from hubmodels.hub import load_model
from hubmodels.labels import TASKS
from hubmodels.networks import build_network
from hubmodels.segmenter import Segmenter
from training.checkpoint import averaged_weights, load_run
from training.engine import select_tasks
from training.errors import DataError
from training.recipe import Recipe


def load_teacher(name: str, task: str) -> Segmenter:
    """A published model, or the averaged weights of a checkpoint of `training.train` for one of its tasks.

    Raises:
        DataError: no such checkpoint, or it was not trained for the task, as may be said of a published model.
    """
    if name in ENTRIES:
        model = load_model(name)
        if model.labels.names != TASKS[task].names:
            raise DataError(f"{name} labels {model.labels.task}; expected a model for {task}")
        return model
    saved = load_run(Path(name))
    recipe = Recipe.from_dict(saved["recipe"])
    try:
        state = select_tasks(averaged_weights(saved, Path(name)), recipe.label_counts, {task: len(TASKS[task])})
    except KeyError as error:
        raise DataError(f"{name}: {error.args[0]}") from error
    network = build_network(recipe.arch, num_classes=len(TASKS[task]), **recipe.network)
    network.load_state_dict(state)
    return Segmenter(network, TASKS[task], name=name, input_px=recipe.eval_long_side_px).eval()
