"""Photos that have masks, found by their names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubmodels.paths import is_file
from hubmodels.photo_search import PhotoSearch, listed
from hubmodels.planning import result_names
from hubmodels.result_files import MASK, is_result


@dataclass(frozen=True)
class Example:
    """A photo and its mask.

    Attributes:
        name: the photo as seen from its source, with slashes.
    """

    photo: Path
    mask: Path
    name: str = ""


@dataclass(frozen=True)
class MaskedPhotos:
    """What was found in the sources.

    Attributes:
        examples: photos that have a mask.
        without: number of photos that have none.
        unread, closed: as of `Plan`.
    """

    examples: list[Example]
    without: int
    unread: str
    closed: list[str]


def find_examples(photos: Iterable[str | Path], masks: Path) -> MaskedPhotos:
    """Photos that have a mask.

    Args:
        photos: photos and folders of photos, searched at any depth.
        masks: folder of masks, in the same folder below this one as the photo has below its source: NAME.png or
            NAME_mask.png for a photo NAME.jpg, NAME.jpg_mask.png, or whatever else `plan` calls its mask. It may be the
            folder of the photos; masks are not taken for photos then.

    Raises:
        FileNotFoundError: there is no such source or folder.
        ImageError: a source is an address or empty.
        ValueError: there is no photo, or none has a mask, or one has two, or a mask would be that of two photos.
    """
    if not masks.is_dir():
        raise FileNotFoundError(f"{masks}: no such folder of masks")
    search = PhotoSearch()
    # Each once, however often it is named, but by every name that it has: links have results of their own.
    named = search.photos_of(photos)
    found = list({(folder, photo.stem, _real(photo)): (photo, folder) for photo, folder in named}.values())
    if not found:
        raise ValueError(search.nothing_found())
    masks_of = _masks_of(found, masks)
    taken = {_real(mask) for each in masks_of for mask in each}
    examples, without = [], 0
    doubtful: list[str] = []
    owners: dict[str, Path] = {}  # mask -> photo
    for (photo, folder), there in zip(found, masks_of, strict=True):
        if _real(photo) in taken:  # a mask that lies among the photos
            continue
        if len(there) > 1:
            doubtful.append(f"{there[0]} and {there[1]} for {photo}")
            continue
        for mask in there:
            if (other := owners.setdefault(_real(mask), photo)) != photo:
                raise ValueError(f"expected a mask for each photo; got {mask} for {other} and {photo}: rename one")
        examples += [Example(photo, mask, (folder / photo.name).as_posix()) for mask in there]
        without += not there
    if doubtful:
        raise ValueError(f"expected one mask of each photo; got {listed(doubtful)}: remove one of each")
    if not examples:
        raise ValueError(
            f"expected masks in {masks}, as NAME.png or NAME{MASK} for a photo NAME.jpg; got none for {without}"
        )
    return MaskedPhotos(examples, without, search.unread(), search.closed)


def _masks_of(found: Sequence[tuple[Path, Path]], masks: Path) -> list[list[Path]]:
    """Of each photo, the files that may be its mask."""
    names = result_names(found)
    there = [_files_called_so(photo, masks / folder, name) for (photo, folder), name in zip(found, names, strict=True)]
    of_photo = {_real(photo): set(files) for (photo, _), files in zip(found, there, strict=True)}

    def meant(files: list[Path], name: str) -> list[Path]:
        if len(files) > 1:  # a photo, where photos and masks share a folder: it has a mask of its own
            files = [mask for mask in files if not of_photo.get(_real(mask), set()) - set(files)] or files
        if len(files) > 1:  # left from when the photo was alone with its name, and untouched since
            files = [mask for mask in files if mask.name == f"{name}{MASK}" or not is_result(mask)] or files
        return files

    return list(map(meant, there, names))


def _files_called_so(photo: Path, folder: Path, name: str) -> list[Path]:
    """Files in a folder that are called as the mask of a photo, whose results have that name now."""
    names = dict.fromkeys((f"{photo.stem}.png", *(f"{each}{MASK}" for each in (photo.stem, photo.name, name))))
    return [path for path in map(folder.joinpath, names) if is_file(path) and _real(path) != _real(photo)]


def _real(path: Path) -> str:
    return os.path.realpath(path)
