"""Would a run be better than what ships on other photos too? `python -m training.compare NAME CHECKPOINT`.

Both networks answer the photos of val, without post-processing or test-time augmentation, each at its own working size.
Then as many photos are drawn from these with replacement, the same for both (a paired bootstrap: Efron & Tibshirani
1993, chapter 16), and each such set is scored as a split is. The share of sets in which the run is better says how much
of the difference hangs on single photos: near 0.5 it does all. Fix what share it has to reach before the run has
validated.

That is one kind of luck alone. It knows nothing of the seed, whose spread is told beside it where `training.seeds` has
measured it: a difference of that size comes by training the same recipe again. Nor does it know that the epoch was
chosen on these very photos. Test is not offered: it judges what was decided, and decides nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hubmodels.entries import find_entry
from hubmodels.hub import load_model
from hubmodels.segmenter import Segmenter
from training.data import DATA_ROOT, Sample, load_fashionista
from training.errors import DataError, run_command
from training.evaluate import RESULTS, answers
from training.metrics import Scores, ratio
from training.soft_labels import load_teacher

DRAWS = 10_000


@dataclass(frozen=True)
class PhotoScores:
    """What each of N photos adds to the scores of a model.

    Attributes:
        confusion: (N, C, C) pixel counts, rows are true labels, columns predicted ones.
        boundary_f: (N,) boundary F-measure; NaN for a photo without a boundary to judge.
    """

    confusion: np.ndarray
    boundary_f: np.ndarray


def photo_scores(model: Segmenter, samples: Sequence[Sample]) -> PhotoScores:
    """Scores of a model on each photo by itself."""
    confusions, boundaries = [], []
    for answer in answers(model, samples):
        scores = Scores(len(model.labels))
        scores.add(answer.sample.labels[model.labels.task], answer.predicted)
        confusions.append(scores.confusion)
        boundaries.append(scores.boundary_f)
    return PhotoScores(np.stack(confusions), np.array(boundaries))


def split_scores(photos: PhotoScores, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of splits made of these photos, as `Scores` has them.

    Args:
        photos: of N photos.
        counts: (D, N) how often each photo is in each of D splits.

    Returns:
        mIoU, pixel accuracy and boundary F-measure, each (D,); NaN where a split has nothing to judge.
    """
    n, classes, _ = photos.confusion.shape
    confusion = (counts @ photos.confusion.reshape(n, -1)).reshape(-1, classes, classes)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    iou = ratio(hits, confusion.sum(1) + confusion.sum(2) - hits)
    occurs = ~np.isnan(iou)
    judged = ~np.isnan(photos.boundary_f)
    return {
        "miou": ratio(np.nansum(iou, axis=1), occurs.sum(1)),
        "pixel_accuracy": ratio(hits.sum(1), confusion.sum((1, 2))),
        "boundary_f": ratio(counts[:, judged] @ photos.boundary_f[judged], counts[:, judged].sum(1)),
    }


def compare(
    new: PhotoScores, old: PhotoScores, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Score -> `new` and `old` on all photos, and the `share` of draws in which the new one is higher.

    Equal draws count half, so that a model compared with itself has 0.5. Draws in which there is nothing to judge do
    not count; None where there is nothing in any.

    Raises:
        DataError: fewer than one draw, or the photos or labels of the two differ.
    """
    if draws < 1:
        raise DataError(f"expected one draw or more; got {draws}")
    if not np.array_equal(new.confusion.sum(2), old.confusion.sum(2)):
        raise DataError("expected scores of the same photos and labels, in one order; their true pixels differ")
    count = len(new.confusion)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    once = np.ones((1, count), np.int64)
    all_new, all_old = split_scores(new, once), split_scores(old, once)
    of_new, of_old = split_scores(new, drawn), split_scores(old, drawn)
    return {
        key: {
            "new": _rounded(all_new[key][0], 5),
            "old": _rounded(all_old[key][0], 5),
            "share": _rounded(_share(of_new[key], of_old[key]), 4),
        }
        for key in all_new
    }


def _share(new: np.ndarray, old: np.ndarray) -> float:
    """Of draws in which both are judged, how many the first wins; NaN if there are none."""
    judged = ~(np.isnan(new) | np.isnan(old))
    wins = (new[judged] > old[judged]) + (new[judged] == old[judged]) / 2
    return float(ratio(wins.sum(), judged.sum()))


def _rounded(value: float, digits: int) -> float | None:
    return None if np.isnan(value) else round(float(value), digits)


def compare_with_shipped(
    name: str,
    checkpoint: Path,
    *,
    data: Path,
    input_px: int | None = None,
    draws: int = DRAWS,
    limit: int | None = None,
) -> dict[str, Any]:
    """`compare` for a run and the entry whose weights it would replace, on val, with the spread of seeds if known.

    Args:
        name: an entry of hubmodels with weights.
        checkpoint: of training.train or training.average, trained for the entry's task.
        data: folder of the photos and labels.
        input_px: working size of the run; that of its recipe unless given.
        draws: how many sets of photos are drawn.
        limit: photos, for a try.

    Raises:
        DataError: the run was not trained for the entry's task.
    """
    old = load_model(find_entry(name).name)
    new = load_teacher(str(checkpoint), old.labels.task)
    if input_px is not None:
        new.input_px = input_px
    samples = load_fashionista(data, "val", [old.labels.task], limit=limit)
    found: dict[str, Any] = dict(compare(photo_scores(new, samples), photo_scores(old, samples), draws=draws))
    seeds = RESULTS / f"seeds_{name}.json"
    if seeds.is_file():
        spread = json.loads(seeds.read_text())["val"]
        found = {key: {**row, "deviation_of_seeds": spread[key]["standard_deviation"]} for key, row in found.items()}
    return {**found, "images": len(samples), "draws": draws, "input_px": {"new": new.input_px, "old": old.input_px}}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="an entry of hubmodels, what ships")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the run that would replace it")
    parser.add_argument("--input-px", type=int, help="working size of the run (default: its recipe's)")
    parser.add_argument("--draws", type=int, default=DRAWS, help="sets of photos (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=DATA_ROOT, help="data root (default: %(default)s)")
    arguments = parser.parse_args(argv)
    result = compare_with_shipped(
        arguments.name,
        arguments.checkpoint,
        data=arguments.data,
        input_px=arguments.input_px,
        draws=arguments.draws,
    )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_command(main)
