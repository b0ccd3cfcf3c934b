"""Readers for our data layout, decoded once into memory.

fashionista/  images/NNNN.jpg, labels_fashion/NNNN.png, labels_person/NNNN.png, splits.json
ccp/          images/NNNN.jpg, labels_tags/NNNN.png, tags.json, unlabelled/NNNN.jpg

Photos are JPEG, labels 8-bit PNG of the photo's size. Pixel values are ids in the order of `hubmodels.labels`
(labels_fashion, labels_person; 255 is undecided) or of tags.json (labels_tags: the 59 tags of Clothing Co-Parsing,
mapped to our labels by `training.tags`). splits.json names the photos of "train", "val" and "test" by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from hubmodels.images import DAMAGED
from hubmodels.labels import TASKS, LabelSet
from hubmodels.masks import indexed_ids
from hubmodels.metrics import IGNORE
from training.errors import DataError
from training.files import read_json
from training.tags import read_tags, tag_table

DATA_ROOT = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SPLITS = ("train", "val", "test")
SHRINK = 2  # pixels of a photo to one of its soft labels: they are smooth; at half the size they take a quarter of RAM


@dataclass(frozen=True)
class Sample:
    """One labelled photo, decoded.

    Attributes:
        name: data set and number, for messages.
        image: (H, W, 3) uint8 sRGB.
        labels: task -> (H, W) uint8 label ids, IGNORE where undecided.
        soft: task -> (C, h, w) uint8 probabilities times 255 at a size `SHRINK` times smaller, rounded up, as
            `training.soft_labels` writes them, or at another one that the photo is stretched to; empty for photos
            without.
    """

    name: str
    image: np.ndarray
    labels: dict[str, np.ndarray]
    soft: dict[str, np.ndarray] = field(default_factory=dict)


def read_split(root: Path, split: str) -> list[str]:
    """Photo numbers ("0001", ...) of a split of Fashionista.

    Raises:
        DataError: unknown split, a file that is missing, cannot be read or says something else, or a split without
            photos.
    """
    path = root / "fashionista" / "splits.json"
    splits = read_json(path)
    if not isinstance(splits, dict):
        raise DataError(f"{path}: expected a JSON object of the lists {', '.join(SPLITS)}; got {type(splits).__name__}")
    if split not in splits:
        raise DataError(f"{path}: no split {split!r}; it has {', '.join(splits)}")
    numbers = splits[split]
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise DataError(f"{path}: expected photo numbers in {split}, like [1, 2]; got {numbers!r:.60}")
    if not numbers:
        raise DataError(f"{path}: split {split!r} is empty")
    return [f"{number:04d}" for number in numbers]


def read_labels(path: Path, size: tuple[int, int], labels: LabelSet | None = None) -> np.ndarray:
    """(H, W) uint8 label ids of a PNG that must have `size` = (width, height).

    Args:
        path: the PNG, grey or indexed.
        size: that of the photo.
        labels: if given, an indexed PNG in exactly their colours is read by colour, as editors may have given these
            another order than that of the ids; with any other palette, and without `labels`, ids are the indices.

    Raises:
        DataError: it is missing, cannot be decoded, or has another size or mode.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing label file")
    try:
        with Image.open(path) as picture:
            mode, by_colour = picture.mode, picture.mode == "P" and labels is not None
            ids = indexed_ids(picture, labels) if by_colour else np.array(picture)
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be decoded ({error})") from error
    if mode not in ("L", "P"):
        raise DataError(f"{path}: expected an 8-bit PNG of label ids (mode L or P); got mode {mode}")
    if ids.shape[::-1] != size:
        hint = (
            "; if the photo is turned by its EXIF orientation, its mask must be upright too"
            if ids.shape == size
            else ""
        )
        raise DataError(f"{path}: labels are {ids.shape[::-1]}, the photo is {size} (width, height){hint}")
    return ids


def count_pixels(samples: Sequence[Sample], task: str, count: int) -> np.ndarray:
    """(count,) int64: pixels of each label id of a task in all photos together; undecided ones are left out."""
    pixels = np.zeros(count, np.int64)
    for sample in samples:
        pixels += np.bincount(sample.labels[task].ravel(), minlength=count)[:count]
    return pixels


def _read_image(path: Path) -> Image.Image:
    if not path.is_file():
        raise DataError(f"{path}: missing photo")
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be decoded ({error})") from error


