"""Label maps as annotations of COCO (Lin et al. 2014): one for each label that a photo shows.

The package pycocotools of COCO's authors does the run-length encoding, and reads polygons back for areas and boxes.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from hubmodels.labels import LabelSet
from hubmodels.outlines import check_tolerance, polygons_of


def require_pycocotools() -> None:
    """Raise ImportError with the line that installs it where it is missing."""
    if importlib.util.find_spec("pycocotools") is None:
        raise ImportError("COCO's format needs pycocotools: pip install pycocotools")


def check_outlines(*, polygons: bool, tolerance_px: float) -> None:
    """Raise ValueError for a tolerance that is no distance, or that nothing would use."""
    check_tolerance(tolerance_px)
    if tolerance_px and not polygons:
        raise ValueError(f"tolerance_px is for polygons, run lengths are exact; got {tolerance_px} without polygons")


def annotations_of(
    labels: np.ndarray, label_set: LabelSet, *, polygons: bool = False, tolerance_px: float = 0.0
) -> list[dict[str, Any]]:
    """What COCO says of each label that occurs, but for the background, which is no category there.

    Args:
        labels: (H, W) uint8 label ids; ids that no label has, such as 255 for undecided, belong to none.
        label_set: the labels.
        polygons: write outlines instead of run lengths, which programs for annotation often do not read.
        tolerance_px: leave out corners of polygons as far as the outline stays so near to where it was, in pixels; 0:
            they cover exactly the pixels of the label. See `hubmodels.outlines.polygons_of`.

    Returns:
        In the order of ids: `category_id`, the label's id; `segmentation`: {"size": [H, W], "counts": text}, as
        `pycocotools.mask.decode` reads it, or a polygon [x, y, x, y, ...] for each part; `area` in pixels; `bbox`:
        [left, top, width, height] in pixels; `iscrowd`, 0. JSON-able.

    Raises:
        ImportError: pycocotools is not installed.
        ValueError: `tolerance_px` is below 0 or not finite, or given without `polygons`.
    """
    check_outlines(polygons=polygons, tolerance_px=tolerance_px)
    require_pycocotools()
    from pycocotools import mask

    found = []
    for index in np.unique(labels).tolist():
        if 0 < index < len(label_set):
            shown = labels == index
            segmentation: Any
            if polygons:
                segmentation = [each.ravel().tolist() for each in polygons_of(shown, tolerance_px=tolerance_px)]
                code = mask.merge(mask.frPyObjects(segmentation, *shown.shape))
            else:
                code = mask.encode(np.asfortranarray(shown, np.uint8))
                segmentation = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
            found.append(
                {
                    "category_id": index,
                    "segmentation": segmentation,
                    "area": int(mask.area(code)),
                    "bbox": mask.toBbox(code).tolist(),
                    "iscrowd": 0,
                }
            )
    return found
