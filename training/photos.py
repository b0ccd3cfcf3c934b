"""The photos of a run: loaded, and told apart from what they cannot teach or judge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hubmodels.labels import TASKS
from training.data import Sample, count_pixels, load_fashionista, load_sources
from training.folder import load_folder
from training.recipe import Recipe

log = logging.getLogger("training")


def load_photos(recipe: Recipe, data: Path, *, limit: int | None = None) -> tuple[list[Sample], list[Sample]]:
    """The photos of a recipe for training and for validation.

    Raises:
        DataError: data are missing or wrong.
    """
    if recipe.folder:
        train, val = (
            load_folder(Path(recipe.folder), split, recipe.tasks[0], limit=limit) for split in ("train", "val")
        )
        return train, val
    val = load_fashionista(data, "val", recipe.tasks, limit=limit)
    return load_sources(data, recipe.sources, recipe.tasks, limit=limit), val


def names_of(recipe: Recipe, task: str) -> tuple[str, ...]:
    """The labels of a task in id order."""
    return TASKS[task].names if task in TASKS else recipe.classes


def unseen_labels(samples: Sequence[Sample], recipe: Recipe, task: str) -> list[str]:
    """Names of the labels of which no photo has a pixel, nor a soft label that is not zero."""
    names = names_of(recipe, task)
    seen = count_pixels(samples, task, len(names)) > 0
    for sample in samples:
        if task in sample.soft:
            seen |= sample.soft[task].any(axis=(1, 2))
    return [name for name, found in zip(names, seen, strict=True) if not found]


def warn_of_unseen(train: Sequence[Sample], val: Sequence[Sample], recipe: Recipe) -> dict[str, set[str]]:
    """Log which labels cannot be learnt and which nothing judges; task -> both, which no epoch can mend."""
    unseen = {}
    for task in recipe.tasks:
        unlearnt, unjudged = (unseen_labels(samples, recipe, task) for samples in (train, val))
        if unlearnt:
            log.warning(
                "%s: no pixel of %s in the train photos: this cannot be learnt; add photos that show it, or move some "
                "from val to train (splits.json)",
                task,
                ", ".join(unlearnt),
            )
        if unjudged:
            log.warning(
                "%s: no pixel of %s in the val photos: nothing judges this; name val photos that show it in "
                "splits.json",
                task,
                ", ".join(unjudged),
            )
        unseen[task] = {*unlearnt, *unjudged}
    return unseen
