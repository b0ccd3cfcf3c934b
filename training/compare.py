"""Would a run be better than what ships on other photos too? `python -m training.compare NAME CHECKPOINT`.

Both networks answer the photos of val, without post-processing or test-time augmentation, each at its own working size.
Then hubmodels.bootstrap says in what share of sets drawn from these photos the run is better: near 0.5 the difference
hangs on single photos. Fix what share it has to reach before the run has validated.

That is one kind of luck alone. It knows nothing of the seed, whose spread is told beside it where `training.seeds` has
measured it: a difference of that size comes by training the same recipe again. Nor does it know that the epoch was
chosen on these very photos. Test is not offered: it judges what was decided, and decides nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubmodels.bootstrap import DRAWS, PhotoScores, compare
from hubmodels.hub import load_model
from hubmodels.metrics import Scores
from hubmodels.segmenter import Segmenter
from training.arguments import count, working_px
from training.data import DATA_ROOT, Sample, load_fashionista
from training.errors import CommandError, run_command
from training.evaluate import answers
from training.files import RESULTS
from training.segmenters import load_segmenter, trained_entry


def photo_scores(model: Segmenter, samples: Sequence[Sample]) -> PhotoScores:
    """Scores of a model on each photo by itself."""
    task, count = model.labels.task, len(model.labels)
    found = answers(model, samples)
    return PhotoScores.of([Scores.of_photo(a.sample.labels[task], a.predicted, num_classes=count) for a in found])


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
        CommandError: no draw.
    """
    if draws < 1:
        raise CommandError(f"expected one draw or more; got {draws}")
    old = load_model(trained_entry(name).name)
    new = load_segmenter(str(checkpoint), old.labels.task)
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
    parser.add_argument("--input-px", type=working_px, help="working size of the run (default: its recipe's)")
    parser.add_argument("--draws", type=count, default=DRAWS, help="sets of photos (default: %(default)s)")
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
