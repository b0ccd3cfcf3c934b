"""A folder of one's own photos and masks as training data.

FOLDER/images/NAME.jpg (or .png, .webp), FOLDER/masks/NAME.png, FOLDER/classes.json, and FOLDER/splits.json if the split
is not to be drawn by lot. A mask is an 8-bit PNG of the photo's size whose pixel values are label ids, 255 where
nothing is to be learnt. An indexed one in the colours of our own masks may have them in any order. classes.json is the
list of label names in id order, the background first.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hubmodels import ImageError, read_image
from hubmodels.config import ModelConfig
from hubmodels.labels import LabelSet
from hubmodels.metrics import IGNORE
from training.data import Sample, count_pixels, read_labels
from training.errors import DataError
from training.files import read_json

log = logging.getLogger("training")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LONG_SIDE_PX = 600  # that of the photos the published models saw
VAL_EVERY = 5  # without splits.json one photo in so many is for validation


def read_classes(folder: Path) -> tuple[str, ...]:
    """Label names in id order.

    Raises:
        DataError: the file is missing, or is not a list of 2 to 255 different names that a saved model may have.
    """
    path = folder / "classes.json"
    names = read_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f'{path}: expected a list of names, such as ["background", "hat"]; got {type(names).__name__}')
    if not 2 <= len(names) <= IGNORE or len(set(names)) != len(names):
        raise DataError(f"{path}: expected 2 to {IGNORE} different names, the background first; got {len(names)}")
    if "background" in names[1:]:
        raise DataError(
            f"{path}: expected the background first, as id 0; got {names[0]!r} there and background as id "
            f"{names.index('background')}: correct the order, and the ids in the masks with it"
        )
    try:  # what the export of the trained model would refuse
        ModelConfig("names", "deeplabv3", {}, LabelSet.custom(names), LONG_SIDE_PX)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return tuple(names)


def load_folder(folder: Path, split: str, task: str, *, limit: int | None = None) -> list[Sample]:
    """The photos of a split, "train" or "val", with their masks, the long side brought to `LONG_SIDE_PX` at most.

    Raises:
        DataError: a file is missing or cannot be read, sizes differ, a label id is out of range, a split is empty or
            has no decided pixel, or the train photos show one label alone.
    """
    names = read_classes(folder)
    labels, count = LabelSet.custom(names), len(names)
    samples = []
    splits, masks = split_photos(folder), _masks(folder / "masks")
    if split == "train":  # once for both
        _warn_of_unused(folder, splits)
    for path in tqdm(splits[split][:limit], desc=f"{folder.name} {split}", unit="photo", leave=False):
        try:
            image = read_image(path)
        except ImageError as error:  # which names the photo
            raise DataError(str(error)) from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        mask_path = masks.get(path.stem, folder / "masks" / f"{path.stem}.png")
        ids = read_labels(mask_path, image.shape[1::-1], labels)
        if wrong := sorted(set(np.unique(ids).tolist()) - set(range(count)) - {IGNORE})[:3]:
            raise DataError(
                f"{mask_path}: ids {wrong} are out of range; classes.json names 0..{count - 1}, {IGNORE} is undecided"
            )
        factor = LONG_SIDE_PX / max(image.shape[:2])
        if factor < 1:
            size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
            # Ids are picked, never mixed.
            ids = np.array(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST))
            image = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        samples.append(Sample(f"{folder.name}/{path.stem}", image, {task: ids}))
    shown = np.flatnonzero(count_pixels(samples, task, count))
    if not len(shown):
        raise DataError(
            f"{folder / 'masks'}: expected a pixel other than {IGNORE} in masks of the {split} photos; got none: "
            f"there is nothing to {'learn' if split == 'train' else 'choose an epoch by'}"
        )
    if split == "train" and len(shown) == 1:
        raise DataError(
            f"{folder / 'masks'}: expected pixels of two or more labels in masks of the train photos; got only "
            f"{shown[0]} ({names[shown[0]]}), so there is nothing to tell apart: are the masks 0 and {IGNORE}? "
            f"{IGNORE} is undecided; ids start at 0, so the object must be 1"
        )
    return samples


def split_photos(folder: Path) -> dict[str, list[Path]]:
    """The photos for training and for validation, as splits.json says, or a fifth of them, rounded up, for the latter.

    Which, the names alone decide, as by lot: photos that are added move at most a few of the others.

    Raises:
        DataError: no photos, photos in folders below, two of one name, a mask without a photo, a split that is empty
            or names a photo that is not there, or a photo that is named twice.
    """
    base = folder / "images"
    paths = _photos(base)
    photos = {path.stem: path for path in paths}
    _check_masks(folder / "masks", photos)
    if below := [path for path in _visible(base, "*/**/*") if path.suffix.lower() in SUFFIXES and path.is_file()]:
        raise DataError(
            f"{base}: expected all photos in this folder; got {len(below)} below it, such as {below[0]}: move them "
            "here, and their masks likewise"
        )
    if len(photos) < 2:
        raise DataError(f"{base}: expected 2 or more photos ({', '.join(SUFFIXES)}); got {len(photos)}")
    if len(photos) != len(paths):
        twice = next(path for path in paths if photos[path.stem] != path)
        raise DataError(
            f"{base}: two photos have one name, {twice.name} and {photos[twice.stem].name}, so they would share a "
            "mask; rename one"
        )
    path = folder / "splits.json"
    if path.exists() or path.is_symlink():
        return _given_splits(path, photos)
    drawn = set(sorted(paths, key=_lot)[: math.ceil(len(paths) / VAL_EVERY)])
    return {
        "train": [path for path in paths if path not in drawn],
        "val": [path for path in paths if path in drawn],
    }


def _photos(folder: Path) -> list[Path]:
    return sorted(path for path in _visible(folder, "*") if path.suffix.lower() in SUFFIXES)


def _masks(folder: Path) -> dict[str, Path]:
    """Name -> mask; some programs and cameras write .PNG."""
    return {path.stem: path for path in sorted(_visible(folder, "*")) if path.suffix.lower() == ".png"}


def _warn_of_unused(folder: Path, splits: Mapping[str, Sequence[Path]]) -> None:
    """Log how many photos are in no split: those that were added after splits.json was written would go unused."""
    used = {path for paths in splits.values() for path in paths}
    if unused := [path.stem for path in _photos(folder / "images") if path not in used]:
        named = f"{', '.join(unused[:3])}{f' and {len(unused) - 3} more' if len(unused) > 3 else ''}"
        log.warning(
            "%s: names %d of %d photos; unused: %s: add them to train or val, or remove the file to draw a split",
            folder / "splits.json",
            len(used),
            len(used) + len(unused),
            named,
        )


def _lot(path: Path) -> bytes:
    """A number that the name of a photo draws; the lowest are for validation."""
    return hashlib.sha256(os.fsencode(path.stem)).digest()


def _visible(folder: Path, pattern: str) -> Iterator[Path]:
    """Files of a pattern but for those macOS puts beside them on memory cards: `._0001.jpg` is no photo."""
    return (path for path in folder.glob(pattern) if not path.name.startswith("._"))


def _check_masks(folder: Path, photos: Container[str]) -> None:
    """Raise DataError if a mask has no photo: its photo is of a kind that is not read, and would go unused."""
    if alone := [path.name for name, path in _masks(folder).items() if name not in photos]:
        raise DataError(
            f"{folder}: expected a photo ({', '.join(SUFFIXES)}) of the same name for every mask; got none for "
            f"{', '.join(alone[:3])}{f' and {len(alone) - 3} more' if len(alone) > 3 else ''}: "
            "convert photos of other kinds to JPEG, or remove the masks"
        )


def _given_splits(path: Path, photos: Mapping[str, Path]) -> dict[str, list[Path]]:
    """The splits of a file; DataError as of `split_photos`."""
    splits = read_json(path)
    names = {split: splits.get(split) if isinstance(splits, dict) else None for split in ("train", "val")}
    for split, listed in names.items():
        if not isinstance(listed, list) or not listed:
            raise DataError(f'{path}: expected {{"train": [names], "val": [names]}}; {split} is missing or empty')
        # What is no text may not even be looked up.
        if unknown := [name for name in listed if not isinstance(name, str) or name not in photos][:3]:
            given = Path(unknown[0]) if isinstance(unknown[0], str) else Path()
            if given.stem in photos and photos[given.stem].name == given.name:
                raise DataError(f"{path}: expected names without suffix in {split}: {given.stem!r}; got {unknown[0]!r}")
            raise DataError(f"{path}: {split} names {unknown}, which are not in {path.parent / 'images'}")
    chosen = {split: [photos[name] for name in listed or ()] for split, listed in names.items()}
    times = Counter(each.stem for listed in chosen.values() for each in listed)
    if twice := [name for name, count in times.items() if count > 1][:3]:
        raise DataError(f"{path}: expected every photo once, in train or in val; got {twice} more often")
    return chosen
