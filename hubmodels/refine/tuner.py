"""The stages in their fixed order, each remembered by what it depends on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hubmodels.errors import RegionsError
from hubmodels.refine.crf import SUM_TOLERANCE, DenseCRF
from hubmodels.refine.mean_field import Unaries
from hubmodels.refine.memory import LastUsed
from hubmodels.refine.merge import RegionGraph
from hubmodels.refine.photo_kernels import PhotoKernels
from hubmodels.refine.prepared_crf import PreparedCRF
from hubmodels.refine.region_classifier import RegionClassifier
from hubmodels.refine.regions import clean_regions
from hubmodels.refine.settings import REFERENCE_PX, Refinement, checked_settings
from hubmodels.refine.stopwatch import Stopwatch
from hubmodels.refine.superpixels import PreparedSuperpixels
from hubmodels.refine.vote import check_finite, decide, keep_sure, vote

KEPT_RESULTS = 4  # of each stage; a slider mostly goes back and forth between a few values
KEPT_CRF_STATES = 8
MERGEABLE = 40_000  # superpixels; hierarchical and kmeans may take seconds for so many, and far more beyond


def refine(probs: np.ndarray, image: np.ndarray, settings: Refinement) -> tuple[np.ndarray, np.ndarray]:
    """Labels from probabilities, through the stages that `settings` turns on: CRF, superpixel vote, clean-up.

    Args:
        probs: (C, H, W) float32, each pixel summing to 1; another float type is turned into it.
        image: (H, W, 3) uint8 sRGB, the photo.
        settings: what to do.

    Returns:
        (H, W) uint8 label ids and (C, H, W) float32 probabilities; with default settings the argmax of `probs`, and
        `probs` itself if float32. The CRF changes both, the later stages the labels alone. New arrays are the
        caller's to write to.

    Raises:
        TypeError: no settings.
        ValueError: the sizes disagree, or `probs` are not finite, not in 0..1, or do not sum to 1 within 1e-3.
    """
    checked_settings(settings)
    # This tuner is thrown away, so its arrays are shared with nobody and may stay writable.
    return Tuner(probs, image)._refine(settings)


class Tuner:
    """One photo's stages, so that a slider recomputes only what follows from it.

    Args:
        probs: (C, H, W) float32, the network's answer, each pixel summing to 1; another float type is turned into it.
        image: (H, W, 3) uint8 sRGB. Both are used as they are, as photos are large: leave them unchanged meanwhile.
        region_classifier: returns the trained classifier for `vote="classifier"`; None: that vote is refused.
        checked: the values of `probs` are known to be probabilities, as after a softmax, and are not looked at again.

    Memory beside both arrays, for 7 labels at 600x400: 27 MB of probabilities after the CRF, 30 MB of superpixels,
    their graph and votes, and, once the CRF was used, 90 MB of its own; the CRF works at 600,000 pixels at most,
    superpixels at 240,000. Safe to share between threads: stages run one at a time. Results are read-only, as later
    calls may return them too. Copies and pickles start with nothing remembered.

    Raises:
        ValueError: the sizes disagree, or `probs` are not finite, not in 0..1, or do not sum to 1 within 1e-3.
    """

    def __init__(
        self,
        probs: np.ndarray,
        image: np.ndarray,
        *,
        region_classifier: Callable[[], RegionClassifier] | None = None,
        checked: bool = False,
    ) -> None:
        _check_arrays(probs, image)
        own = np.asarray(probs, np.float32)
        if not checked:
            _check_distribution(own)
        self._begin(own, image, region_classifier)

    def __getstate__(self) -> dict[str, Any]:
        """What it was made of: a lock is of one process, and what is remembered can be computed again."""
        return {"probs": self._probs, "image": self.image, "region_classifier": self._region_classifier}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(**state)

    def _begin(
        self, probs: np.ndarray, image: np.ndarray, region_classifier: Callable[[], RegionClassifier] | None
    ) -> None:
        self._probs, self.probs, self.image = probs, _read_only(probs), image
        self._region_classifier = region_classifier
        self._left_out = _zero_everywhere(probs)
        # What only prepares a stage is heavy, and a slider leaves it alone: one of each.
        self._unaries: LastUsed[Unaries] = LastUsed(1)
        self._kernels: LastUsed[PhotoKernels] = LastUsed(1)
        self._crfs: LastUsed[PreparedCRF] = LastUsed(1)
        self._prepared: LastUsed[PreparedSuperpixels] = LastUsed(1)
        self._graphs: LastUsed[RegionGraph] = LastUsed(1)
        # Results of the stages: probabilities, ids of superpixels, ids after merging, labels, labels after clean-up.
        self._sharpened: LastUsed[np.ndarray] = LastUsed(KEPT_RESULTS)
        self._segments: LastUsed[np.ndarray] = LastUsed(KEPT_RESULTS)
        self._merged: LastUsed[np.ndarray] = LastUsed(KEPT_RESULTS)
        self._votes: LastUsed[np.ndarray] = LastUsed(KEPT_RESULTS)
        self._cleaned: LastUsed[np.ndarray] = LastUsed(KEPT_RESULTS)
        self._lock = threading.Lock()
        self._watch = Stopwatch()

    def for_probs(self, probs: np.ndarray) -> Tuner:
        """A tuner of the same photo for other probabilities, (C, H, W) float32; it starts with nothing remembered."""
        return Tuner(probs, self.image, region_classifier=self._region_classifier, checked=True)

    def refine(self, settings: Refinement) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) uint8 label ids and (C, H, W) float32 probabilities under `settings`.

        A label whose probability is 0 everywhere stays out: no stage brings it in.

        Raises:
            TypeError: no settings.
            ValueError: a person threshold for other than two labels, or a vote by classifier without one.
            RegionsError: more than `MERGEABLE` superpixels to merge by other than `cut`.
        """
        labels, probs, _ = self.refine_timed(settings)
        return labels, probs

    def refine_timed(self, settings: Refinement) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """`refine`, with the seconds of each stage that ran: crf, superpixels, merge, vote, clean-up.

        A stage whose result was remembered did not run, and is not there.
        """
        checked_settings(settings)
        with self._lock:
            self._watch = Stopwatch()
            labels, probs = self._refine(settings)
            return _read_only(labels), _read_only(probs), dict(self._watch.seconds)

    def superpixels(self, settings: Refinement) -> np.ndarray:
        """(H, W) int32 ids from 0 of the superpixels that vote under `settings`, merged if that is turned on.

        Raises:
            ValueError: `settings` have no superpixels.
            RegionsError: as of `refine`.
        """
        if checked_settings(settings).superpixel_scale == 0:
            raise ValueError("superpixel_scale is 0, which is off; expected a positive scale")
        with self._lock:
            self._watch = Stopwatch()
            return _read_only(self._regions(self._after_crf(settings), settings))

    def _refine(self, settings: Refinement) -> tuple[np.ndarray, np.ndarray]:
        """`refine` with the arrays themselves that are remembered, by one thread at a time."""
        probs = self._after_crf(settings)
        voted = self._votes.get(_vote_key(settings), lambda: self._decide(probs, settings))
        return self._after_cleaning(voted, settings), probs

    def _after_crf(self, settings: Refinement) -> np.ndarray:
        if settings.crf_iterations == 0:
            return self._probs
        return self._sharpened.get(_crf_key(settings), lambda: self._run_crf(settings))

    def _run_crf(self, settings: Refinement) -> np.ndarray:
        with self._watch.stage("crf"):
            return self._sharpen(settings)

    @torch.inference_mode()
    def _sharpen(self, settings: Refinement) -> np.ndarray:
        def prepare() -> PreparedCRF:
            crf = DenseCRF(
                appearance_weight=settings.crf_appearance_weight,
                appearance_sigma_px=settings.crf_appearance_sigma_px,
                appearance_sigma_colour=settings.crf_appearance_sigma_colour,
                smoothness_weight=settings.crf_smoothness_weight,
                smoothness_sigma_px=settings.crf_smoothness_sigma_px,
            )
            reach = (crf.appearance_sigma_px, crf.appearance_sigma_colour, crf.smoothness_sigma_px)
            kernels = self._kernels.get(reach, lambda: crf.photo(self._channels_first()))
            unaries = self._unaries.get((), lambda: crf.unaries_of_probs(_as_tensor(self._probs), checked=True))
            return crf.prepare(unaries, kernels, keep=KEPT_CRF_STATES)

        crf = self._crfs.get(_crf_preparation_key(settings), prepare)
        probs = crf.refine_probs(int(settings.crf_iterations)).numpy()
        probs[self._left_out] = 0  # for the CRF, which takes logarithms, a zero is a small number
        return probs

    def _channels_first(self) -> torch.Tensor:
        """(3, H, W) uint8: as it is, the CRF would take a photo of 3 pixels' height for channels first already."""
        return _as_tensor(self.image).permute(2, 0, 1)

    def _decide(self, probs: np.ndarray, settings: Refinement) -> np.ndarray:
        """Labels from probabilities, by pixel or by superpixel."""
        with self._watch.stage("vote"):
            return self._elect(probs, settings)

    def _elect(self, probs: np.ndarray, settings: Refinement) -> np.ndarray:
        threshold = settings.person_threshold
        if settings.superpixel_scale == 0:
            return decide(probs, threshold=threshold)
        segments = self._regions(probs, settings)
        if settings.vote != "classifier":
            return vote(
                probs, segments, weight=settings.vote, keep_confident=settings.keep_confident, threshold=threshold
            )
        if self._region_classifier is None:
            raise ValueError("vote 'classifier' needs a model with a region classifier: choose another vote")
        voted = self._region_classifier().vote(self.image, segments, probs)
        return keep_sure(voted, probs, keep_confident=settings.keep_confident, threshold=threshold)

    def _regions(self, probs: np.ndarray, settings: Refinement) -> np.ndarray:
        """(H, W) int32: superpixels, merged if that is turned on."""
        key = _superpixel_key(settings)
        segments = self._segments.get(key, lambda: self._cut(probs, settings))
        if settings.merge == "off":
            return segments

        def graph() -> RegionGraph:
            outside = np.arange(segments.max() + 1) == 0 if self._foreground(probs, settings) is not None else None
            return RegionGraph(segments, self.image, keep_apart=outside)

        def merge() -> np.ndarray:
            if settings.merge != "cut" and (count := int(segments.max()) + 1) > MERGEABLE:
                raise RegionsError(
                    f"merge {settings.merge!r} takes at most {MERGEABLE:,} superpixels; got {count:,}: raise "
                    "superpixel_scale, superpixel_sigma or superpixel_min_size_px, or merge by 'cut'"
                )
            with self._watch.stage("merge"):
                regions = self._graphs.get(key, graph)
                if settings.merge == "kmeans":
                    new_ids = regions.kmeans(int(settings.merge_clusters))
                elif settings.merge == "hierarchical":
                    new_ids = regions.hierarchical(settings.merge_threshold)
                else:
                    new_ids = regions.cut(settings.merge_threshold)
                return new_ids.astype(np.int32)[segments]

        return self._merged.get((*key, *_merge_key(settings)), merge)

    def _cut(self, probs: np.ndarray, settings: Refinement) -> np.ndarray:
        def prepare() -> PreparedSuperpixels:
            method, sigma = settings.superpixel_method, settings.superpixel_sigma
            return PreparedSuperpixels(self.image, method=method, sigma=sigma, mask=self._foreground(probs, settings))

        with self._watch.stage("superpixels"):
            prepared = self._prepared.get(_preparation_key(settings), prepare)
            return prepared.segments(settings.superpixel_scale, int(settings.superpixel_min_size_px))

    def _foreground(self, probs: np.ndarray, settings: Refinement) -> np.ndarray | None:
        """(H, W) bool: what is cut into superpixels; None for all of the photo."""
        if not settings.superpixel_foreground:
            return None
        foreground = decide(probs, threshold=settings.person_threshold) > 0
        return None if foreground.all() else foreground

    def _after_cleaning(self, voted: np.ndarray, settings: Refinement) -> np.ndarray:
        grown = voted.size / REFERENCE_PX

        def compute() -> np.ndarray:
            with self._watch.stage("clean-up"):
                return clean_regions(
                    voted,
                    min_region_px=round(settings.min_region_px * grown),
                    fill_holes_px=round(settings.fill_holes_px * grown),
                    keep_largest=settings.keep_largest,
                    connectivity=settings.connectivity,
                )

        cleaning = (settings.min_region_px, settings.fill_holes_px, settings.keep_largest, settings.connectivity)
        return self._cleaned.get((*_vote_key(settings), *cleaning), compute)


