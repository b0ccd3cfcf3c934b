"""What a network was trained on, all stages of it, in words for its model card.

Every checkpoint carries the text: a stage that starts from another adds to what that one says, as the terms of photos
and weights hold for all that is made of them.
"""

from __future__ import annotations

import json
from pathlib import Path

from hubmodels.entries import ENTRIES
from training.checkpoint import load_run
from training.recipe import Recipe

SOURCE_NAMES = {
    "fashionista": "Fashionista",
    "ccp": "Clothing Co-Parsing",
    "ccp_unlabelled": "photos of Clothing Co-Parsing without labels",
}


def provenance(recipe: Recipe) -> str:
    """What a run of a recipe is on, to follow "trained on"; reads the checkpoint that it starts from, if it does.

    Raises:
        DataError: there is no such checkpoint.
    """
    return of_stage(recipe) + _started(recipe)


def of_stage(recipe: Recipe) -> str:
    """The photos of a run and who labelled them, without what came before it."""
    if recipe.folder:
        return f"the photos and masks of {recipe.folder_name}"
    return " and ".join(SOURCE_NAMES[source] for source in recipe.sources) + _taught(recipe)


def _taught(recipe: Recipe) -> str:
    """Who made the soft labels, as far as their folder says."""
    path = Path(recipe.soft_labels) / "settings.json"
    if not recipe.soft_labels:
        return ""
    noted = json.loads(path.read_text()) if path.is_file() else {}
    teachers = {
        teacher
        for source, tasks in noted.items()
        if source in recipe.sources
        for task, said in tasks.items()
        if task in recipe.tasks
        for teacher in said["teachers"]
    }
    return f", in part with labels by {' and '.join(sorted(teachers)) or 'other networks'}"


def _started(recipe: Recipe) -> str:
    """Where the weights came from."""
    if recipe.init == "random":
        return ""
    if recipe.init == "imagenet":
        return ", starting from a backbone trained on ImageNet"
    if recipe.init in ENTRIES:
        entry = ENTRIES[recipe.init]
        return f", starting from {entry.name} ({entry.license}), which was {entry.data}"
    saved = load_run(Path(recipe.init))
    known = saved.get("provenance") or "photos that its checkpoint does not name"
    return f", starting from an earlier stage, which was trained on {known}"
