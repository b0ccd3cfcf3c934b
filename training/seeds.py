"""How much of a score is chance: `python -m training.seeds NAME CHECKPOINT...`, one checkpoint for each seed.

Every run is scored for the task of the entry NAME on val and test, without post-processing or test-time augmentation;
the scores, their mean and their standard deviation go to training/results/seeds_NAME.json. With `--shipped` the weights
that NAME ships count as one more run, for entries that ship a whole run of one recipe: nobody chose that seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hubmodels.entries import Entry
from hubmodels.score_names import SCORES
from training.checkpoint import load_run
from training.data import DATA_ROOT
from training.errors import DataError, run_command
from training.evaluate import evaluate
from training.files import RESULTS, ROOT, write_json
from training.recipe import Recipe, read_recipe
from training.segmenters import load_segmenter, trained_entry
from training.timing import machine

SPLITS = ("val", "test")
MAY_DIFFER = {"seed", "init"}  # the earlier stage may be one of the same seed


def spread(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Score -> mean and standard deviation (of a sample, divisor n - 1) over seeds."""
    return {
        key: {
            "mean": round(float(np.mean([row[key] for row in rows])), 5),
            "standard_deviation": round(float(np.std([row[key] for row in rows], ddof=1)), 5),
        }
        for key in SCORES
    }


def shipped_recipe(entry: Entry) -> Recipe:
    """The recipe that an entry's weights are a run of.

    Raises:
        DataError: the entry names no recipe of a single run.
    """
    command, _, path = entry.recipe.rpartition(" ")
    if command != "python -m training.train":
        raise DataError(
            f"{entry.name} ships no single run of a recipe; it was made by: {entry.recipe or 'nothing here'}"
        )
    return read_recipe(ROOT / path)  # commands of entries are run there


def score_seeds(entry: Entry, checkpoints: Sequence[Path], *, data: Path, shipped: bool = False) -> dict[str, Any]:
    """Scores of every run, and their spread.

    Args:
        entry: the model whose task the runs are scored for.
        checkpoints: files of `training.train`, one for each seed.
        data: folder of the photos and labels.
        shipped: count the entry's own weights as the run of its recipe with the recipe's own seed.

    Raises:
        DataError: fewer than two runs, two of one seed, runs of several recipes (that of the shipped weights included),
            or a run that was not trained for the entry's task.
    """
    networks = [str(path) for path in checkpoints]
    recipes = [load_run(path)["recipe"] for path in checkpoints]
    if shipped:
        networks.insert(0, entry.name)
        recipes.insert(0, shipped_recipe(entry).to_dict())
    if len(networks) < 2:
        raise DataError(f"a spread needs two runs or more; got {len(networks)}")
    seeds = [recipe["seed"] for recipe in recipes]
    if len(set(seeds)) != len(seeds):
        raise DataError(f"every run must have a seed of its own; got {seeds}")
    names = {recipe["name"].removesuffix(f"_seed{recipe['seed']}") for recipe in recipes}
    if len(names) != 1:
        raise DataError(f"expected runs of one recipe; got {', '.join(sorted(names))}")
    for network, recipe in zip(networks[1:], recipes[1:], strict=True):
        changed = Recipe.from_dict(recipes[0]).differences(recipe)
        if other := sorted(set(changed) - MAY_DIFFER):
            raise DataError(f"expected runs of one recipe; {network} and {networks[0]} differ in {', '.join(other)}")
    runs = [{"seed": seed} for seed in seeds]
    images = {}
    for network, run in zip(networks, runs, strict=True):
        model = load_segmenter(network, entry.task)
        for split in SPLITS:
            found = evaluate(model, data=data, split=split)
            run[split] = {key: found[key] for key in SCORES}
            images[split] = found["images"]
    summary = {split: {"images": images[split], **spread([run[split] for run in runs])} for split in SPLITS}
    result = {"recipe": names.pop(), "runs": runs, **summary, "machine": machine()}
    return result | ({"shipped_sha256": entry.sha256} if shipped else {})


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.seeds", description=__doc__)
    parser.add_argument("name", help="an entry of hubmodels")
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--shipped", action="store_true", help="the weights that NAME ships are one more run")
    parser.add_argument("--data", type=Path, default=DATA_ROOT)
    arguments = parser.parse_args(argv)
    entry = trained_entry(arguments.name)
    result = score_seeds(entry, arguments.checkpoints, data=arguments.data, shipped=arguments.shipped)
    write_json(result, RESULTS / f"seeds_{arguments.name}.json")
    print(json.dumps({split: result[split] for split in SPLITS}, indent=1))


if __name__ == "__main__":
    run_command(main)