def _check_arrays(probs: np.ndarray, image: np.ndarray) -> None:
    """Raise ValueError unless both are arrays of the right kind and of one size; values come later."""
    if not (isinstance(probs, np.ndarray) and isinstance(image, np.ndarray)):
        got = f"{type(probs).__name__} and {type(image).__name__}"
        raise ValueError(f"probs and image must be NumPy arrays; got {got}: use numpy.asarray")
    if probs.ndim != 3 or image.shape != (*probs.shape[1:], 3) or probs.size == 0:
        raise ValueError(
            "image must be (H, W, 3) with the size of probs (C, H, W), none of them 0; got "
            f"{image.shape}, {probs.shape}"
        )
    if not np.issubdtype(probs.dtype, np.floating):
        raise ValueError(f"probs must be floating-point shares in 0..1; got {probs.dtype}")
    if image.dtype != np.uint8:
        raise ValueError(
            f"image must be uint8 sRGB; got {image.dtype}: multiply shares of 1 by 255, and convert by astype('uint8')"
        )


def _zero_everywhere(probs: np.ndarray) -> list[int]:
    """Labels of (C, H, W) probabilities that no pixel has; all pixels are looked at only where the first is 0."""
    return [label for label in np.flatnonzero(probs[:, 0, 0] == 0).tolist() if not probs[label].any()]