def load_fashionista(root: Path, split: str, tasks: Sequence[str], *, limit: int | None = None) -> list[Sample]:
    """The photos of a split with the labels of `tasks`, at their own size.

    Raises:
        DataError: a photo or label file is missing, sizes differ, or a label id is out of range.
    """
    base = root / "fashionista"
    samples = []
    for number in tqdm(read_split(root, split)[:limit], desc=f"fashionista {split}", unit="photo", leave=False):
        photo = _read_image(base / "images" / f"{number}.jpg")
        labels = {}
        for task in tasks:
            path = base / f"labels_{task}" / f"{number}.png"
            ids = read_labels(path, photo.size)
            count = len(TASKS[task])
            if len(wrong := ids[(ids >= count) & (ids != IGNORE)]):
                raise DataError(
                    f"{path}: label id {wrong.max()} is out of range; {task} has ids 0..{count - 1}, {IGNORE} is "
                    "undecided"
                )
            labels[task] = ids
        samples.append(Sample(f"fashionista/{number}", np.array(photo), labels))
    return samples


def load_ccp(root: Path, tasks: Sequence[str], *, width_px: int = 400, limit: int | None = None) -> list[Sample]:
    """All labelled CCP photos, resized to `width_px`, tags mapped to the labels of `tasks`.

    Raises:
        DataError: the folder is empty, a file is missing, sizes differ, or a tag id is out of range.
    """
    base = root / "ccp"
    tags = read_tags(base / "tags.json")
    tables = {task: tag_table(tags, task) for task in tasks}
    paths = sorted((base / "images").glob("*.jpg"))
    if not paths:
        raise DataError(f"{base / 'images'}: no photos")
    samples = []
    for path in tqdm(paths[:limit], desc="ccp", unit="photo", leave=False):
        photo = _read_image(path)
        label_path = base / "labels_tags" / f"{path.stem}.png"
        ids = read_labels(label_path, photo.size)
        if (top := int(ids.max())) >= len(tags):
            raise DataError(f"{label_path}: tag id {top} is out of range; tags.json names {len(tags)} tags")
        image = _narrowed(photo, width_px)
        # Ids are picked, never mixed, so nearest is right here; predictions resize logits instead.
        ids = np.array(Image.fromarray(ids).resize(image.shape[1::-1], Image.Resampling.NEAREST))
        samples.append(Sample(f"ccp/{path.stem}", image, {task: table[ids] for task, table in tables.items()}))
    return samples


def _narrowed(photo: Image.Image, width_px: int) -> np.ndarray:
    """(H, W, 3) uint8 of a photo at another width."""
    size = (width_px, round(photo.height * width_px / photo.width))
    return np.array(photo.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def load_ccp_unlabelled(
    root: Path, tasks: Sequence[str], *, width_px: int = 400, limit: int | None = None
) -> list[Sample]:
    """CCP photos without labels, resized to `width_px`; every pixel of theirs is IGNORE until soft labels are added.

    Raises:
        DataError: the folder is empty, or a photo cannot be decoded.
    """
    folder = root / "ccp" / "unlabelled"
    paths = sorted(folder.glob("*.jpg"))
    if not paths:
        raise DataError(f"{folder}: no photos")
    samples = []
    for path in tqdm(paths[:limit], desc="ccp unlabelled", unit="photo", leave=False):
        image = _narrowed(_read_image(path), width_px)
        nothing = np.full(image.shape[:2], IGNORE, np.uint8)
        samples.append(Sample(f"ccp_unlabelled/{path.stem}", image, dict.fromkeys(tasks, nothing)))
    return samples


SOURCES = {
    "fashionista": lambda root, tasks, limit: load_fashionista(root, "train", tasks, limit=limit),
    "ccp": lambda root, tasks, limit: load_ccp(root, tasks, limit=limit),
    "ccp_unlabelled": lambda root, tasks, limit: load_ccp_unlabelled(root, tasks, limit=limit),
}


def load_sources(root: Path, sources: Sequence[str], tasks: Sequence[str], *, limit: int | None = None) -> list[Sample]:
    """Training photos of several sources by name, keys of `SOURCES`; of Fashionista these are its train split.

    Raises:
        ValueError: an unknown source.
    """
    samples: list[Sample] = []
    for source in sources:
        if source not in SOURCES:
            raise ValueError(f"unknown data source {source!r}; expected one of {', '.join(map(repr, SOURCES))}")
        samples += SOURCES[source](root, tasks, limit)
    return samples


__all__ = ["DATA_ROOT", "IGNORE", "Sample", "load_ccp", "load_fashionista", "load_sources", "read_split"]
