"""The photos of a run: loaded, named in its checkpoints, and what they cannot teach or judge is said."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hubmodels.entries import ENTRIES
from hubmodels.labels import TASKS
from training.checkpoint import load_run
from training.data import SOURCES, Sample, count_pixels, load_fashionista, load_sources
from training.errors import DataError
from training.folder import load_folder
from training.recipe import Recipe

log = logging.getLogger("training")

Names = dict[str, list[str]]  # "train", "val" and "seen" -> names of photos, as `Run.photos` explains


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
        nowhere = [name for name in unlearnt if name in unjudged]
        for names, lack in (
            (nowhere, "any photo: this cannot be learnt; add photos that show it, or leave the label out"),
            (
                [name for name in unlearnt if name not in nowhere],
                "the train photos: this cannot be learnt; move photos that show it from val to train (splits.json)",
            ),
            (
                [name for name in unjudged if name not in nowhere],
                "the val photos: nothing judges this; name val photos that show it in splits.json",
            ),
        ):
            if names:
                log.warning("%s: no pixel of %s in %s", task, ", ".join(names), lack)
        unseen[task] = {*unlearnt, *unjudged}
    return unseen


def seen_before(recipe: Recipe) -> list[str]:
    """Names of the photos that the checkpoint a recipe starts from has seen; none if it does not say."""
    if recipe.init in ("imagenet", "random", *ENTRIES):
        return []
    return load_run(Path(recipe.init)).get("photos", {}).get("seen", [])


def warn_of_seen(val: Sequence[str], seen: Sequence[str], recipe: Recipe) -> None:
    """Log how many val photos the network was trained on before this run.

    A folder of one's own may have been copied or renamed since: its photos are told by their names alone, among those
    of folders.
    """
    known = set(seen)
    places = {_place(name, recipe) for name in known if recipe.folder and name.partition("/")[0] not in SOURCES}
    if count := sum(name in known or _place(name, recipe) in places for name in val):
        log.warning(
            "%d of %d val photos were trained on before%s, in %s or what it started from: scores on them will be too "
            "good; keep the val photos of that run, by splits.json",
            count,
            len(val),
            ", or photos of the same name" if recipe.folder else "",
            recipe.init,
        )


def digest(sample: Sample) -> str:
    """What tells a photo and its labels from others, the first 16 hexadecimal digits of their sha256."""
    found = hashlib.sha256(np.ascontiguousarray(sample.image))
    for task in sorted(sample.labels):
        found.update(np.ascontiguousarray(sample.labels[task]))
    return found.hexdigest()[:16]


def check_same_photos(now: Mapping[str, Sequence[str]], before: Mapping[str, Sequence[str]], recipe: Recipe) -> None:
    """Refuse to go on with other photos than a run had, or with the same in another order.

    Args:
        now: "train" and "val" -> names of photos, "train_sha256" and "val_sha256" -> what they hold.
        before: the same, of the run's checkpoint; older ones do not say what they hold.
        recipe: of the run; if it is on a folder, that may have moved or got another name.

    Raises:
        DataError: says what was added, is gone or was changed.
    """
    for split in ("train", "val"):
        ours, theirs = ([_place(name, recipe) for name in names[split]] for names in (now, before))
        if ours != theirs:
            raise DataError(
                f"recipe {recipe.name!r}: expected the {split} photos that the run had; got {_changes(ours, theirs)}: "
                "go on with the same photos (is --limit the same?), or start a new run from its best.pt by --init, "
                "with another --runs"
            )
        held = f"{split}_sha256"
        pairs = zip(ours, now[held], before.get(held) or now[held], strict=True)
        if changed := [name for name, here, there in pairs if here != there]:
            raise DataError(
                f"recipe {recipe.name!r}: expected the {split} photos and labels as the run had them; "
                f"{len(changed)} changed since ({_listed(changed)}): put them back, or start a new run from its "
                "best.pt by --init, with another --runs"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _place(name: str, recipe: Recipe) -> str:
    return name.partition("/")[2] if recipe.folder else name


def _changes(now: Sequence[str], before: Sequence[str]) -> str:
    parts = []
    for word, names, others in (("new", now, set(before)), ("gone", before, set(now))):
        if changed := [name for name in names if name not in others]:
            parts.append(f"{len(changed)} {word} ({_listed(changed)})")
    return " and ".join(parts) or "them in another order"
