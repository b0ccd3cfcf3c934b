"""Post-processing chosen on one's own photos: many settings are tried, and what they gain is told without flattery.

The best of hundreds of settings looks better on the photos it was chosen on than it is. So the gain is measured on
photos that had no say: in turn, a part of them is scored with the settings that are best on all others
(cross-validation), and a paired bootstrap of those scores says how sure the gain is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubmodels.bootstrap import PhotoScores, compare, rounded, split_scores
from hubmodels.errors import ImageError, RegionsError
from hubmodels.images import WORK_PX, fit_within, read_image
from hubmodels.labels import LabelSet
from hubmodels.mask_search import Example
from hubmodels.masks import read_mask
from hubmodels.metrics import Scores, iou_of
from hubmodels.refine import Refinement

if TYPE_CHECKING:
    from hubmodels.segmenter import Segmenter

FOLDS = 10  # parts of the photos, each scored with the settings chosen on the others
SHARE = 0.9  # of draws in which chosen settings must be better than none, to be taken


def crf_grid() -> Iterator[dict[str, Any]]:
    """Settings of the CRF in a grid as DeepLab's (Chen et al. 2016: smoothness fixed at weight 3, reach 3 px), coarser.

    Reaches vary slowest, as they cost most to change, and iterations fastest, as they are kept.
    """
    grid = itertools.product((30.0, 80.0), (3.0, 5.0, 10.0), (1.5, 3.0, 10.0), (2, 5, 10))
    for reach, colour, weight, count in grid:
        yield {
            "crf_iterations": count,
            "crf_appearance_sigma_px": reach,
            "crf_appearance_sigma_colour": colour,
            "crf_appearance_weight": weight,
        }


def candidates(labels: LabelSet) -> list[Refinement]:
    """What is tried: nothing, the CRF in a grid, clean-up on top of each, votes of superpixels, and thresholds."""
    cleaning: list[dict[str, Any]] = [
        {},
        {"min_region_px": 50},
        {"min_region_px": 200},
        {"min_region_px": 400},
        {"min_region_px": 200, "fill_holes_px": 400},
        {"min_region_px": 200, "fill_holes_px": 400, "keep_largest": True},
    ]
    sharpened = [{}, *crf_grid()]
    votes = [
        {"superpixel_scale": scale, "keep_confident": sure}
        for scale, sure in itertools.product((30.0, 60.0, 120.0), (0.0, 0.9))
    ]
    every = [{**crf, **clean} for crf, clean in itertools.product(sharpened, cleaning)] + votes
    if len(labels) == 2:
        every += [{"person_threshold": threshold} for threshold in (0.3, 0.4, 0.6, 0.7)]
    return [Refinement(**each) for each in every]


def try_settings(
    model: Segmenter, example: Example, settings: Sequence[Refinement], *, absent: Collection[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Score every one of some settings on a photo with its mask, `absent` labels left out of every answer.

    Returns:
        (K, C, C) int64 confusion matrices and (K,) boundary F-measures, NaN where there is no boundary to judge.

    Raises:
        ImageError: photo or mask cannot be read, or do not belong together; with the name of the file.
        RegionsError, OSError: as of `Segmenter.predict`.
    """
    photo = read_image(example.photo)
    height, width = photo.shape[:2]
    image = fit_within(photo, WORK_PX)
    out_size = (image.shape[0], image.shape[1])
    truth = read_mask(example.mask, model.labels, (height, width), out_size=out_size)
    tuner, count = model.tune(image, absent=absent), len(model.labels)
    scores = [Scores.of_photo(truth, tuner.refine(each).labels, num_classes=count) for each in settings]
    return np.stack([each.confusion for each in scores]), np.array([each.boundary_f for each in scores])


