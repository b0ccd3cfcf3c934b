"""Post-processing in one fixed order: superpixel vote, then region clean-up. Every stage at 0 is the identity."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from hubmodels.refine.regions import clean_regions
from hubmodels.refine.superpixels import superpixels, vote

REFERENCE_PX = 600 * 400  # sizes in `Refinement` are those of a photo with so many pixels
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Refinement:
    """Settings of every stage; the default changes nothing.

    Attributes:
        superpixel_scale: size of superpixels that vote on one label each; 0 is off, 50 to 400 is usual.
        min_region_px: regions with fewer pixels take the label around them; 0 is off, 50 to 1000 is usual.

    Sizes are those of a 600x400 photo and grow with the photo's area, so a setting means the same at any resolution.

    Raises:
        ValueError: a value out of range.
        TypeError: a value that is not a number, or a setting that does not exist.
    """

    superpixel_scale: float = 0.0
    min_region_px: int = 0

    def __post_init__(self) -> None:
        for field, top in (("superpixel_scale", 10_000), ("min_region_px", REFERENCE_PX)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{field} must be a number; got {type(value).__name__}")
            if not 0 <= value <= top:
                raise ValueError(f"{field} must be in 0..{top}; got {value}")
        if self.min_region_px != int(self.min_region_px):
            raise ValueError(f"min_region_px must be a whole number; got {self.min_region_px}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, with the schema version."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Refinement:
        """The settings that `to_dict` wrote.

        Raises:
            ValueError: another schema version, an unknown setting, or a value out of range.
        """
        values = dict(values)
        version = values.pop("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ValueError(f"settings have schema version {version}; this release reads {SCHEMA_VERSION}")
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"unknown settings {sorted(unknown)}; expected some of {sorted(known)}")
        return cls(**values)


def refine(probs: np.ndarray, image: np.ndarray, settings: Refinement) -> np.ndarray:
    """Labels from probabilities, through the stages that `settings` turns on.

    Args:
        probs: (C, H, W) float32, each pixel summing to 1.
        image: (H, W, 3) uint8 sRGB, the photo.
        settings: what to do.

    Returns:
        (H, W) uint8 label ids; with default settings the argmax of `probs`.

    Raises:
        ValueError: the sizes disagree.
    """
    return Tuner(probs, image).labels(settings)


class Tuner:
    """The stages of one photo, each remembered by what it depends on, so that a slider recomputes little.

    Args:
        probs: (C, H, W) float32, the network's answer.
        image: (H, W, 3) uint8 sRGB.
        cached_segmentations: superpixel maps kept at most (4 bytes a pixel each).

    Safe to share between threads: stages run one at a time.
    """

    def __init__(self, probs: np.ndarray, image: np.ndarray, *, cached_segmentations: int = 8) -> None:
        if probs.ndim != 3 or image.shape != (*probs.shape[1:], 3):
            raise ValueError(
                f"image must be (H, W, 3) with the size of probs (C, H, W); got {image.shape}, {probs.shape}"
            )
        self.probs, self.image = probs, image
        self._segments = _LastUsed(cached_segmentations)
        self._votes = _LastUsed(cached_segmentations)
        self._lock = threading.Lock()

    def labels(self, settings: Refinement) -> np.ndarray:
        """(H, W) uint8 label ids under `settings`."""
        with self._lock:
            labels = self._voted(settings.superpixel_scale)
            area = self.probs.shape[1] * self.probs.shape[2]
            return clean_regions(labels, min_region_px=round(settings.min_region_px * area / REFERENCE_PX))

    def _voted(self, scale: float) -> np.ndarray:
        def compute() -> np.ndarray:
            if scale == 0:
                return self.probs.argmax(0).astype(np.uint8)
            return vote(self.probs, self._segments.get(scale, lambda: _segments_at_reference(self.image, scale)))

        return self._votes.get(scale, compute)


def _segments_at_reference(image: np.ndarray, scale: float) -> np.ndarray:
    """Superpixels found at no more than the reference size (so `scale` means the same) and spread to the photo's."""
    height, width = image.shape[:2]
    factor = (REFERENCE_PX / (height * width)) ** 0.5
    if factor >= 1:
        return superpixels(image, scale=scale)
    from PIL import Image

    size = max(1, round(width * factor)), max(1, round(height * factor))
    segments = superpixels(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)), scale=scale)
    return np.asarray(Image.fromarray(segments).resize((width, height), Image.Resampling.NEAREST))


class _LastUsed:
    """A bounded memory of results by key; the least recently used one goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Any, np.ndarray] = OrderedDict()

    def get(self, key: Any, compute: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._items:
            self._items[key] = compute()
            if len(self._items) > self._size:
                self._items.popitem(last=False)
        self._items.move_to_end(key)
        return self._items[key]


__all__ = ["Refinement", "Tuner", "clean_regions", "refine", "superpixels", "vote"]
