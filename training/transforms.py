"""Paired augmentation of photo and labels: one random geometry for both, colour changes for the photo alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from hubmodels.labels import FASHION, LabelSet
from hubmodels.metrics import IGNORE
from training.data import SHRINK, Sample
from training.typed import misfit


@dataclass(frozen=True)
class Augment:
    """What a recipe's [augment] table may set; ValueError if a value is of another type or out of range.

    Attributes:
        crop_hw: height and width of the crops in pixels; recipes want 32 or more, as networks do.
        scale: range of photo magnification, log-uniform; 0.5 shows a 600x400 photo as 300x200.
        stretch: how much longer one side may become, as a factor minus one, while the other shrinks by that factor.
        flip: probability of a mirror image (no label knows left from right).
        colour: strength of brightness, contrast, saturation, tint and gamma changes; 0 is off.
        grey: probability of a grey photo.
        paste: probability that a garment of another photo is pasted in (Ghiasi et al. 2021), for labels that are rare.
        paste_labels: names of the labels that are pasted: of `fashion`, or of a folder of one's own. The recipe checks
            them.
    """

    crop_hw: tuple[int, int]
    scale: tuple[float, float]
    stretch: float = 0.1
    flip: float = 0.5
    colour: float = 0.3
    grey: float = 0.03
    paste: float = 0.0
    paste_labels: tuple[str, ...] = ("shoes", "dress", "t-shirt")

    def __post_init__(self) -> None:
        if wrong := misfit(self):
            raise ValueError(f"augment.{wrong}")
        if min(self.crop_hw) < 1:
            raise ValueError(f"augment.crop_hw must be 1 or more; got {list(self.crop_hw)}")
        if not 0.1 <= self.scale[0] <= self.scale[1] <= 10:
            raise ValueError(f"augment.scale must rise within 0.1..10, such as [0.5, 1.0]; got {list(self.scale)}")
        for key in ("stretch", "colour"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ValueError(f"augment.{key} must be 0 or more; got {getattr(self, key)}")
        for key in ("flip", "grey", "paste"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"augment.{key} must be a probability in 0..1; got {getattr(self, key)}")


class View(NamedTuple):
    """What the network sees of one sample.

    Attributes:
        image: (3, crop_h, crop_w) float32 RGB in 0..1; mid-grey where the crop leaves the photo.
        labels: task -> (crop_h, crop_w) int64, IGNORE where undecided or outside of the photo.
        soft: task -> (C, crop_h, crop_w) float32 probabilities, zero outside; empty for samples without.
    """

    image: torch.Tensor
    labels: dict[str, torch.Tensor]
    soft: dict[str, torch.Tensor]


def augment(sample: Sample, config: Augment, rng: np.random.Generator) -> View:
    """A random view of a sample."""
    height, width = config.crop_hw
    scale = float(np.exp(rng.uniform(*np.log(config.scale))))
    stretch = float(np.exp(rng.uniform(-1, 1) * np.log1p(config.stretch)))
    view_h, view_w = round(height / (scale * stretch)), round(width / (scale / stretch))
    photo_h, photo_w = sample.image.shape[:2]
    # A view larger than the photo keeps the photo inside; a smaller one stays inside the photo.
    top = int(rng.integers(min(0, photo_h - view_h), max(0, photo_h - view_h) + 1))
    left = int(rng.integers(min(0, photo_w - view_w), max(0, photo_w - view_w) + 1))
    flip = rng.random() < config.flip

    image = _cut(torch.from_numpy(sample.image).permute(2, 0, 1), top, left, view_h, view_w, fill=127)
    image = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0].float() / 255
    labels = {
        task: F.interpolate(
            _cut(torch.from_numpy(ids)[None], top, left, view_h, view_w, fill=IGNORE)[None],
            (height, width),
            mode="nearest-exact",
        )[0, 0].long()
        for task, ids in sample.labels.items()
    }
    soft = {
        task: _resample(torch.from_numpy(probs), photo_h, photo_w, (top, left, view_h, view_w), config.crop_hw)
        for task, probs in sample.soft.items()
    }
    if flip:
        image = image.flip(-1)
        labels = {task: ids.flip(-1) for task, ids in labels.items()}
        soft = {task: probs.flip(-1) for task, probs in soft.items()}
    return View(_recolour(image, config, rng), labels, soft)


def _resample(
    probs: torch.Tensor, photo_h: int, photo_w: int, box: tuple[int, int, int, int], size: tuple[int, int]
) -> torch.Tensor:
    """(C, *size) float32 of a box (top, left, height, width in pixels of the photo) of (C, h, w) uint8; 0 outside.

    The map may be smaller than the photo, so that the box falls between its pixels.
    """
    top, left, view_h, view_w = box
    rows = top + (torch.arange(size[0]) + 0.5) * view_h / size[0]
    columns = left + (torch.arange(size[1]) + 0.5) * view_w / size[1]
    inside = ((rows >= 0) & (rows <= photo_h))[:, None] & ((columns >= 0) & (columns <= photo_w))
    rows = rows / _covered(probs.shape[1], photo_h) * 2 - 1
    columns = columns / _covered(probs.shape[2], photo_w) * 2 - 1
    points = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    values = F.grid_sample(probs[None].float() / 255, points[None], padding_mode="border", align_corners=False)[0]
    return values * inside


def _covered(length: int, photo_length: int) -> int:
    """Pixels of the photo that a side of its map stands for: of an odd side one more than it has."""
    return SHRINK * length if length == math.ceil(photo_length / SHRINK) else photo_length


def _cut(x: torch.Tensor, top: int, left: int, height: int, width: int, *, fill: int) -> torch.Tensor:
    """Rows and columns from (top, left), filled where they lie outside of (C, H, W)."""
    h, w = x.shape[1:]
    inner = x[:, max(top, 0) : min(top + height, h), max(left, 0) : min(left + width, w)]
    if inner.shape[1:] == (height, width):
        return inner
    out = x.new_full((x.shape[0], height, width), fill)
    y, z = max(-top, 0), max(-left, 0)
    out[:, y : y + inner.shape[1], z : z + inner.shape[2]] = inner
    return out


def _recolour(image: torch.Tensor, config: Augment, rng: np.random.Generator) -> torch.Tensor:
    if config.colour > 0:
        c = config.colour
        brightness, contrast, saturation = 1 + c * rng.uniform(-1, 1, 3)
        tint = torch.from_numpy(1 + 0.3 * c * rng.uniform(-1, 1, 3)).float().view(3, 1, 1)
        image = image * (brightness * tint)
        mean = image.mean()
        image = (image - mean) * contrast + mean
        grey = image.mean(0, keepdim=True)
        image = ((image - grey) * saturation + grey).clamp(0, 1)
        image = image ** float(np.exp(0.7 * c * rng.uniform(-1, 1)))
    if rng.random() < config.grey:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    return image


def paste(
    view: View, donor: View, labels: Sequence[str], rng: np.random.Generator, *, garments: LabelSet = FASHION
) -> View:
    """A view with one garment of another laid over it: a label among `labels` that the donor shows, at random.

    Soft labels of the place become certain. The view stays as it is if the donor shows none of the labels.

    Args:
        view: what is laid over.
        donor: where the garment comes from.
        labels: names of labels, of garments and not of the background: where they are pasted, there is a person.
        rng: chooses among them.
        garments: the labels that the names are of; both views must have its task.

    Raises:
        ValueError: a name is not among them.
    """
    ids = [garments.id_of(name) for name in labels]
    worn = donor.labels[garments.task]
    shown = [i for i in ids if bool((worn == i).any())]
    if not shown:
        return view
    chosen = int(rng.choice(shown))
    mask = worn == chosen
    facts = {garments.task: chosen, "person": 1}
    image = torch.where(mask, donor.image, view.image)
    hard = {task: ids.masked_fill(mask, facts[task]) for task, ids in view.labels.items()}
    soft = {}
    for task, probs in view.soft.items():
        sure = F.one_hot(torch.tensor(facts[task]), len(probs)).to(probs.dtype)[:, None, None]
        soft[task] = torch.where(mask, sure, probs)
    return View(image, hard, soft)


def batch_views(
    samples: list[Sample],
    indices: np.ndarray,
    config: Augment,
    *,
    seed: int,
    epoch: int,
    garments: LabelSet = FASHION,
) -> tuple[torch.Tensor, Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """A batch of random views, a pure function of (seed, epoch, index), so that a resumed run sees the same ones.

    `garments` are the labels that `paste_labels` names.

    Returns:
        images (N, 3, H, W), task -> labels (N, H, W), and task -> soft labels (N, C, H, W), zero for samples without;
        the last is empty if no sample of the batch has any.
    """
    views = []
    for index in indices:
        rng = np.random.default_rng((seed, epoch, int(index)))
        view = augment(samples[index], config, rng)
        if config.paste and rng.random() < config.paste:
            donor = augment(samples[int(rng.integers(len(samples)))], config, rng)
            view = paste(view, donor, config.paste_labels, rng, garments=garments)
        views.append(view)
    images = torch.stack([view.image for view in views]).contiguous(memory_format=torch.channels_last)
    labels = {task: torch.stack([view.labels[task] for view in views]) for task in views[0].labels}
    shapes = {task: probs.shape for view in views for task, probs in view.soft.items()}
    soft = {
        task: torch.stack([view.soft.get(task, torch.zeros(shape)) for view in views]) for task, shape in shapes.items()
    }
    return images, labels, soft
