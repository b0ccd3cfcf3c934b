"""Decisions: one label per pixel from probabilities, or one per superpixel from all of its pixels."""

from __future__ import annotations

import math

import numpy as np

from hubmodels.refine.region_means import region_means

BAND_PIXELS = 1 << 16  # of which a cache holds two planes of probabilities and the labels
IDS_ALWAYS = 1 << 16  # ids of superpixels that any photo may have


def decide(probs: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """The most probable label, the lower id on a tie; with two labels, the second where it exceeds `threshold`.

    Args:
        probs: (C, ...) float probabilities, of pixels in one axis or more.
        threshold: 0..1; anything but 0.5, which is the argmax, needs two labels.

    Returns:
        (...) uint8 label ids.

    Raises:
        ValueError: more than 256 labels; a threshold out of range, or for another number of labels; a probability that
            is NaN or infinite.
    """
    if len(probs) > 256:
        raise ValueError(f"expected at most 256 labels, so that ids fit uint8; got {len(probs)}")
    check_finite(probs)
    if threshold == 0.5:
        return _most_probable(probs)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in 0..1; got {threshold}")
    if len(probs) != 2:
        raise ValueError(f"a threshold of {threshold} needs two labels; got {len(probs)}: leave it at 0.5")
    return (probs[1] > threshold).astype(np.uint8)


def check_finite(probs: np.ndarray) -> None:
    """Raise ValueError if any of `probs` is NaN or infinite: comparisons with NaN are false, so label 0 would win."""
    with np.errstate(invalid="ignore", over="ignore"):
        # One pass without copies: a sum is finite only if all of it is. That of float16 alone ends at 65,504.
        total = float(probs.sum(dtype=np.float32 if probs.dtype == np.float16 else None))
    if not math.isfinite(total):
        raise ValueError("probs must be finite numbers; got NaN or infinity: such pixels would become background")


def _most_probable(probs: np.ndarray) -> np.ndarray:
    """(...) uint8: the argmax over the first axis, plane by plane, as NumPy's own walks against the memory.

    In bands that the processor's cache holds: a large photo takes a quarter of the time so.
    """
    ids = np.zeros(probs.shape[1:], np.uint8)
    rows = max(1, BAND_PIXELS // max(1, math.prod(probs.shape[2:])))
    for top in range(0, probs.shape[1], rows):
        planes, chosen = probs[:, top : top + rows], ids[top : top + rows]
        best = np.array(planes[0])
        for label in range(1, len(planes)):
            np.copyto(chosen, np.uint8(label), where=planes[label] > best)
            np.maximum(best, planes[label], out=best)
    return ids


def vote(
    probs_or_labels: np.ndarray,
    segments: np.ndarray,
    *,
    weight: str = "probability",
    keep_confident: float = 0.0,
    threshold: float = 0.5,
) -> np.ndarray:
    """One label per superpixel, the lower id on a tie.

    Args:
        probs_or_labels: (C, H, W) float probabilities, or (H, W) uint8 label ids for a majority vote.
        segments: (H, W) int, ids from 0, some of which may be missing; below H * W, or 65,536 if that is more.
        weight: `probability` sums the probabilities of all pixels, so that sure pixels count more; `majority` counts
            the pixels of each label.
        keep_confident: pixels whose highest probability is at least this keep their own label; 0 is off.
        threshold: as for `decide`: of the mean probability, or before pixels are counted.

    Returns:
        (H, W) uint8 label ids.

    Raises:
        ValueError: sizes disagree, ids of segments out of range or no integers, more than 256 labels, an unknown
            weight, label ids where probabilities are needed, or a probability that is NaN or infinite.
    """
    with_probs = probs_or_labels.ndim == 3
    if probs_or_labels.shape[-2:] != segments.shape or probs_or_labels.ndim not in (2, 3):
        expected = f"(C, {segments.shape[0]}, {segments.shape[1]})"
        raise ValueError(f"probs must be {expected}, or label ids of the segments' size; got {probs_or_labels.shape}")
    _check_ids(segments)
    if weight not in ("probability", "majority"):
        raise ValueError(f"weight must be 'probability' or 'majority'; got {weight!r}")
    if not with_probs and (probs_or_labels.dtype != np.uint8 or weight != "majority" or keep_confident):
        raise ValueError(
            f"label ids must be uint8 and vote by weight='majority' without keep_confident; got "
            f"{probs_or_labels.dtype}, {weight!r}, {keep_confident}: pass probabilities (C, H, W)"
        )
    if not 0 <= keep_confident <= 1:
        raise ValueError(f"keep_confident must be in 0..1; got {keep_confident}")
    if weight == "probability":
        # Means of what is not finite are neither, so that `decide` refuses both.
        by_segment = decide(region_means(probs_or_labels, segments), threshold=threshold)
    else:
        own = decide(probs_or_labels, threshold=threshold) if with_probs else probs_or_labels
        by_segment = _most_frequent(own, segments)
    return keep_sure(by_segment[segments], probs_or_labels, keep_confident=keep_confident, threshold=threshold)


def keep_sure(voted: np.ndarray, probs: np.ndarray, *, keep_confident: float, threshold: float = 0.5) -> np.ndarray:
    """(H, W) uint8: `voted`, but sure pixels with their own label.

    Args:
        voted: (H, W) uint8 label ids.
        probs: (C, H, W) float probabilities; not looked at if `keep_confident` is 0.
        keep_confident: pixels whose highest probability is at least this are sure; 0 is off, and returns `voted`.
        threshold: as for `decide`.
    """
    if keep_confident == 0:
        return voted
    return np.where(probs.max(0) >= keep_confident, decide(probs, threshold=threshold), voted)


def _check_ids(segments: np.ndarray) -> None:
    """Raise ValueError unless ids can be counted; tables are as long as the largest."""
    if segments.dtype.kind not in "iu" or segments.size == 0:
        raise ValueError(f"segments must be (H, W) int region ids; got {segments.shape} {segments.dtype}")
    low, high = int(segments.min()), int(segments.max())
    most = max(segments.size, IDS_ALWAYS) - 1
    if low < 0 or high > most:
        raise ValueError(
            f"segments must have ids in 0..{most}; got {low}..{high}: "
            "renumber them with np.unique(segments, return_inverse=True)[1]"
        )


def _most_frequent(labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """(R,) uint8: the label of most pixels of each segment."""
    classes = int(labels.max()) + 1
    counts = np.bincount(segments.ravel().astype(np.int64) * classes + labels.ravel())
    counts = np.pad(counts, (0, -len(counts) % classes))
    return counts.reshape(-1, classes).argmax(1).astype(np.uint8)
