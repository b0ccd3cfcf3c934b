"""Soft edges against a scene whose true coverage is known, and the guided filter against a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.ndimage import gaussian_filter

from hubmodels import render, soft_edges
from hubmodels.soft_edges import soften

GREEN = np.array([20, 160, 40], np.float32)


def scene(rng: np.random.Generator, *, height: int = 480, width: int = 400) -> tuple[np.ndarray, ...]:
    """A reddish disc with an edge of four pixels on rough blue ground.

    Returns:
        (H, W, 3) uint8 photo, (H, W) float coverage, (H, W, 3) float disc without ground.
    """
    y, x = np.mgrid[:height, :width]
    covered = np.clip((130 - np.hypot(y - height / 2, x - width / 2)) / 4 + 0.5, 0, 1)
    disc = np.stack([200 - y / 15, 90 + x / 15, np.full(y.shape, 70.0)], axis=-1)
    ground = 20 * gaussian_filter(rng.standard_normal((height, width, 3)), (2, 2, 0)) + (40, 60, 190)
    photo = covered[..., None] * disc + (1 - covered[..., None]) * ground
    return np.clip(photo.round(), 0, 255).astype(np.uint8), covered, disc


def on_green(alpha: np.ndarray, colours: np.ndarray) -> np.ndarray:
    return alpha[..., None] * colours + (1 - alpha[..., None]) * GREEN


def edge_error(found: np.ndarray, true: np.ndarray, covered: np.ndarray) -> float:
    """Mean difference where the disc covers a pixel in part."""
    return float(np.abs(found - true)[(covered > 0) & (covered < 1)].mean())


@pytest.mark.parametrize("work_px", [600_000, 480 * 400 // 4], ids=["as it is", "filtered smaller"])
def test_coverage_and_colours_come_near_the_true_ones(rng, monkeypatch, work_px):
    monkeypatch.setattr(soft_edges, "WORK_PX", work_px)
    photo, covered, disc = scene(rng)
    mask = covered > 0.5
    alpha, colours = soften(photo, mask)
    assert alpha.dtype == np.float32 and colours.dtype == np.uint8 and alpha.min() >= 0 and alpha.max() <= 1
    assert edge_error(alpha, covered, covered) < edge_error(mask, covered, covered) / 4
    true = on_green(covered, disc)
    hard, soft = on_green(mask.astype(float), photo), on_green(alpha, colours)
    assert edge_error(soft, true, covered) < edge_error(hard, true, covered) / 4
    assert edge_error(soft, true, covered) < edge_error(on_green(alpha, photo), true, covered) / 3  # blue comes along


def test_a_mask_that_misses_the_edge_by_little_is_led_towards_it(rng):
    photo, covered, _ = scene(rng)
    mask = np.roll(covered > 0.5, 2, axis=1)
    alpha, _ = soften(photo, mask)
    assert np.abs(alpha - covered).sum() < 0.8 * np.abs(mask - covered).sum()


def test_far_from_the_edge_nothing_changes(rng):
    photo, covered, _ = scene(rng)
    before = photo.copy()
    alpha, colours = soften(photo, covered > 0.5)
    y, x = np.mgrid[:480, :400]
    far = np.abs(np.hypot(y - 240, x - 200) - 130) > 24
    assert_array_equal(alpha[far], (covered > 0.5)[far])
    whole = (alpha == 0) | (alpha == 1)
    assert_array_equal(colours[whole], photo[whole])
    assert_array_equal(photo, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (60, 40)])
@pytest.mark.parametrize("value", [False, True])
def test_without_an_edge_the_mask_is_the_answer(rng, shape, value):
    photo = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    alpha, colours = soften(photo, np.full(shape, value))
    assert (alpha == value).all()
    assert_array_equal(colours, photo)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (9, 7)])
def test_photos_smaller_than_a_window_have_answers_too(rng, shape):
    mask = np.zeros(shape, bool)
    mask.flat[0] = True
    alpha, _ = soften(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), mask)
    assert np.isfinite(alpha).all()


def slow_guide(image: np.ndarray, covered: np.ndarray, radius: int) -> np.ndarray:
    """He et al. 2013, eq. 19 and 20, window by window: the share of every pixel."""
    height, width = covered.shape
    around = [(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1)]

    def window(values: np.ndarray, y: int, x: int) -> np.ndarray:
        padded = np.pad(values, [(radius, radius)] * 2 + [(0, 0)] * (values.ndim - 2), mode="symmetric")
        return np.stack([padded[y + radius + dy, x + radius + dx] for dy, dx in around])

    slope, offset = np.zeros((height, width, 3)), np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        colours, shares = window(image, y, x), window(covered, y, x)
        spread = np.cov(colours.T, bias=True) + soft_edges.EPSILON * np.eye(3)
        together = (colours * shares[:, None]).mean(0) - colours.mean(0) * shares.mean()
        slope[y, x] = np.linalg.solve(spread, together)
        offset[y, x] = shares.mean() - slope[y, x] @ colours.mean(0)
    found = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        found[y, x] = window(slope, y, x).mean(0) @ image[y, x] + window(offset, y, x).mean()
    return found


def test_the_guided_filter_is_that_of_the_paper(rng):
    image = rng.random((14, 11, 3)).astype(np.float32)
    covered = np.zeros((14, 11), np.float32)
    covered[4:, 3:8] = 1
    slope, offset = soft_edges._guide(image, covered, 2)
    np.testing.assert_allclose((slope * image).sum(-1) + offset, slow_guide(image, covered, 2), atol=2e-3)


def test_a_soft_cut_out_hides_nothing_in_transparent_pixels(rng):
    photo, covered, _ = scene(rng)
    rgba = np.asarray(render.cutout(photo, covered > 0.5, soft=True))
    assert len(np.unique(rgba[..., 3])) > 20
    assert not rgba[rgba[..., 3] == 0].any()
    assert np.asarray(render.cutout(photo, covered > 0.5))[..., 3].tolist() == (255 * (covered > 0.5)).tolist()


def test_hair_keeps_none_of_the_wall_behind_it(person, astronaut):
    """On green, the seam of a hard cut-out is brighter than the hair: it is the wall."""
    seg = person.predict(astronaut)
    assert seg.cutout("person", soft=True).size == (512, 512)
    assert_array_equal(np.asarray(seg.cutout("person"))[..., 3] > 0, seg.mask("person"))
    alpha, colours = soften(seg.image, seg.mask("person"))
    crown = (slice(10, 120), slice(150, 330))
    seam = ((alpha > 0.05) & (alpha < 0.95))[crown]
    assert seam.sum() > 100
    assert colours[crown][seam].mean() < seg.image[crown][seam].mean() - 10
