"""The stages in their fixed order, each remembered by what it depends on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from hubmodels.refine.crf import DenseCRF, PreparedCRF, log_probabilities
from hubmodels.refine.regions import clean_regions
from hubmodels.refine.settings import REFERENCE_PX, Refinement
from hubmodels.refine.superpixels import superpixels, vote

KEPT_RESULTS = 4  # of each stage; a slider mostly goes back and forth between a few values
KEPT_CRF_STATES = 8


def refine(probs: np.ndarray, image: np.ndarray, settings: Refinement) -> tuple[np.ndarray, np.ndarray]:
    """Labels from probabilities, through the stages that `settings` turns on: CRF, superpixel vote, clean-up.

    Args:
        probs: (C, H, W) float32, each pixel summing to 1.
        image: (H, W, 3) uint8 sRGB, the photo.
        settings: what to do.

    Returns:
        (H, W) uint8 label ids and (C, H, W) float32 probabilities; with default settings the argmax of `probs`, and
        `probs` itself. The CRF changes both, the later stages the labels alone.

    Raises:
        ValueError: the sizes disagree.
    """
    return Tuner(probs, image).refine(settings)


class Tuner:
    """One photo's stages, so that a slider recomputes only what follows from it.

    Args:
        probs: (C, H, W) float32, the network's answer.
        image: (H, W, 3) uint8 sRGB.

    Memory beside both arrays, for 7 labels at 600x400: 27 MB of probabilities after the CRF, 5 MB of superpixels and
    votes, and, once the CRF was used, 85 MB of its own; the CRF works at 600,000 pixels at most.
    Safe to share between threads: stages run one at a time.
    """

    def __init__(self, probs: np.ndarray, image: np.ndarray) -> None:
        if probs.ndim != 3 or image.shape != (*probs.shape[1:], 3):
            raise ValueError(
                f"image must be (H, W, 3) with the size of probs (C, H, W); got {image.shape}, {probs.shape}"
            )
        self.probs, self.image = probs, image
        self._crf: PreparedCRF | None = None
        self._sharpened = LastUsed(KEPT_RESULTS)
        self._segments = LastUsed(KEPT_RESULTS)
        self._votes = LastUsed(KEPT_RESULTS)
        self._lock = threading.Lock()

    def refine(self, settings: Refinement) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) uint8 label ids and (C, H, W) float32 probabilities under `settings`."""
        with self._lock:
            probs = self._after_crf(int(settings.crf_iterations))
            labels = self._after_vote(probs, settings)
            size = round(settings.min_region_px * labels.size / REFERENCE_PX)
            return clean_regions(labels, min_region_px=size), probs

    def _after_crf(self, iterations: int) -> np.ndarray:
        if iterations == 0:
            return self.probs
        return self._sharpened.get(iterations, lambda: self._run_crf(iterations))

    @torch.inference_mode()
    def _run_crf(self, iterations: int) -> np.ndarray:
        if self._crf is None:
            logits = log_probabilities(torch.tensor(self.probs))
            self._crf = DenseCRF().prepare(logits, np.array(self.image), keep=KEPT_CRF_STATES)
        return self._crf.refine(iterations).softmax(0).numpy()

    def _after_vote(self, probs: np.ndarray, settings: Refinement) -> np.ndarray:
        scale = settings.superpixel_scale

        def compute() -> np.ndarray:
            if scale == 0:
                return probs.argmax(0).astype(np.uint8)
            return vote(probs, self._segments.get(scale, lambda: _segments_at_reference(self.image, scale)))

        return self._votes.get((settings.crf_iterations, scale), compute)


def _segments_at_reference(image: np.ndarray, scale: float) -> np.ndarray:
    """Superpixels found at no more than the reference size (so `scale` means the same) and spread to the photo's."""
    height, width = image.shape[:2]
    factor = (REFERENCE_PX / (height * width)) ** 0.5
    if factor >= 1:
        return superpixels(image, scale=scale)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    segments = superpixels(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)), scale=scale)
    return np.asarray(Image.fromarray(segments).resize((width, height), Image.Resampling.NEAREST))


class LastUsed:
    """A bounded memory of results by key; the least recently used one goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Any, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Any, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """What is remembered under `key`, else what `compute` returns."""
        if key not in self._items:
            self._items[key] = compute()
            if len(self._items) > self._size:
                self._items.popitem(last=False)
        self._items.move_to_end(key)
        return self._items[key]
