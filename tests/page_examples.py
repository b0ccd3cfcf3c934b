"""What tests of the page have in common: two models, settings that use every stage, and results that are drawn."""

from __future__ import annotations

import numpy as np

from hubmodels import FASHION, LabelSet, Refinement, Segmentation

CLOTHES, PEOPLE = "deeplabv3plus_fashion", "deeplabv3plus_person"
TUNED = Refinement(crf_iterations=2, superpixel_scale=60, keep_confident=0.9, min_region_px=200, keep_largest=True)


def drawn(labels: np.ndarray, label_set: LabelSet = FASHION) -> Segmentation:
    """A grey photo with these labels."""
    probs = np.full((len(label_set), *labels.shape), 0.0, np.float32)
    return Segmentation(np.full((*labels.shape, 3), 100, np.uint8), labels, probs, label_set)
