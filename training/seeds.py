"""How much of a score is chance: `python -m training.seeds NAME CHECKPOINT...`, one checkpoint for each seed.

Every run is scored for the task of the entry NAME on val and test, without post-processing or test-time augmentation;
the scores, their mean and their standard deviation go to training/results/seeds_NAME.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hubmodels.entries import Entry, find_entry
from training.checkpoint import load_checkpoint
from training.data import DATA_ROOT
from training.errors import DataError
from training.evaluate import RESULTS, evaluate, machine
from training.files import write_json
from training.soft_labels import load_teacher

SPLITS = ("val", "test")
SCORES = ("miou", "pixel_accuracy", "boundary_f")


def spread(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Score -> mean and standard deviation (of a sample, divisor n - 1) over seeds."""
    return {
        key: {
            "mean": round(float(np.mean([row[key] for row in rows])), 5),
            "standard_deviation": round(float(np.std([row[key] for row in rows], ddof=1)), 5),
        }
        for key in SCORES
    }


def score_seeds(entry: Entry, checkpoints: Sequence[Path], *, data: Path, limit: int | None = None) -> dict[str, Any]:
    """Scores of every run, and their spread.

    Raises:
        DataError: fewer than two runs, two of one seed, runs of several recipes, or a run that was not trained for the
            entry's task.
    """
    if len(checkpoints) < 2:
        raise DataError(f"a spread needs two runs or more; got {len(checkpoints)}")
    recipes = [load_checkpoint(path)["recipe"] for path in checkpoints]
    seeds = [recipe["seed"] for recipe in recipes]
    if len(set(seeds)) != len(seeds):
        raise DataError(f"every run must have a seed of its own; got {seeds}")
    names = {recipe["name"].removesuffix(f"_seed{recipe['seed']}") for recipe in recipes}
    if len(names) != 1:
        raise DataError(f"expected runs of one recipe; got {', '.join(sorted(names))}")
    runs = [{"seed": seed} for seed in seeds]
    images = {}
    for path, run in zip(checkpoints, runs, strict=True):
        model = load_teacher(str(path), entry.task)
        for split in SPLITS:
            found = evaluate(model, data=data, split=split, limit=limit)
            run[split] = {key: found[key] for key in SCORES}
            images[split] = found["images"]
    summary = {split: {"images": images[split], **spread([run[split] for run in runs])} for split in SPLITS}
    return {"recipe": names.pop(), "runs": runs, **summary, "machine": machine()}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.seeds", description=__doc__)
    parser.add_argument("name", help="an entry of hubmodels")
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=DATA_ROOT)
    arguments = parser.parse_args(argv)
    result = score_seeds(find_entry(arguments.name), arguments.checkpoints, data=arguments.data)
    write_json(result, RESULTS / f"seeds_{arguments.name}.json")
    print(json.dumps({split: result[split] for split in SPLITS}, indent=1))


if __name__ == "__main__":
    main()
