"""Photos and masks in files as a dataset in COCO's format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hubmodels.coco import annotations_of, check_outlines
from hubmodels.labelled_photos import LabelledPhoto
from hubmodels.labels import LabelSet


def dataset(
    photos: Iterable[LabelledPhoto], label_set: LabelSet, *, polygons: bool = False, tolerance_px: float = 0.0
) -> dict[str, Any]:
    """COCO's file of photos with masks.

    Args:
        photos: as of `labelled`.
        label_set: what the masks show.
        polygons, tolerance_px: outlines instead of run lengths, as of `hubmodels.coco.annotations_of`.

    Returns:
        `images` with their sizes, `annotations` and `categories`; JSON-able.

    Raises:
        ImportError: pycocotools is not installed.
        ValueError: `tolerance_px` is below 0 or not finite, or given without `polygons`.
    """
    check_outlines(polygons=polygons, tolerance_px=tolerance_px)
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for name, labels in photos:
        height, width = labels.shape
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for each in annotations_of(labels, label_set, polygons=polygons, tolerance_px=tolerance_px):
            found.append({"id": len(found) + 1, "image_id": image_id, **each})
    categories = [
        {"id": index, "name": name, "supercategory": label_set.task}
        for index, name in enumerate(label_set.names)
        if index
    ]
    return {"images": images, "annotations": found, "categories": categories}
