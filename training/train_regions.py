"""Train a region classifier on a published network: `python -m training.train_regions NAME [--val-folds 5]`.

The network labels the photos, superpixels cut them, and a small perceptron (`hubmodels.refine.region_classifier`)
learns which label each region has. The network knows its own training photos too well: its probabilities are surer
there than on new ones. Against that there are two ways:

    --noise S        learn from the train split, with probabilities flattened and shaken anew in every epoch;
    --val-folds K    learn from the val split, whose probabilities are honest. Scores are cross-fitted: every photo is
                     judged by a classifier that has seen the other folds only; the last one learns from all folds.

Writes runs/regions_NAME/best.safetensors and the scores of network, plain vote and classifier on val, in
training/results/regions_NAME.json. `--evaluate FILE --split test` only reports: it adds its scores to that file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from hubmodels.files import write_bytes
from hubmodels.hub import load_model
from hubmodels.metrics import IGNORE, Scores, miou_of
from hubmodels.refine import superpixels, vote
from hubmodels.refine.region_classifier import (
    SMALLEST_PROB,
    RegionClassifier,
    RegionSettings,
    load_region_classifier,
)
from hubmodels.refine.region_features import feature_names, region_features
from hubmodels.segmenter import Segmenter
from training.arguments import count
from training.data import DATA_ROOT, SPLITS, Sample, load_fashionista
from training.errors import CommandError, run_command
from training.files import RESULTS, update_json, write_json


@dataclass(frozen=True)
class Options:
    """How to train.

    Pixels of all labels count alike: weights for rare labels lowered the mIoU in a trial on few photos.
    """

    epochs: int = 60
    lr: float = 1e-3  # falls to zero along half a cosine
    weight_decay: float = 0.05
    batch_regions: int = 4096
    hidden: int = 64
    dropout: float = 0.2
    noise: float = 0.0  # standard deviation in nats of what is added to log probabilities
    seed: int = 0


@dataclass(frozen=True)
class Photo:
    """One photo's regions with what the network, the features and the labels say of them.

    Attributes:
        features: (R, F) float32.
        counts: (R, C) float32, decided pixels of each true label.
        segments: (H, W) int32; None for a photo that is only learnt from.
        truth: (H, W) uint8; labels by the network and by its plain vote likewise.
    """

    features: torch.Tensor
    counts: torch.Tensor
    segments: np.ndarray | None = None
    truth: np.ndarray | None = None
    network: np.ndarray | None = None
    voted: np.ndarray | None = None


def region_counts(truth: np.ndarray, segments: np.ndarray, classes: int) -> np.ndarray:
    """(R, C) int64: pixels of every label in every region; those marked IGNORE do not count."""
    regions = int(segments.max()) + 1
    decided = truth != IGNORE
    keys = segments[decided].astype(np.int64) * classes + truth[decided]
    return np.bincount(keys, minlength=regions * classes).reshape(regions, classes)


def look_at(model: Segmenter, image: np.ndarray, truth: np.ndarray, settings: RegionSettings, *, keep: bool) -> Photo:
    """Network, superpixels and features of one photo; `keep` its maps, to score them."""
    probs = model.probabilities(image)
    segments = superpixels(image, method=settings.method, scale=settings.scale)
    features = torch.from_numpy(region_features(image, segments, probs))
    counts = torch.from_numpy(region_counts(truth, segments, len(probs))).float()
    if not keep:
        return Photo(features, counts)
    return Photo(features, counts, segments, truth, probs.argmax(0).astype(np.uint8), vote(probs, segments))


def collect(
    model: Segmenter, samples: Sequence[Sample], settings: RegionSettings, *, keep: bool, flips: bool
) -> list[list[Photo]]:
    """Every photo as it is and, with `flips`, seen in a mirror."""
    photos = []
    for sample in tqdm(samples, desc="features", unit="photo", mininterval=10):
        image, truth = sample.image, sample.labels[model.labels.task]
        views = [look_at(model, image, truth, settings, keep=keep)]
        if flips:
            mirrored = (np.ascontiguousarray(a[:, ::-1]) for a in (image, truth))
            views.append(look_at(model, *mirrored, settings, keep=False))
        photos.append(views)
    return photos


def shaken(features: torch.Tensor, classes: int, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Features whose probabilities are less sure: log probabilities halved at most, plus normal noise.

    Args:
        features: (R, F) float32.
        classes: C.
        noise: standard deviation in nats; 0 returns `features`.
        generator: source of chance.
    """
    if noise == 0:
        return features
    logs = features[:, -classes:].clamp_min(SMALLEST_PROB).log()
    softness = 0.5 + 0.5 * torch.rand(len(features), 1, generator=generator)
    probs = (logs * softness + noise * torch.randn(logs.shape, generator=generator)).softmax(1)
    out = features.clone()
    out[:, -classes:] = probs
    out[:, feature_names(classes).index("entropy")] = -(probs * probs.clamp_min(SMALLEST_PROB).log()).sum(1)
    return out


