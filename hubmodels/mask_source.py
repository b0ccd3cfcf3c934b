"""Masks that a command takes instead of a model: which labels they have, and their ids."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable

import numpy as np

from hubmodels.errors import ImageError
from hubmodels.images import MAX_PIXELS
from hubmodels.labels import TASKS, LabelSet, colour_of_hex
from hubmodels.mask_search import Example, find_examples
from hubmodels.masks import read_truth
from hubmodels.result_files import note_in


def examples_of(arguments: argparse.Namespace) -> tuple[list[Example], LabelSet]:
    """Photos with masks that `arguments` name, as of `add_mask_options`, and what the masks show.

    Raises:
        ValueError: no mask says which labels it has, or they differ, and there is no --task.
        FileNotFoundError, ImageError, ValueError: as of `find_examples`.
    """
    examples, without = find_examples(arguments.photos, arguments.masks)
    if without:
        print(f"{without} photos have no mask and are left out", file=sys.stderr)
    labels = TASKS[arguments.task] if arguments.task else labels_that_masks_name(examples)
    if labels is None:
        raise ValueError(f"no mask in {arguments.masks} says which labels it has; say --task {' or '.join(TASKS)}")
    return examples, labels


def read_mask(example: Example, label_set: LabelSet, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 ids of the mask of a photo of that height and width, 255 where undecided.

    Raises:
        ImageError: as of `read_truth`; it names the mask.
    """
    try:
        return read_truth(example.mask, label_set, size, max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise ImageError(f"{example.mask}: {error}") from error


def labels_that_masks_name(examples: Iterable[Example]) -> LabelSet | None:
    """The labels that masks of `hubmodels label` say they have; None if no mask says so.

    Raises:
        ValueError: some have other labels than others.
    """
    found: dict[LabelSet, Example] = {}
    for example in examples:
        if (note := note_in(example.mask)) is not None and (labels := _labels_in(note)) is not None:
            found.setdefault(labels, example)
    if len(found) > 1:
        (one, here), (other, there) = list(found.items())[:2]
        raise ValueError(
            f"expected masks of the same labels; got {one.task} in {here.mask} and {other.task} in {there.mask}: "
            "name one folder of them, or say --task"
        )
    return next(iter(found), None)


def _labels_in(note: str) -> LabelSet | None:
    """The labels that a mask's note tells; None if it is not as we write them, whoever wrote it."""
    try:
        facts = json.loads(note)
        palette = tuple(map(colour_of_hex, json.loads(facts["palette"])))
        return LabelSet(str(facts["task"]), tuple(map(str, json.loads(facts["labels"]))), palette)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
