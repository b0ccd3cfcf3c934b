"""A drawn data set in the layout that training reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def draw_data(
    root: Path,
    rng: np.random.Generator,
    *,
    size: tuple[int, int] = (48, 64),
    count: int = 4,
    splits: dict[str, list[int]] | None = None,
) -> Path:
    """Coloured rectangles in the layout of training/data.py; the last is val and the others train, unless said."""
    width, height = size
    for folder in ("fashionista/images", "fashionista/labels_fashion", "fashionista/labels_person"):
        (root / folder).mkdir(parents=True)
    for folder in ("ccp/images", "ccp/labels_tags"):
        (root / folder).mkdir(parents=True)
    for number in range(1, count + 1):
        labels = np.zeros((height, width), np.uint8)
        top, left = rng.integers(4, 20, 2)
        labels[top : top + 24, left : left + 20] = 1 + number % 6
        image = np.array([(40, 40, 40), *[(200, 30 * i, 255 - 30 * i) for i in range(6)]], np.uint8)[labels]
        Image.fromarray(image).save(root / f"fashionista/images/{number:04d}.jpg", quality=95)
        Image.fromarray(labels).save(root / f"fashionista/labels_fashion/{number:04d}.png")
        Image.fromarray((labels > 0).astype(np.uint8)).save(root / f"fashionista/labels_person/{number:04d}.png")
        Image.fromarray(image).save(root / f"ccp/images/{number:04d}.jpg")
        Image.fromarray(labels).save(root / f"ccp/labels_tags/{number:04d}.png")
    numbers = list(range(1, count + 1))
    splits = splits or {"train": numbers[: count - 1], "val": numbers[-1:], "test": []}
    (root / "fashionista/splits.json").write_text(json.dumps(splits))
    (root / "ccp/tags.json").write_text(json.dumps(["null", "skin", "bag", "shirt", "skirt", "boots", "dress"]))
    return root
