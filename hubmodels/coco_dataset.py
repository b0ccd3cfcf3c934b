"""Photos and masks in files as a dataset in COCO's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hubmodels.coco import annotations_of, check_outlines
from hubmodels.errors import ImageError
from hubmodels.images import upright_size
from hubmodels.labels import LabelSet
from hubmodels.mask_search import Example
from hubmodels.masks import read_mask


def dataset(
    examples: Iterable[Example],
    label_set: LabelSet,
    *,
    failed: Callable[[str], None],
    polygons: bool = False,
    tolerance_px: float = 0.0,
) -> dict[str, Any]:
    """COCO's file of photos with masks; a photo that cannot be used is reported and left out.

    Args:
        examples: photos and masks, as of `find_examples`.
        label_set: what the masks show.
        failed: told the reason of each photo that is left out.
        polygons, tolerance_px: outlines instead of run lengths, as of `hubmodels.coco.annotations_of`.

    Returns:
        `images` with their sizes upright, as EXIF turns them and masks show them; `annotations` and `categories`.
        JSON-able.

    Raises:
        ImportError: pycocotools is not installed.
        ValueError: `tolerance_px` is below 0 or not finite, or given without `polygons`.
    """
    check_outlines(polygons=polygons, tolerance_px=tolerance_px)
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for example in examples:
        try:
            size = upright_size(example.photo)
            labels = read_mask(example.mask, label_set, size)
        except (ImageError, OSError) as error:
            failed(str(error))  # names the file
            continue
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": example.name, "width": size[1], "height": size[0]})
        for each in annotations_of(labels, label_set, polygons=polygons, tolerance_px=tolerance_px):
            found.append({"id": len(found) + 1, "image_id": image_id, **each})
    categories = [
        {"id": index, "name": name, "supercategory": label_set.task}
        for index, name in enumerate(label_set.names)
        if index
    ]
    return {"images": images, "annotations": found, "categories": categories}
