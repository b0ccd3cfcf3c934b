"""What a prediction is: labels and probabilities at the photo's own size, never changed after they are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hubmodels import export, render
from hubmodels.labels import LabelSet


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """Labels of one photo. Its arrays cannot be written to.

    Attributes:
        image: (H, W, 3) uint8 sRGB, the photo, upright.
        labels: (H, W) uint8 label ids, after every stage of refinement.
        probs: (C, H, W) float32, each pixel summing to 1 if they are a model's; clean-up stages act on `labels` alone.
        label_set: names, ids and palette.

    Raises:
        TypeError: no arrays.
        ValueError: shapes or dtypes disagree, there is no pixel, or a label id is out of range.
    """

    image: np.ndarray
    labels: np.ndarray
    probs: np.ndarray
    label_set: LabelSet

    def __post_init__(self) -> None:
        for name in ("image", "labels", "probs"):
            if not isinstance(getattr(self, name), np.ndarray):
                raise TypeError(f"{name} must be a NumPy array; got {type(getattr(self, name)).__name__}")
        shape, size = self.image.shape, self.image.shape[:2]
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or self.image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8; got {shape} {self.image.dtype}")
        if self.labels.shape != size or self.labels.dtype != np.uint8:
            raise ValueError(f"labels must be {size} uint8; got {self.labels.shape} {self.labels.dtype}")
        if self.probs.shape != (len(self.label_set), *size) or self.probs.dtype != np.float32:
            expected = (len(self.label_set), *size)
            raise ValueError(f"probs must be {expected} float32; got {self.probs.shape} {self.probs.dtype}")
        if int(self.labels.max()) >= len(self.label_set):
            raise ValueError(f"label id {self.labels.max()} is out of range 0..{len(self.label_set) - 1}")
        for name in ("image", "labels", "probs"):
            view = getattr(self, name).view()  # of one's own: the caller's arrays stay writable
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    def __reduce__(self) -> tuple[type[Segmentation], tuple[np.ndarray, np.ndarray, np.ndarray, LabelSet]]:
        """Copies and pickles are made anew, as arrays that are copied can be written to again."""
        return type(self), (self.image, self.labels, self.probs, self.label_set)

    def __repr__(self) -> str:
        """Size and areas: the arrays themselves would fill a screen."""
        height, width = self.labels.shape
        found = sorted(((area, name) for name, area in self.areas().items() if area), reverse=True)
        shares = ", ".join(f"{name} {100 * area:.1f} %" for area, name in found)
        return f"Segmentation({height}x{width} pixels: {shares})"

    def mask(self, name: str) -> np.ndarray:
        """(H, W) bool: where the label is `name`. Raises ValueError for a name that is not in `label_set`."""
        return self.labels == self.label_set.id_of(name)

    def areas(self) -> dict[str, float]:
        """Share of the photo's pixels per label, in id order; the shares sum to 1."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.label_set))
        return {name: float(n) / self.labels.size for name, n in zip(self.label_set.names, counts, strict=True)}

    def overlay(self, *, opacity: float = 0.55) -> Image.Image:
        """The photo with every label but the background tinted; `opacity` in 0..1."""
        return render.overlay(self.image, self.labels, self.label_set, opacity=opacity)

    def cutout(self, name: str, *, soft: bool = False) -> Image.Image:
        """RGBA image of the pixels labelled `name`, transparent elsewhere.

        Args:
            name: a label.
            soft: edges follow the photo and cover pixels in part, from which the colour of what lies behind is taken;
                else every pixel is there as it is, or not at all.

        Raises:
            ValueError: no such label.
        """
        return render.cutout(self.image, self.mask(name), soft=soft)

    def to_coco(self, *, polygons: bool = False, tolerance_px: float = 0.0) -> list[dict[str, Any]]:
        """Annotations in COCO's format, one for each label that the photo shows but the background.

        Args:
            polygons: outlines instead of run lengths, for programs that do not read these.
            tolerance_px: leave out corners of polygons as far as the outline stays so near to where it was, in pixels;
                0: exact.

        Returns:
            `category_id`, `segmentation`, run-length encoded or as a list of polygons, `area` and `bbox` in pixels,
            `iscrowd`; JSON-able. See `hubmodels.coco.annotations_of`; ids of images and annotations are the caller's
            to add.

        Raises:
            ImportError: pycocotools is not installed.
            ValueError: `tolerance_px` is below 0 or not finite, or given without `polygons`.
        """
        from hubmodels.coco import annotations_of

        return annotations_of(self.labels, self.label_set, polygons=polygons, tolerance_px=tolerance_px)

    def save(self, path: str | Path) -> Path:
        """Write the labels as an indexed PNG: pixel values are label ids, the palette is attached.

        Raises:
            ValueError: the suffix is not .png; other formats would change ids.
        """
        if Path(path).suffix.lower() != ".png":
            raise ValueError(f"labels are saved as .png, which keeps ids exact; got {Path(path).name!r}")
        return export.save_image(export.indexed_png(self.labels, self.label_set), path)
