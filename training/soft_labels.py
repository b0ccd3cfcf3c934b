"""Let teachers label photos: `python -m training.soft_labels --person NAME... --fashion NAME... --out runs/soft`.

The probabilities of several published models or checkpoints are averaged, over mirror images too with --flip, and
sharpened by a preset of post-processing. Each photo gets one file OUT/SOURCE/NAME.npz with task -> (C, H/2, W/2)
uint8, probabilities times 255. A recipe with `soft_labels = "OUT"` then teaches its network these instead of the labels
that the photo has: pseudo-labels for photos without any, distillation for the others. Photos that are done are skipped,
so a stopped run goes on when it is called again; OUT/settings.json holds who labelled what, and other teachers or
settings need a folder of their own. The validation and test splits are never among the sources.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from hubmodels.files import write_bytes
from hubmodels.labels import TASKS
from hubmodels.metrics import IGNORE
from hubmodels.model_export import network_digest
from hubmodels.refine import PRESETS, Refinement, Tuner
from hubmodels.segmenter import Segmenter
from training.allocator import keep_freed_memory
from training.arguments import count
from training.data import DATA_ROOT, SHRINK, SOURCES, Sample, load_sources
from training.errors import DataError, run_command
from training.files import write_json
from training.segmenters import load_segmenter


def teach(image: np.ndarray, teachers: Sequence[Segmenter], refinement: Refinement, *, flip: bool) -> np.ndarray:
    """(C, H, W) float32: the mean answer of the teachers to an (H, W, 3) uint8 photo, after the CRF of `refinement`.

    Its other stages decide on labels, and leave probabilities as they are.
    """
    probs = np.mean([teacher.probabilities(image, flip=flip) for teacher in teachers], axis=0, dtype=np.float32)
    return Tuner(probs, image).refine(refinement)[1]


def shrunk(probs: np.ndarray) -> np.ndarray:
    """(C, H, W) float32 probabilities as (C, ceil(H/2), ceil(W/2)) uint8, times 255."""
    channels = [Image.fromarray(channel).reduce(SHRINK) for channel in probs]
    return np.stack([np.round(255 * np.asarray(channel)) for channel in channels]).astype(np.uint8)


def soft_path(folder: Path, sample: Sample) -> Path:
    """Where the soft labels of a photo are kept."""
    return folder / f"{sample.name}.npz"


def note_settings(folder: Path, sources: Sequence[str], said: dict[str, dict[str, Any]]) -> None:
    """Keep in `folder`/settings.json how photos of `sources` are labelled, and refuse to mix it with another way.

    A folder that was filled before there was such a file is taken as it is.

    Args:
        folder: of soft labels.
        sources: first parts of the photos' names.
        said: task -> teachers, digests of their networks, preset and flip.

    Raises:
        DataError: photos of a source were labelled for one of the tasks in another way.
    """
    path = folder / "settings.json"
    if not path.is_file() and any(folder.rglob("*.npz")):
        return
    noted = json.loads(path.read_text()) if path.is_file() else {}
    for source in sources:
        before = noted.setdefault(source, {})
        for task, ours in said.items():
            noted_then = before.setdefault(task, ours)
            if any(noted_then[key] != ours[key] for key in noted_then):  # older notes have no digests
                raise DataError(f"{path}: {task} of {source} is by {before[task]}; got {ours}: use another folder")
    write_json(noted, path)


def read_soft_labels(path: Path) -> dict[str, np.ndarray]:
    """Task -> (C, h, w) uint8 of a photo's file; empty if there is none."""
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return dict(file)


def write_soft_labels(
    samples: Sequence[Sample],
    teachers: dict[str, list[Segmenter]],
    folder: Path,
    *,
    preset: str = "off",
    flip: bool = False,
) -> int:
    """Label photos for the tasks that their files in `folder` do not have yet; returns how many were labelled.

    Args:
        samples: photos.
        teachers: task -> its teachers.
        folder: where files go, each written whole or not at all.
        preset: post-processing of the averaged answer.
        flip: ask about mirror images too.

    Raises:
        DataError: the folder has labels for these tasks by other teachers or settings.
    """
    said = {
        task: {
            "teachers": sorted(each.name for each in those),
            "networks_sha256": sorted(network_digest(each.network) for each in those),
            "preset": preset,
            "flip": flip,
        }
        for task, those in teachers.items()
    }
    note_settings(folder, sorted({sample.name.split("/")[0] for sample in samples}), said)
    settings = {task: Refinement.preset(preset, task=task) for task in teachers}
    done = 0
    for sample in tqdm(samples, desc="soft labels", unit="photo", mininterval=10):
        path = soft_path(folder, sample)
        answers = read_soft_labels(path)
        missing = [task for task in teachers if task not in answers]
        if not missing:
            continue
        for task in missing:
            answers[task] = shrunk(teach(sample.image, teachers[task], settings[task], flip=flip))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **answers)
        write_bytes(buffer.getvalue(), path)
        done += 1
    return done


def with_soft_labels(samples: Sequence[Sample], folder: Path, *, confidence: float = 0.0) -> list[Sample]:
    """Samples that have soft labels in `folder` learn their tasks from there alone; the others stay as they are.

    Photos without any label, of which no teacher has labelled one either, are left out: they would only take time.

    Args:
        samples: photos.
        folder: of `write_soft_labels`.
        confidence: pixels whose likeliest label is less probable than this teach nothing.

    Raises:
        DataError: the folder has labels for none of the photos and their tasks.
    """
    out, found = [], 0
    for sample in samples:
        kept = read_soft_labels(soft_path(folder, sample))
        if soft := {task: probs for task, probs in kept.items() if task in sample.labels}:
            found += 1
            if confidence > 0:
                soft = {task: probs * (probs.max(0) >= 255 * confidence) for task, probs in soft.items()}
            hidden = {task: np.full_like(sample.labels[task], IGNORE) for task in soft}
            sample = dataclasses.replace(sample, labels={**sample.labels, **hidden}, soft=soft)
        out.append(sample)
    if not found:
        tasks = ", ".join(sorted({task for sample in samples for task in sample.labels}))
        raise DataError(
            f"{folder}: soft labels for none of {len(samples)} photos; run python -m training.soft_labels for {tasks}"
        )
    return [each for each in out if each.soft or any((ids != IGNORE).any() for ids in each.labels.values())]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.soft_labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for task in TASKS:
        parser.add_argument(f"--{task}", nargs="+", default=[], metavar="TEACHER", help="entries or RUN/best.pt")
    parser.add_argument("--sources", nargs="+", choices=sorted(SOURCES), default=["ccp", "ccp_unlabelled"])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="off", help="post-processing (%(default)s)")
    parser.add_argument("--flip", action="store_true", help="average with mirrored photos, at twice the time")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA_ROOT)
    parser.add_argument("--limit", type=count, help="so many photos of every source")
    arguments = parser.parse_args(argv)
    names = {task: getattr(arguments, task) for task in TASKS if getattr(arguments, task)}
    if not names:
        parser.error("name at least one teacher, by --person or --fashion")
    keep_freed_memory()
    teachers = {task: [load_segmenter(name, task) for name in those] for task, those in names.items()}
    samples = load_sources(arguments.data, arguments.sources, list(names), limit=arguments.limit)
    done = write_soft_labels(samples, teachers, arguments.out, preset=arguments.preset, flip=arguments.flip)
    print(f"{arguments.out}: {done} photos labelled, {len(samples) - done} were there")


if __name__ == "__main__":
    run_command(main)
