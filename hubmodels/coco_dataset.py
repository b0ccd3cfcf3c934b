"""Photos and masks in files as a dataset in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from hubmodels.coco import annotations_of
from hubmodels.errors import ImageError
from hubmodels.images import MAX_PIXELS, upright_size
from hubmodels.labels import LabelSet, colour_of_hex
from hubmodels.mask_search import Example
from hubmodels.masks import read_truth
from hubmodels.result_files import note_in


def dataset(examples: Iterable[Example], label_set: LabelSet, *, failed: Callable[[str], None]) -> dict[str, Any]:
    """COCO's file of photos with masks; a photo that cannot be used is reported and left out.

    Args:
        examples: photos and masks, as of `find_examples`.
        label_set: what the masks show.
        failed: told the reason of each photo that is left out.

    Returns:
        `images` with their sizes upright, as EXIF turns them and masks show them; `annotations` and `categories`.
        JSON-able.

    Raises:
        ImportError: pycocotools is not installed.
    """
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for example in examples:
        try:
            size = upright_size(example.photo)
            labels = _read_mask(example, label_set, size)
        except (ImageError, OSError) as error:
            failed(str(error))  # names the file
            continue
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": example.name, "width": size[1], "height": size[0]})
        for each in annotations_of(labels, label_set):
            found.append({"id": len(found) + 1, "image_id": image_id, **each})
    categories = [
        {"id": index, "name": name, "supercategory": label_set.task}
        for index, name in enumerate(label_set.names)
        if index
    ]
    return {"images": images, "annotations": found, "categories": categories}


def _read_mask(example: Example, label_set: LabelSet, size: tuple[int, int]) -> np.ndarray:
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
