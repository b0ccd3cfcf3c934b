"""Score a published model: `python -m training.evaluate NAME --split test`.

Photos go through `Segmenter` exactly as users' photos do. The test split's scores are written to
training/results/NAME.json and copied into the manifest that ENTRIES reads; with a preset of post-processing, with
test-time augmentation, told which labels a photo shows, or in half precision they go to a file of their own alone:
training/results/NAME_PRESET.json, NAME_augmented.json, NAME_known.json, NAME_PRESET_known.json, NAME_bf16.json and so
on. Other splits are printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hubmodels.entries import ENTRIES, Entry
from hubmodels.hub import WEIGHTS_FOLDER, load_model, load_regions
from hubmodels.labels import LabelSet
from hubmodels.metrics import Scores
from hubmodels.refine import PRESETS, Refinement
from hubmodels.score_names import SCORES
from hubmodels.segmenter import Segmenter
from training.arguments import scale
from training.data import DATA_ROOT, SPLITS, Sample, load_fashionista
from training.errors import run_command
from training.files import RESULTS, update_json, write_json
from training.segmenters import trained_entry
from training.timing import machine


@dataclass(frozen=True)
class Answer:
    """What a model says of a photo.

    Attributes:
        sample: the photo with its true labels.
        predicted: (H, W) uint8 label ids.
        seconds: how long it took.
    """

    sample: Sample
    predicted: np.ndarray
    seconds: float


def answers(
    model: Segmenter,
    samples: Sequence[Sample],
    *,
    refinement: Refinement | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    known: bool = False,
) -> Iterator[Answer]:
    """One answer per photo, in order; no post-processing or test-time augmentation unless given.

    Args:
        model: what answers.
        samples: photos with their true labels.
        refinement, flip, scales: as of `Segmenter.predict`.
        known: the model is told which of its labels each photo does not show.
    """
    for sample in tqdm(samples, desc=model.name, unit="photo"):
        absent = absent_labels(sample.labels[model.labels.task], model.labels) if known else []
        started = time.perf_counter()
        answer = model.predict(sample.image, refinement=refinement, absent=absent, flip=flip, scales=scales)
        predicted = answer.labels
        yield Answer(sample, predicted, time.perf_counter() - started)


def absent_labels(truth: np.ndarray, labels: LabelSet) -> list[str]:
    """Labels that no pixel of (H, W) true ids has; none where that is all but the background: one could not look."""
    absent = [name for index, name in enumerate(labels.names) if index and not (truth == index).any()]
    return absent if len(absent) < len(labels) - 1 else []


def evaluate(
    model: Segmenter,
    *,
    data: Path,
    split: str,
    limit: int | None = None,
    refinement: Refinement | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    known: bool = False,
) -> dict[str, Any]:
    """Scores of a model on a split of Fashionista; no post-processing or test-time augmentation unless given."""
    task, names = model.labels.task, model.labels.names
    scores, seconds = Scores(len(names)), []
    samples = load_fashionista(data, split, [task], limit=limit)
    for answer in answers(model, samples, refinement=refinement, flip=flip, scales=scales, known=known):
        seconds.append(answer.seconds)
        scores.add(answer.sample.labels[task], answer.predicted)
    return {
        **scores.summary(names),
        "boundary_px": scores.boundary_px,
        "confusion": scores.confusion.tolist(),
        "images": scores.images,
        "data": f"Fashionista {split} split",
        "seconds_per_photo": round(float(np.median(seconds)), 3),
        "machine": machine(),
    }


def subject(entry: Entry) -> tuple[Segmenter, Refinement | None]:
    """What is scored: a network alone, or for a region classifier its network with the superpixels it was made for."""
    if entry.is_network:
        return load_model(entry.name), None
    network = next(each for each in ENTRIES.values() if each.regions == entry.name)
    made_for = load_regions(entry.name).settings
    cut = {"superpixel_method": made_for.method, "superpixel_scale": made_for.scale}
    return load_model(network.name), Refinement(**cut, vote="classifier")


def record(entry: Entry, result: dict[str, Any]) -> None:
    """Write test scores where ENTRIES and the tests look for them."""
    manifest = WEIGHTS_FOLDER / "manifest.json"
    row = json.loads(manifest.read_text())[entry.name]
    write_json({**result, "sha256": row["sha256"]}, RESULTS / f"{entry.name}.json")
    metrics = {key: result[key] for key in (*SCORES, "boundary_px", "iou", "images", "data")}
    update_json(manifest, {entry.name: {**row, "metrics": metrics}})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of how photos go through the model, and where they are."""
    parser.add_argument("--preset", choices=sorted(PRESETS), default="off", help="post-processing (%(default)s)")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo")
    parser.add_argument("--scales", type=scale, nargs="+", default=[1.0], help="average over sizes, 0.25 to 2")
    parser.add_argument("--data", type=Path, default=DATA_ROOT, help="data root (default: %(default)s)")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("name", help="an entry of hubmodels")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--known", action="store_true", help="tell the model which labels each photo does not show")
    parser.add_argument("--bf16", action="store_true", help="with the network in half precision (torch.bfloat16)")
    add_options(parser)
    arguments = parser.parse_args(argv)
    entry = trained_entry(arguments.name)
    if arguments.preset != "off" and not entry.is_network:
        parser.error(f"{entry.name} comes with post-processing of its own: leave out --preset")
    augmented = arguments.flip or arguments.scales != [1.0]
    if arguments.bf16 and (augmented or arguments.known or arguments.preset != "off"):
        parser.error("--bf16 is scored by itself: leave out --preset, --flip, --scales and --known")
    if arguments.known and len(entry.labels) == 2:
        parser.error(f"--known leaves labels out, but {entry.name} has only {' and '.join(entry.labels.names)}")
    model, refinement = subject(entry)
    if refinement is None and arguments.preset != "off":
        refinement = Refinement.preset(arguments.preset, task=entry.task)
    if arguments.bf16:
        model = model.to(torch.bfloat16)
    result = evaluate(
        model,
        data=arguments.data,
        split=arguments.split,
        refinement=refinement,
        flip=arguments.flip,
        scales=arguments.scales,
        known=arguments.known,
    )
    parts = [arguments.preset] * (arguments.preset != "off") + ["augmented"] * augmented
    parts += ["known"] * arguments.known + ["bf16"] * arguments.bf16
    if arguments.split == "test" and not parts:
        record(entry, result)
    elif arguments.split == "test":
        tried: dict[str, Any] = {"sha256": entry.sha256}
        if refinement is not None:
            tried["refinement"] = refinement.to_dict()
        if augmented:
            tried |= {"flip": arguments.flip, "scales": arguments.scales}
        if arguments.known:
            tried["known"] = True
        write_json({**result, **tried}, RESULTS / f"{'_'.join([entry.name, *parts])}.json")
    print(json.dumps({key: value for key, value in result.items() if key != "confusion"}, indent=1))


if __name__ == "__main__":
    run_command(main)
