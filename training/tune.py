"""Choose post-processing on the validation split: `python -m training.tune crf NAME` and `... refine NAME`.

The network answers once per photo; every candidate then goes through the same `Tuner` that users have, so what is
measured is what `Refinement` does. Each command writes training/results/tune_STUDY_NAME.json: scores without
post-processing, a row for every candidate, and which one was chosen by the rule of `choose`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hubmodels.entries import Entry
from hubmodels.hub import load_model
from hubmodels.metrics import Scores
from hubmodels.refine import PRESETS, Refinement
from hubmodels.segmenter import Segmenter
from hubmodels.tuning import crf_grid
from training.arguments import count
from training.data import DATA_ROOT, Sample, load_fashionista
from training.errors import run_command
from training.files import RESULTS, write_json
from training.segmenters import trained_entry
from training.timing import machine

SPLIT = "val"  # nothing else: the test split must not choose anything

Candidate = tuple[str, Refinement]  # the stage that it tries, and the settings


def crf_candidates(task: str) -> Iterator[Candidate]:
    """The grid that `hubmodels tune` searches."""
    del task  # both tasks are searched alike
    return (("crf", Refinement(**each)) for each in crf_grid())


def refine_candidates(task: str) -> Iterator[Candidate]:
    """Every stage alone, then on top of each other, around the CRF of the task's preset `gentle`."""
    crf = {name: value for name, value in PRESETS["gentle"][task].items() if name.startswith("crf_")}
    sure: dict[str, Any] = {"superpixel_scale": 60.0, "keep_confident": 0.9}
    votes: list[dict[str, Any]] = [{"superpixel_scale": scale} for scale in (30.0, 60.0, 120.0, 250.0)]
    votes += [{"superpixel_scale": 60.0, "superpixel_method": method} for method in ("slic", "watershed")]
    votes += [
        {"superpixel_scale": 60.0, "vote": "majority"},
        # With two labels no vote changes anything within the outline.
        *([{"superpixel_scale": 60.0, "superpixel_foreground": True}] if task != "person" else []),
        sure,
        {"superpixel_scale": 120.0, "keep_confident": 0.9},
        {"superpixel_scale": 60.0, "merge": "cut", "merge_threshold": 3.0},
        {"superpixel_scale": 30.0, "merge": "hierarchical", "merge_threshold": 6.0},
        {"superpixel_scale": 30.0, "merge": "kmeans", "merge_clusters": 60},
    ]
    cleaning: list[dict[str, Any]] = [{"min_region_px": size} for size in (50, 100, 200, 400, 800)]
    cleaning += [{"fill_holes_px": size} for size in (200, 1000)]
    cleaning += [{"min_region_px": 200, "fill_holes_px": 400}]
    if task == "person":
        cleaning += [{"keep_largest": True}, {"keep_largest": True, "fill_holes_px": 400, "min_region_px": 200}]
        yield from (("threshold", Refinement(person_threshold=cut)) for cut in (0.4, 0.45, 0.55, 0.6))
    yield from (("superpixels", Refinement(**each)) for each in votes)
    yield from (("clean-up", Refinement(**each)) for each in cleaning)
    yield "crf", Refinement(**crf)
    yield from (("crf and superpixels", Refinement(**crf, **each)) for each in votes)
    yield from (("crf and clean-up", Refinement(**crf, **each)) for each in cleaning)
    for each, clean in itertools.product((votes[1], votes[2], sure), (cleaning[2], cleaning[-1])):
        yield "all", Refinement(**crf, **each, **clean)


STUDIES: dict[str, Callable[[str], Iterator[Candidate]]] = {"crf": crf_candidates, "refine": refine_candidates}


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


def report(entry: Entry, samples: Sequence[Sample], candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What the results file holds: `best` has the chosen row of every stage, `chosen` that of all."""
    model = load_model(entry.name)
    every = [Refinement(), *(settings for _, settings in candidates)]
    off, *scores = (each.summary() for each in measure(model, samples, every))
    rows = [
        {"stage": stage, "settings": settings.changes(), **score}
        for (stage, settings), score in zip(candidates, scores, strict=True)
    ]
    stages = {row["stage"]: [each for each in rows if each["stage"] == row["stage"]] for row in rows}
    return {
        "model": entry.name,
        "sha256": entry.sha256,
        "data": f"Fashionista {SPLIT} split",
        "images": len(samples),
        "machine": machine(),
        "off": off,
        "best": {stage: max(each, key=lambda row: (row["miou"], row["boundary_f"])) for stage, each in stages.items()},
        "chosen": choose(off, rows),
        "rows": rows,
    }


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.tune", description=__doc__)
    parser.add_argument("study", choices=sorted(STUDIES), help="which settings to try")
    parser.add_argument("name", help="an entry of hubmodels")
    parser.add_argument("--data", type=Path, default=DATA_ROOT, help="data root")
    parser.add_argument("--limit", type=count, help="use so many photos; nothing is written then")
    arguments = parser.parse_args(argv)
    entry = trained_entry(arguments.name)
    samples = load_fashionista(arguments.data, SPLIT, [entry.task], limit=arguments.limit)
    result = report(entry, samples, list(STUDIES[arguments.study](entry.task)))
    if arguments.limit is None:
        write_json(result, RESULTS / f"tune_{arguments.study}_{entry.name}.json")
    for name, row in {"off": result["off"], **result["best"], "chosen": result["chosen"]}.items():
        print(f"{name:24}", row)


if __name__ == "__main__":
    run_command(main)
