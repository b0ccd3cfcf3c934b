"""Paired augmentation of photo and labels: one random geometry for both, colour changes for the photo alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from training.data import Sample
from training.tags import IGNORE


@dataclass(frozen=True)
class Augment:
    """What a recipe's [augment] table may set.

    Attributes:
        crop_hw: height and width of the crops in pixels.
        scale: range of photo magnification, log-uniform; 0.5 shows a 600x400 photo as 300x200.
        stretch: largest change of aspect ratio, as a factor minus one.
        flip: probability of a mirror image (no label knows left from right).
        colour: strength of brightness, contrast, saturation, tint and gamma changes; 0 is off.
        grey: probability of a grey photo.
    """

    crop_hw: tuple[int, int]
    scale: tuple[float, float]
    stretch: float = 0.1
    flip: float = 0.5
    colour: float = 0.3
    grey: float = 0.03


def augment(sample: Sample, config: Augment, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A random view of a sample.

    Returns:
        image (3, crop_h, crop_w) float32 RGB in 0..1 and task -> (crop_h, crop_w) int64 labels; where the crop leaves
        the photo, the image is mid-grey and the labels are IGNORE.
    """
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
    if flip:
        image = image.flip(-1)
        labels = {task: ids.flip(-1) for task, ids in labels.items()}
    return _recolour(image, config, rng), labels


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


def batch_views(
    samples: list[Sample], indices: np.ndarray, config: Augment, *, seed: int, epoch: int
) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """A batch of random views, a pure function of (seed, epoch, index), so that a resumed run sees the same ones."""
    views = [augment(samples[i], config, np.random.default_rng((seed, epoch, int(i)))) for i in indices]
    images = torch.stack([image for image, _ in views]).contiguous(memory_format=torch.channels_last)
    return images, {task: torch.stack([labels[task] for _, labels in views]) for task in views[0][1]}
