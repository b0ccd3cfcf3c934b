"""Is one way of labelling better than another on other photos too? A paired bootstrap over the photos there are.

As many photos are drawn from them with replacement, the same for both ways, and each such set is scored as a split is
(Efron & Tibshirani 1993, chapter 16). The share of sets in which one is better says how much of the difference hangs on
single photos: near 0.5 it does all. That is one kind of luck alone: it knows nothing of how either was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hubmodels.metrics import Scores, iou_of, ratio

DRAWS = 10_000


@dataclass(frozen=True)
class PhotoScores:
    """What each of N photos adds to the scores of one way of labelling.

    Attributes:
        confusion: (N, C, C) pixel counts, rows are true labels, columns predicted ones.
        boundary_f: (N,) boundary F-measure; NaN for a photo without a boundary to judge.
    """

    confusion: np.ndarray
    boundary_f: np.ndarray

    @classmethod
    def of(cls, photos: Sequence[Scores]) -> PhotoScores:
        """Of the scores of each photo by itself."""
        return cls(np.stack([each.confusion for each in photos]), np.array([each.boundary_f for each in photos]))


def split_scores(photos: PhotoScores, counts: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Scores of splits made of these photos, as `Scores` has them, but for mIoU: the mean over labels with true pixels.

    A label that is only predicted costs those it replaces. Counted with an IoU of 0 as well, it would leave the mean of
    whatever predicts none of it, and so two ways of labelling the same photos would be judged by different labels.

    Args:
        photos: of N photos.
        counts: (D, N) how often each photo is in each of D splits; one split of all unless given.

    Returns:
        mIoU, pixel accuracy and boundary F-measure, each (D,); NaN where a split has nothing to judge.
    """
    n, classes, _ = photos.confusion.shape
    counts = np.ones((1, n), np.int64) if counts is None else counts
    confusion = (counts @ photos.confusion.reshape(n, -1)).reshape(-1, classes, classes)
    shown = confusion.sum(2)
    judged = ~np.isnan(photos.boundary_f)
    return {
        "miou": ratio(iou_of(confusion).sum(axis=1, where=shown > 0), (shown > 0).sum(1)),
        "pixel_accuracy": ratio(np.trace(confusion, axis1=1, axis2=2), confusion.sum((1, 2))),
        "boundary_f": ratio(counts[:, judged] @ photos.boundary_f[judged], counts[:, judged].sum(1)),
    }


def compare(
    new: PhotoScores, old: PhotoScores, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Score -> `new` and `old` on all photos, and the `share` of draws in which the new one is higher.

    Equal draws count half, so that what is compared with itself has 0.5. Draws in which there is nothing to judge do
    not count; None where there is nothing in any.

    Raises:
        ValueError: fewer than one draw, or the photos or labels of the two differ.
    """
    if draws < 1:
        raise ValueError(f"expected one draw or more; got {draws}")
    if not np.array_equal(new.confusion.sum(2), old.confusion.sum(2)):
        raise ValueError("expected scores of the same photos and labels, in one order; their true pixels differ")
    count = len(new.confusion)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    all_new, all_old = split_scores(new), split_scores(old)
    of_new, of_old = split_scores(new, drawn), split_scores(old, drawn)
    return {
        key: {
            "new": rounded(all_new[key][0], 5),
            "old": rounded(all_old[key][0], 5),
            "share": rounded(_share(of_new[key], of_old[key]), 4),
        }
        for key in all_new
    }


def rounded(value: float, digits: int) -> float | None:
    """A number as files hold it; None for NaN."""
    return None if np.isnan(value) else round(float(value), digits)


def _share(new: np.ndarray, old: np.ndarray) -> float:
    """Of draws in which both are judged, how many the first wins; NaN if there are none."""
    judged = ~(np.isnan(new) | np.isnan(old))
    wins = (new[judged] > old[judged]) + (new[judged] == old[judged]) / 2
    return float(ratio(wins.sum(), judged.sum()))
