"""Label maps as annotations of COCO (Lin et al. 2014): one for each label that a photo shows, run-length encoded.

The package pycocotools of COCO's authors does the encoding.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from hubmodels.labels import LabelSet


def require_pycocotools() -> None:
    """Raise ImportError with the line that installs it where it is missing."""
    if importlib.util.find_spec("pycocotools") is None:
        raise ImportError("COCO's format needs pycocotools: pip install pycocotools")


def annotations_of(labels: np.ndarray, label_set: LabelSet) -> list[dict[str, Any]]:
    """What COCO says of each label that occurs, but for the background, which is no category there.

    Args:
        labels: (H, W) uint8 label ids; ids that no label has, such as 255 for undecided, belong to none.
        label_set: the labels.

    Returns:
        In the order of ids: `category_id`, the label's id; `segmentation`: {"size": [H, W], "counts": text}, as
        `pycocotools.mask.decode` reads it; `area` in pixels; `bbox`: [left, top, width, height] in pixels; `iscrowd`,
        0. JSON-able.

    Raises:
        ImportError: pycocotools is not installed.
    """
    require_pycocotools()
    from pycocotools import mask

    found = []
    for index in np.unique(labels).tolist():
        if 0 < index < len(label_set):
            code = mask.encode(np.asfortranarray(labels == index, np.uint8))
            found.append(
                {
                    "category_id": index,
                    "segmentation": {"size": list(code["size"]), "counts": code["counts"].decode("ascii")},
                    "area": int(mask.area(code)),
                    "bbox": mask.toBbox(code).tolist(),
                    "iscrowd": 0,
                }
            )
    return found