@dataclass(frozen=True)
class Trials:
    """Scores of K settings on each of P photos.

    Attributes:
        settings: the first is none: no post-processing.
        confusion: (K, P, C, C) pixel counts, rows are true labels, columns predicted ones.
        boundary_f: (K, P) boundary F-measures; NaN for a photo without a boundary to judge.
    """

    settings: Sequence[Refinement]
    confusion: np.ndarray
    boundary_f: np.ndarray

    def of(self, index: int) -> PhotoScores:
        """The scores of one of the settings."""
        return PhotoScores(self.confusion[index], self.boundary_f[index])

    def rows(self) -> list[dict[str, Any]]:
        """For each of the settings those that are not default, and its scores on all photos; JSON-able."""
        return [{"settings": each.changes(), **_summary(self.of(index))} for index, each in enumerate(self.settings)]

    def best(self, photos: np.ndarray | None = None) -> int:
        """The settings with the highest mIoU on some photos, or all; of equals those that change least."""
        total = self.confusion.sum(1) if photos is None else self.confusion[:, photos].sum(1)
        whole = PhotoScores(total, np.full(len(total), np.nan))
        miou = split_scores(whole, np.eye(len(total), dtype=np.int64))["miou"]
        if np.isnan(miou).all():  # nothing is decided on these photos
            return 0
        return min(np.flatnonzero(miou == np.nanmax(miou)).tolist(), key=lambda i: len(self.settings[i].changes()))

    def cross_validated(self) -> PhotoScores:
        """Every photo scored with the settings that are best on the photos of other parts.

        Parts are neighbours in the order of the photos, as such are often of one person or place.
        """
        count = self.confusion.shape[1]
        confusion, boundary_f = np.empty_like(self.confusion[0]), np.empty_like(self.boundary_f[0])
        for part in np.array_split(np.arange(count), min(FOLDS, count)):
            index = self.best(np.setdiff1d(np.arange(count), part))
            confusion[part], boundary_f[part] = self.confusion[index, part], self.boundary_f[index, part]
        return PhotoScores(confusion, boundary_f)


def measure(
    model: Segmenter,
    examples: Iterable[Example],
    settings: Sequence[Refinement],
    *,
    failed: Callable[[str], None],
    absent: Collection[str] = (),
) -> Trials:
    """Try all settings on all examples; a photo that cannot be used is reported and left out.

    Args:
        model: labels the photos.
        examples: as of `find_examples`.
        settings: what to try; "none" is tried first in any case.
        failed: told the reason of each photo that is left out.
        absent: labels that no photo shows.

    Raises:
        ValueError: fewer than two photos are left: none could be scored with settings chosen on others.
    """
    settings = list(dict.fromkeys([Refinement(), *settings]))
    scored = []
    for example in examples:
        try:
            scored.append(try_settings(model, example, settings, absent=absent))
        except (ImageError, RegionsError, OSError) as error:
            failed(str(error) if str(example.photo) in str(error) else f"{example.photo}: {error}")
    if len(scored) < 2:
        raise ValueError(f"expected two photos with masks, and better twenty or more; got {len(scored)} to learn from")
    return Trials(settings, np.stack([c for c, _ in scored], axis=1), np.stack([b for _, b in scored], axis=1))


def conclude(trials: Trials, labels: LabelSet, *, share: float = SHARE) -> dict[str, Any]:
    """What the trials say, JSON-able: which settings to take, and what they gain.

    Args:
        trials: of `measure`.
        labels: what the model labels.
        share: of draws in which the mIoU of cross-validated settings must be above that of none for `taken`.

    Returns:
        photos, settings_tried; `best`: the settings that are not default in the best; `taken`: whether they are to be
        taken; `scores`: of `none`, `best` on the very photos it was chosen on, and `cross_validated`; `share`: of
        10,000 draws in which the last is above none; `iou`: label -> (none, best); `absent`: labels that no photo
        shows, which mIoU leaves out; `vanished`: labels of which the best leaves less than half of the pixels that none
        has.
    """
    index = trials.best()
    none, best, validated = trials.of(0), trials.of(index), trials.cross_validated()
    sure = compare(validated, none)["miou"]["share"]
    iou = {name: [_iou(row, which) for row in (none, best)] for which, name in enumerate(labels.names)}
    left = [each.confusion.sum((0, 1)) for each in (none, best)]
    shown = none.confusion.sum((0, 2))
    return {
        "photos": len(none.confusion),
        "settings_tried": len(trials.settings),
        "best": trials.settings[index].changes(),
        "taken": bool(index and sure is not None and sure >= share),
        "scores": {
            name: _summary(scores) for name, scores in (("none", none), ("best", best), ("cross_validated", validated))
        },
        "share": sure,
        "iou": iou,
        "absent": [name for which, name in enumerate(labels.names) if not shown[which]],
        "vanished": [name for which, name in enumerate(labels.names) if 2 * left[1][which] < left[0][which]],
    }


def _summary(photos: PhotoScores) -> dict[str, float | None]:
    """Scores over all photos as shares, rounded as files have them."""
    return {key: rounded(value[0], 5) for key, value in split_scores(photos).items()}


def _iou(photos: PhotoScores, label: int) -> float | None:
    """IoU of one label over all photos as a share; None if it neither occurs nor is predicted."""
    return rounded(iou_of(photos.confusion.sum(0))[label], 5)