def loss_of(logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per pixel, where every pixel of a region has the region's logits: scalar, nats."""
    return -(counts * F.log_softmax(logits, 1)).sum() / counts.sum().clamp_min(1)


def train_epochs(photos: Sequence[Photo], settings: RegionSettings, options: Options) -> Iterator[RegionClassifier]:
    """Yield the classifier in eval mode, untrained and then after every epoch: `options.epochs` + 1 times.

    It is one and the same object, which learns on when the next is asked for.
    """
    features, counts = (torch.cat([getattr(photo, name) for photo in photos]) for name in ("features", "counts"))
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    classifier = RegionClassifier(settings, hidden=options.hidden, dropout=options.dropout)
    classifier.standardise(shaken(features, counts.shape[1], options.noise, generator), counts.sum(1))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    steps = options.epochs * -(-len(features) // options.batch_regions)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    yield classifier.eval()
    for _ in range(options.epochs):
        classifier.train()
        for batch in torch.randperm(len(features), generator=generator).split(options.batch_regions):
            seen = shaken(features[batch], counts.shape[1], options.noise, generator)
            loss = loss_of(classifier(seen), counts[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        yield classifier.eval()


@torch.inference_mode()
def confusion(classifier: RegionClassifier, photos: Sequence[Photo]) -> np.ndarray:
    """(C, C) int64 pixels over photos, rows true labels, columns the classifier's; as `Scores.confusion`."""
    total = np.zeros((classifier.num_classes,) * 2, np.int64)
    for photo in photos:
        chosen = classifier(photo.features).argmax(1).numpy()
        for label in range(classifier.num_classes):
            total[:, label] += photo.counts.numpy()[chosen == label].sum(0).astype(np.int64)
    return total


def train_on_train(
    train: list[list[Photo]], val: list[Photo], settings: RegionSettings, options: Options
) -> tuple[RegionClassifier, list[RegionClassifier], int]:
    """The classifier of the epoch that is best on val, the one that judges each val photo (itself), and the epoch.

    Epoch 0 is the plain vote.
    """
    best, best_score, best_epoch = b"", -1.0, 0
    learn = [photo for photos in train for photo in photos]
    for epoch, classifier in enumerate(train_epochs(learn, settings, options)):
        if (score := miou_of(confusion(classifier, val))) > best_score:
            best, best_score, best_epoch = classifier.to_bytes(), score, epoch
    chosen = RegionClassifier.from_bytes(best)
    return chosen, [chosen] * len(val), best_epoch


def train_on_val(
    views: list[list[Photo]], settings: RegionSettings, options: Options, *, folds: int
) -> tuple[RegionClassifier, list[RegionClassifier], int]:
    """A classifier that learnt from all val photos, for each photo one that did not learn from it, and the epoch.

    The epoch is one for all folds, the best of their scores together, and 0 is the plain vote. As it was chosen on
    the photos that are then scored, scores are a little hopeful.
    """
    if not 2 <= folds <= len(views):
        raise CommandError(f"val-folds must be in 2..{len(views)}, the number of val photos; got {folds}")
    fold_of = np.random.default_rng(options.seed).permutation(len(views)) % folds
    saved: list[list[bytes]] = []
    totals = np.zeros((options.epochs + 1, *(len(settings.labels),) * 2), np.int64)
    for fold in range(folds):
        learn = [photo for index, photos in enumerate(views) if fold_of[index] != fold for photo in photos]
        judge = [photos[0] for index, photos in enumerate(views) if fold_of[index] == fold]
        saved.append([])
        for epoch, classifier in enumerate(train_epochs(learn, settings, options)):
            totals[epoch] += confusion(classifier, judge)
            saved[fold].append(classifier.to_bytes())
    epoch = int(np.argmax([miou_of(total) for total in totals]))
    judges = [RegionClassifier.from_bytes(states[epoch]) for states in saved]
    learn = [photo for photos in views for photo in photos]
    classifier = next(islice(train_epochs(learn, settings, options), epoch, None))
    return classifier, [judges[fold] for fold in fold_of], epoch


@torch.inference_mode()
def score(photos: Sequence[Photo], judges: Sequence[RegionClassifier], names: Sequence[str]) -> dict[str, Any]:
    """Scores of the network alone, of the plain vote and of the classifier, one judge per photo."""
    kinds = {kind: Scores(len(names)) for kind in ("network", "vote", "regions")}
    for photo, judge in zip(photos, judges, strict=True):
        chosen = judge(photo.features).argmax(1).numpy().astype(np.uint8)[photo.segments]
        for kind, labels in (("network", photo.network), ("vote", photo.voted), ("regions", chosen)):
            kinds[kind].add(photo.truth, labels)
    return {kind: scores.summary(names) for kind, scores in kinds.items()}


def run(
    model: Segmenter, settings: RegionSettings, options: Options, *, data: Path, folds: int, limit: int | None
) -> tuple[RegionClassifier, dict[str, Any]]:
    """Train, and score on val: the classifier to keep, and the report."""
    started, task = time.monotonic(), model.labels.task
    samples = load_fashionista(data, "val", [task], limit=limit)
    views = collect(model, samples, settings, keep=True, flips=folds > 0)
    val = [photos[0] for photos in views]
    if folds:
        classifier, judges, epoch = train_on_val(views, settings, options, folds=folds)
    else:
        train = load_fashionista(data, "train", [task], limit=limit)
        photos = collect(model, train, settings, keep=False, flips=True)
        classifier, judges, epoch = train_on_train(photos, val, settings, options)
    how = f"{folds} folds of val, cross-fitted" if folds else "train, epoch chosen on val"
    report = {
        "val": {**score(val, judges, model.labels.names), "images": len(val)},
        "epoch": epoch,
        "learnt_from": how,
        "noise": options.noise,
        "superpixels": {"method": settings.method, "scale": settings.scale},
        "regions_per_photo": round(float(np.mean([len(photo.features) for photo in val]))),
        "seconds": round(time.monotonic() - started),
    }
    return classifier, report


def evaluate(
    model: Segmenter, classifier: RegionClassifier, *, data: Path, split: str, limit: int | None
) -> dict[str, Any]:
    """Scores on a split; nothing is learnt or chosen."""
    if classifier.settings.labels != model.labels.names:
        raise CommandError(
            f"{model.name} answers {', '.join(model.labels.names)}; the classifier was trained for "
            f"{', '.join(classifier.settings.labels)}: pass the one of this model"
        )
    samples = load_fashionista(data, split, [model.labels.task], limit=limit)
    photos = [views[0] for views in collect(model, samples, classifier.settings, keep=True, flips=False)]
    return {**score(photos, [classifier] * len(photos), model.labels.names), "images": len(photos)}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.train_regions", description=__doc__)
    parser.add_argument("name", help="an entry of hubmodels")
    parser.add_argument("--method", default="felzenszwalb", help="of superpixels (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=100.0, help="of superpixels (default: %(default)s)")
    parser.add_argument("--epochs", type=count, default=Options.epochs)
    parser.add_argument("--noise", type=float, default=Options.noise, help="in nats, on log probabilities")
    parser.add_argument("--val-folds", type=int, default=0, metavar="K", help="learn from K folds of val instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", type=Path, metavar="FILE", help="score a trained classifier, learn nothing")
    parser.add_argument("--split", choices=SPLITS, default="test", help="for --evaluate (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=DATA_ROOT, help="data root (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where reports go (default: %(default)s)")
    parser.add_argument("--limit", type=count, help="use only so many photos per split, and keep no report")
    arguments = parser.parse_args(argv)
    model = load_model(arguments.name)
    report_path = arguments.results / f"regions_{model.name}.json"
    if arguments.evaluate:
        classifier = load_region_classifier(arguments.evaluate)
        split = arguments.split
        report = {split: evaluate(model, classifier, data=arguments.data, split=split, limit=arguments.limit)}
        if arguments.limit is None:
            update_json(report_path, report)
    else:
        settings = RegionSettings(arguments.method, arguments.scale, model.labels.names)
        options = Options(epochs=arguments.epochs, noise=arguments.noise, seed=arguments.seed)
        folds, limit = arguments.val_folds, arguments.limit
        classifier, report = run(model, settings, options, data=arguments.data, folds=folds, limit=limit)
        write_bytes(classifier.to_bytes(), arguments.runs / f"regions_{model.name}" / "best.safetensors")
        if limit is None:
            write_json(report, report_path)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    run_command(main)