def _check_distribution(probs: np.ndarray) -> None:
    """Raise ValueError unless probs (C, H, W) are probabilities, in 4 bytes a pixel: photos are large."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = probs.sum(0)
    check_finite(total)  # a sum is finite only if all of it is
    low, high, least = float(total.min()), float(total.max()), float(probs.min())
    if least < 0 or max(1 - low, high - 1) >= SUM_TOLERANCE:
        raise ValueError(
            f"probs must be in 0..1 and sum to 1 over axis 0; got {least:g} to {probs.max():g}, sums {low:g} to "
            f"{high:g}: apply softmax over classes"
        )


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view of one's own: whose array it is may go on writing to it."""
    view = array.view()
    view.flags.writeable = False
    return view


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the array's own memory if that can be; views that are flipped or read-only are copied."""
    plain = array.flags.c_contiguous and array.flags.writeable and min(array.strides) > 0
    return torch.from_numpy(array if plain else np.array(array, order="C"))


def _crf_key(settings: Refinement) -> tuple[Any, ...]:
    """What the probabilities depend on."""
    if settings.crf_iterations == 0:
        return (0,)
    return (settings.crf_iterations, *_crf_preparation_key(settings))


def _crf_preparation_key(settings: Refinement) -> tuple[Any, ...]:
    """What a CRF depends on, however many iterations it runs."""
    return (
        settings.crf_appearance_weight,
        settings.crf_appearance_sigma_px,
        settings.crf_appearance_sigma_colour,
        settings.crf_smoothness_weight,
        settings.crf_smoothness_sigma_px,
    )


def _superpixel_key(settings: Refinement) -> tuple[Any, ...]:
    """What superpixels depend on."""
    return (settings.superpixel_scale, settings.superpixel_min_size_px, *_preparation_key(settings))


def _preparation_key(settings: Refinement) -> tuple[Any, ...]:
    """What superpixels of any scale and smallest size depend on."""
    foreground = (*_crf_key(settings), settings.person_threshold) if settings.superpixel_foreground else ()
    return (settings.superpixel_method, settings.superpixel_sigma, *foreground)


def _merge_key(settings: Refinement) -> tuple[Any, ...]:
    """What merging depends on, beside the superpixels."""
    if settings.merge == "off":
        return ("off",)
    return (settings.merge, settings.merge_clusters if settings.merge == "kmeans" else settings.merge_threshold)


def _vote_key(settings: Refinement) -> tuple[Any, ...]:
    """What the labels before clean-up depend on."""
    key = (*_crf_key(settings), settings.person_threshold)
    if settings.superpixel_scale == 0:
        return key
    return (*key, *_superpixel_key(settings), *_merge_key(settings), settings.vote, settings.keep_confident)
