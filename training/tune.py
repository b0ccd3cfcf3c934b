"""Choose post-processing on the validation split: `python -m training.tune crf NAME` and `... refine NAME`.

The network answers once per photo; every candidate then goes through the same `Tuner` that users have, so what is
measured is what `Refinement` does. Each command writes training/results/tune_STUDY_NAME.json: scores without
post-processing, a row for every candidate, and which one was chosen by the rule of `choose`.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hubmodels.entries import Entry, find_entry
from hubmodels.hub import load_model
from hubmodels.refine import Refinement
from hubmodels.segmenter import Segmenter
from training.data import DATA_ROOT, Sample, load_fashionista
from training.files import write_json
from training.metrics import Scores

RESULTS = Path(__file__).parent / "results"
SPLIT = "val"  # nothing else: the test split must not choose anything


def crf_candidates(task: str) -> Iterator[Refinement]:
    """The grid that DeepLab searches (Chen et al. 2016: smoothness fixed at weight 3, reach 3 px), coarser.

    Reaches vary slowest, as they cost most to change, and iterations fastest, as they are kept.
    """
    del task  # both tasks are searched alike
    for reach, colour, weight, iterations in itertools.product(
        (30.0, 80.0), (5.0, 10.0, 20.0), (3.0, 10.0), (2, 5, 10)
    ):
        yield Refinement(
            crf_iterations=iterations,
            crf_appearance_sigma_px=reach,
            crf_appearance_sigma_colour=colour,
            crf_appearance_weight=weight,
        )


STUDIES = {"crf": crf_candidates}


def measure(model: Segmenter, samples: Sequence[Sample], candidates: Sequence[Refinement]) -> list[Scores]:
    """Scores of every candidate over all photos."""
    scores = [Scores(len(model.labels)) for _ in candidates]
    for sample in tqdm(samples, unit="photo"):
        tuner, truth = model.tune(sample.image), sample.labels[model.labels.task]
        for settings, score in zip(candidates, scores, strict=True):
            score.add(truth, tuner.refine(settings).labels)
    return scores


def choose(off: dict[str, float], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the highest mIoU if it beats doing nothing; else of the highest boundary F that costs no mIoU.

    None if no row raises either.
    """
    best = max(rows, key=lambda row: (row["miou"], row["boundary_f"]))
    if best["miou"] > off["miou"]:
        return best
    harmless = [row for row in rows if row["miou"] >= off["miou"] and row["boundary_f"] > off["boundary_f"]]
    return max(harmless, key=lambda row: row["boundary_f"]) if harmless else None


def differences(settings: Refinement) -> dict[str, Any]:
    """The settings that are not at their defaults."""
    default = Refinement()
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def report(entry: Entry, samples: Sequence[Sample], candidates: Sequence[Refinement]) -> dict[str, Any]:
    """What the results file holds."""
    model = load_model(entry.name)
    off, *scores = (summary(each) for each in measure(model, samples, [Refinement(), *candidates]))
    rows = [{"settings": differences(c), **s} for c, s in zip(candidates, scores, strict=True)]
    return {
        "model": entry.name,
        "sha256": entry.sha256,
        "data": f"Fashionista {SPLIT} split",
        "images": len(samples),
        "machine": f"{os.cpu_count()} cores",
        "off": off,
        "chosen": choose(off, rows),
        "rows": rows,
    }


def summary(scores: Scores) -> dict[str, float]:
    """The figures of a row, as shares."""
    return {
        "miou": round(scores.miou, 5),
        "pixel_accuracy": round(scores.pixel_accuracy, 5),
        "boundary_f": round(scores.boundary_f, 5),
    }


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.tune", description=__doc__)
    parser.add_argument("study", choices=sorted(STUDIES), help="which settings to try")
    parser.add_argument("name", help="an entry of hubmodels")
    parser.add_argument("--data", type=Path, default=DATA_ROOT, help="data root")
    parser.add_argument("--limit", type=int, help="use so many photos; nothing is written then")
    arguments = parser.parse_args(argv)
    entry = find_entry(arguments.name)
    samples = load_fashionista(arguments.data, SPLIT, [entry.task], limit=arguments.limit)
    result = report(entry, samples, list(STUDIES[arguments.study](entry.task)))
    if arguments.limit is None:
        write_json(result, RESULTS / f"tune_{arguments.study}_{entry.name}.json")
    for name in ("off", "chosen"):
        print(name, result[name])


if __name__ == "__main__":
    main()
