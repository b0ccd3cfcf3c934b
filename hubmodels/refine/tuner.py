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
from hubmodels.refine.superpixels import superpixels
from hubmodels.refine.vote import decide, vote

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
    Safe to share between threads: stages run one at a time. Results are read-only, as later calls may return them too.
    """

    def __init__(self, probs: np.ndarray, image: np.ndarray) -> None:
        if probs.ndim != 3 or image.shape != (*probs.shape[1:], 3):
            raise ValueError(
                f"image must be (H, W, 3) with the size of probs (C, H, W); got {image.shape}, {probs.shape}"
            )
        self.probs, self.image = probs, image
        self._kernels, self._crfs = LastUsed(1), LastUsed(1)  # the heaviest: one set of reaches and one of weights
        self._sharpened = LastUsed(KEPT_RESULTS)
        self._segments = LastUsed(KEPT_RESULTS)
        self._votes = LastUsed(KEPT_RESULTS)
        self._cleaned = LastUsed(KEPT_RESULTS)
        self._lock = threading.Lock()

    def refine(self, settings: Refinement) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) uint8 label ids and (C, H, W) float32 probabilities under `settings`."""
        with self._lock:
            probs = self._after_crf(settings)
            voted = self._after_vote(probs, settings)
            return self._after_cleaning(voted, settings), probs

    def _after_crf(self, settings: Refinement) -> np.ndarray:
        if settings.crf_iterations == 0:
            return self.probs
        return self._sharpened.get(_crf_key(settings), lambda: self._run_crf(settings))

    @torch.inference_mode()
    def _run_crf(self, settings: Refinement) -> np.ndarray:
        def prepare() -> PreparedCRF:
            crf = DenseCRF(
                appearance_weight=settings.crf_appearance_weight,
                appearance_sigma_px=settings.crf_appearance_sigma_px,
                appearance_sigma_colour=settings.crf_appearance_sigma_colour,
                smoothness_weight=settings.crf_smoothness_weight,
                smoothness_sigma_px=settings.crf_smoothness_sigma_px,
            )
            reach = (crf.appearance_sigma_px, crf.appearance_sigma_colour, crf.smoothness_sigma_px)
            kernels = self._kernels.get(reach, lambda: crf.photo(np.array(self.image)))
            return crf.prepare(log_probabilities(torch.tensor(self.probs)), kernels, keep=KEPT_CRF_STATES)

        crf = self._crfs.get(_crf_key(settings)[1:], prepare)
        return crf.refine(int(settings.crf_iterations)).softmax(0).numpy()

    def _after_vote(self, probs: np.ndarray, settings: Refinement) -> np.ndarray:
        scale, threshold = settings.superpixel_scale, settings.person_threshold

        def compute() -> np.ndarray:
            if scale == 0:
                return decide(probs, threshold=threshold)
            segments = self._segments.get(scale, lambda: _segments_at_reference(self.image, scale))
            return vote(
                probs, segments, weight=settings.vote, keep_confident=settings.keep_confident, threshold=threshold
            )

        return self._votes.get(_vote_key(settings), compute)

    def _after_cleaning(self, voted: np.ndarray, settings: Refinement) -> np.ndarray:
        grown = voted.size / REFERENCE_PX

        def compute() -> np.ndarray:
            return clean_regions(
                voted,
                min_region_px=round(settings.min_region_px * grown),
                fill_holes_px=round(settings.fill_holes_px * grown),
                keep_largest=settings.keep_largest,
                connectivity=settings.connectivity,
            )

        cleaning = (settings.min_region_px, settings.fill_holes_px, settings.keep_largest, settings.connectivity)
        return self._cleaned.get((*_vote_key(settings), *cleaning), compute)


def _crf_key(settings: Refinement) -> tuple[Any, ...]:
    """What the probabilities depend on."""
    if settings.crf_iterations == 0:
        return (0,)
    return (
        settings.crf_iterations,
        settings.crf_appearance_weight,
        settings.crf_appearance_sigma_px,
        settings.crf_appearance_sigma_colour,
        settings.crf_smoothness_weight,
        settings.crf_smoothness_sigma_px,
    )


def _vote_key(settings: Refinement) -> tuple[Any, ...]:
    """What the labels before clean-up depend on."""
    key = (*_crf_key(settings), settings.person_threshold, settings.superpixel_scale)
    return key if settings.superpixel_scale == 0 else (*key, settings.vote, settings.keep_confident)


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
    """A bounded memory of results by key; the least recently used one goes first. Arrays in it become read-only."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Any, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What is remembered under `key`, else what `compute` returns."""
        if key not in self._items:
            while len(self._items) >= self._size:
                self._items.popitem(last=False)  # before the next is made, so that both are never held at once
            self._items[key] = compute()
            if isinstance(self._items[key], np.ndarray):
                self._items[key].flags.writeable = False
        self._items.move_to_end(key)
        return self._items[key]
