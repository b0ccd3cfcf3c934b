"""Photos that have masks, found by their names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hubmodels.paths import is_file
from hubmodels.photo_search import find_photos
from hubmodels.result_files import MASK


@dataclass(frozen=True)
class Example:
    """A photo and its mask.

    Attributes:
        name: the photo as seen from its source, with slashes.
    """

    photo: Path
    mask: Path
    name: str = ""


def find_examples(photos: Iterable[str | Path], masks: Path) -> tuple[list[Example], int]:
    """Photos that have a mask, and the number of those that have none.

    Args:
        photos: photos and folders of photos, searched at any depth.
        masks: folder of masks, in the same folder below this one as the photo has below its source: NAME.png or
            NAME_mask.png for a photo NAME.jpg, or NAME.jpg_mask.png. It may be the folder of the photos; masks are not
            taken for photos then.

    Raises:
        FileNotFoundError: there is no such source or folder.
        ImageError: a source is an address or empty.
        ValueError: no photo has a mask, or one has two, or a mask would be that of two photos.
    """
    if not masks.is_dir():
        raise FileNotFoundError(f"{masks}: no such folder of masks")
    found = find_photos(photos)
    masks_of = {photo: _masks_of(photo, masks / folder) for photo, folder in found}
    taken = {os.path.realpath(mask) for each in masks_of.values() for mask in each}
    examples, without = [], 0
    owners: dict[str, Path] = {}  # mask -> photo
    for photo, folder in {os.path.realpath(photo): (photo, folder) for photo, folder in found}.values():  # each once
        if os.path.realpath(photo) in taken:  # a mask that lies among the photos
            continue
        there = masks_of[photo]
        if len(there) > 1:
            raise ValueError(f"expected one mask of {photo}; got {there[0]} and {there[1]}: remove one")
        for mask in there:
            if (other := owners.setdefault(os.path.realpath(mask), photo)) != photo:
                raise ValueError(f"expected a mask for each photo; got {mask} for {other} and {photo}: rename one")
        examples += [Example(photo, mask, (folder / photo.name).as_posix()) for mask in there]
        without += not there
    if not examples:
        raise ValueError(
            f"expected masks in {masks}, as NAME.png or NAME{MASK} for a photo NAME.jpg; got none for {without}"
        )
    return examples, without


def _masks_of(photo: Path, folder: Path) -> list[Path]:
    """Files that may be the mask of a photo."""
    own = os.path.realpath(photo)
    paths = (folder / f"{photo.stem}.png", folder / f"{photo.stem}{MASK}", folder / f"{photo.name}{MASK}")
    return [path for path in paths if is_file(path) and os.path.realpath(path) != own]
