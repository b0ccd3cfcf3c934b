"""Drawn photos with masks, and a model that is right about them but for single pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hubmodels import Refinement
from hubmodels.labels import PERSON
from hubmodels.segmenter import Segmenter

NONE, CLEAN, HOLES = Refinement(), Refinement(min_region_px=400), Refinement(fill_holes_px=400)


class Bright(torch.nn.Module):
    """What is bright is a person, with little doubt."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = 20 * (x.mean(1, keepdim=True) - 0.5)
        return torch.cat([-bright, bright], 1)


@pytest.fixture
def model() -> Segmenter:
    return Segmenter(Bright().eval(), PERSON, name="bright", input_px=800)


def save(folder: Path, name: str, pixels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def dotted(rng: np.random.Generator, *, dots: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square on dark ground with single bright pixels beside it, which are no person, and its true labels."""
    truth = np.zeros((96, 64), np.uint8)
    top, left = rng.integers(8, 24, 2)
    truth[top : top + 40, left : left + 24] = 1
    seen = truth.copy()
    seen[rng.integers(72, 94, dots), rng.integers(2, 62, dots)] = 1
    return np.repeat(np.uint8(40 + 180 * seen)[..., None], 3, 2), truth


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    """Photos p0.png to p3.png, one of them deeper, and their masks."""
    for number in range(4):
        deep = "deep" if number == 3 else ""
        photo, truth = dotted(rng, dots=30)
        save(tmp_path / "photos" / deep, f"p{number}.png", photo)
        save(tmp_path / "masks" / deep, f"p{number}.png", truth)
    return tmp_path / "photos", tmp_path / "masks"
