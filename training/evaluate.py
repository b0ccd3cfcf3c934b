"""Score a published model: `python -m training.evaluate NAME --split test`.

Photos go through `Segmenter` exactly as users' photos do. The test split's scores are written to
training/results/NAME.json and copied into the manifest that ENTRIES reads; other splits are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hubmodels.entries import Entry, find_entry
from hubmodels.hub import WEIGHTS_FOLDER, load_model
from hubmodels.segmenter import Segmenter
from training.data import DATA_ROOT, SPLITS, load_fashionista
from training.files import update_json, write_json
from training.metrics import Scores

RESULTS = Path(__file__).parent / "results"


def evaluate(model: Segmenter, *, data: Path, split: str, limit: int | None = None) -> dict[str, Any]:
    """Scores of a model on a split of Fashionista, without test-time augmentation or post-processing."""
    task, names = model.labels.task, model.labels.names
    scores, seconds = Scores(len(names)), []
    for sample in tqdm(load_fashionista(data, split, [task], limit=limit), desc=model.name, unit="photo"):
        started = time.perf_counter()
        predicted = model.predict(sample.image).labels
        seconds.append(time.perf_counter() - started)
        scores.add(sample.labels[task], predicted)
    return {
        "miou": round(scores.miou, 5),
        "pixel_accuracy": round(scores.pixel_accuracy, 5),
        "boundary_f": round(scores.boundary_f, 5),
        "boundary_px": scores.boundary_px,
        "iou": {name: round(float(value), 5) for name, value in zip(names, scores.iou, strict=True)},
        "confusion": scores.confusion.tolist(),
        "images": scores.images,
        "data": f"Fashionista {split} split",
        "seconds_per_photo": round(float(np.median(seconds)), 3),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, PyTorch {torch.__version__.split('+')[0]}",
    }


def record(entry: Entry, result: dict[str, Any]) -> None:
    """Write test scores where ENTRIES and the tests look for them."""
    manifest = WEIGHTS_FOLDER / "manifest.json"
    row = json.loads(manifest.read_text())[entry.name]
    write_json({**result, "sha256": row["sha256"]}, RESULTS / f"{entry.name}.json")
    metrics = {
        key: result[key] for key in ("miou", "pixel_accuracy", "boundary_f", "boundary_px", "iou", "images", "data")
    }
    update_json(manifest, {entry.name: {**row, "metrics": metrics}})


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("name", help="an entry of hubmodels")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--data", type=Path, default=DATA_ROOT)
    arguments = parser.parse_args(argv)
    entry = find_entry(arguments.name)
    result = evaluate(load_model(entry.name), data=arguments.data, split=arguments.split)
    if arguments.split == "test":
        record(entry, result)
    print(json.dumps({key: value for key, value in result.items() if key != "confusion"}, indent=1))


if __name__ == "__main__":
    main()
