"""Each part of the augmentation by itself: what it does, and that it does nothing when it is off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from hubmodels.metrics import IGNORE
from tests.tiny_runs import TINY
from training.data import Sample, load_fashionista
from training.transforms import Augment, View, augment, batch_views

STILL = Augment((40, 24), (1.0, 1.0), stretch=0, flip=0, colour=0, grey=0)


@pytest.fixture
def sample(rng) -> Sample:
    """A photo of noise of the size of the crop, its labels, and soft labels of half the size."""
    image = rng.integers(0, 256, (40, 24, 3), np.uint8)
    soft = rng.integers(0, 256, (2, 20, 12), np.uint8)
    return Sample("drawn", image, {"person": rng.integers(0, 2, (40, 24), np.uint8)}, {"person": soft})


def view(sample: Sample, seed: int = 0, **change: float) -> View:
    return augment(sample, dataclasses.replace(STILL, **change), np.random.default_rng(seed))


def test_with_everything_off_a_view_is_the_photo(sample):
    got = view(sample)
    assert_array_equal(got.image, sample.image.transpose(2, 0, 1) / np.float32(255))
    assert_array_equal(got.labels["person"], sample.labels["person"])


def test_a_mirror_image_has_mirrored_labels(sample):
    plain, mirrored = view(sample), view(sample, flip=1)
    assert not torch.equal(plain.image, mirrored.image)
    assert torch.equal(mirrored.image, plain.image.flip(-1))
    assert torch.equal(mirrored.labels["person"], plain.labels["person"].flip(-1))
    assert torch.equal(mirrored.soft["person"], plain.soft["person"].flip(-1))


def test_grey_is_equal_in_all_channels(sample):
    got = view(sample, grey=1).image
    assert torch.equal(got[0], got[1]) and torch.equal(got[0], got[2])
    torch.testing.assert_close(got[0], view(sample).image.mean(0))


def test_colours_change_the_photo_alone(sample):
    plain, coloured = view(sample), view(sample, colour=0.4)
    assert (coloured.image - plain.image).abs().mean() > 0.02
    assert not torch.equal(coloured.image[0], coloured.image[1])
    assert coloured.image.min() >= 0 and coloured.image.max() <= 1
    assert torch.equal(coloured.labels["person"], plain.labels["person"])


def test_a_stretch_changes_the_shape_of_things():
    """A square of 20 pixels keeps its area: width / height lies within (1 + stretch) ** 2, and is not always 1."""
    ids = np.zeros((40, 40), np.uint8)
    ids[10:30, 10:30] = 1
    square = Sample("drawn", np.zeros((40, 40, 3), np.uint8), {"person": ids})
    for stretch, most in ((0.0, 1.0), (0.3, 1.3**2)):
        aspects = []
        for seed in range(8):
            seen = view(square, seed, crop_hw=(80, 80), stretch=stretch).labels["person"] == 1
            width, height = int(seen.any(0).sum()), int(seen.any(1).sum())
            assert abs(width * height - 400) < 40, "up to a pixel on either side"
            aspects.append(width / height)
        assert max(aspects) <= most + 0.1 and min(aspects) >= 1 / most - 0.1
        assert (max(aspects) - min(aspects) > 0.3) == (stretch > 0)


def test_scale_is_how_many_times_larger_things_are_seen():
    ids = np.zeros((40, 40), np.uint8)
    ids[15:25, 15:25] = 1
    square = Sample("drawn", np.zeros((40, 40, 3), np.uint8), {"person": ids})
    for scale, side in ((0.5, 5), (2.0, 20)):
        seen = view(square, crop_hw=(80, 80), scale=(scale, scale)).labels["person"] == 1
        assert (int(seen.any(1).sum()), int(seen.any(0).sum())) == (side, side)


def test_lines_of_a_pixel_are_dimmed_and_not_lost_in_small_views():
    """Bright lines, 8 pixels apart, at an eighth of their size."""
    lines = np.zeros((320, 320, 3), np.uint8)
    lines[::8] = 255
    image = view(Sample("drawn", lines, {}), crop_hw=(40, 40), scale=(0.125, 0.125)).image
    torch.testing.assert_close(image.mean(), torch.tensor(1 / 8), atol=0.02, rtol=0)


def test_a_view_lies_anywhere_within_the_photo_and_a_photo_anywhere_within_a_larger_view():
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    sample = Sample("drawn", np.zeros((3, 4, 3), np.uint8), {"person": ids})
    smaller = [view(sample, seed, crop_hw=(2, 3)).labels["person"] for seed in range(40)]
    assert {int(seen[0, 0]) for seen in smaller} == {0, 1, 4, 5}
    larger = [view(sample, seed, crop_hw=(4, 5)).labels["person"] for seed in range(40)]
    assert all((seen != IGNORE).sum() == 12 for seen in larger)
    assert {tuple((seen == 0).nonzero()[0].tolist()) for seen in larger} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_photo_and_labels_get_the_same_geometry():
    """Brightness encodes the label, so that every view can be checked against itself."""
    labels = np.zeros((60, 40), np.uint8)
    labels[10:40, 5:25] = 1
    sample = Sample("drawn", np.repeat((labels * 200)[..., None], 3, -1), {"person": labels})
    config = Augment((48, 32), (0.5, 1.5), colour=0, grey=0)
    for seed in range(20):
        image, views, _ = augment(sample, config, np.random.default_rng(seed))
        decided = views["person"] != IGNORE
        agree = (image[0] > 100 / 255)[decided] == (views["person"] == 1)[decided]
        assert image.shape == (3, 48, 32) and agree.float().mean() > 0.95  # blurred edges


def test_beyond_the_photo_nothing_is_decided():
    sample = Sample("drawn", np.zeros((20, 20, 3), np.uint8), {"person": np.zeros((20, 20), np.uint8)})
    image, views, _ = augment(sample, Augment((64, 64), (1.0, 1.0), 0, 0, 0, 0), np.random.default_rng(0))
    assert (views["person"] == 0).sum() == 400 and (views["person"] == IGNORE).sum() == 64 * 64 - 400
    assert (image[0][views["person"] == IGNORE] - 127 / 255).abs().max() < 1e-6


def test_views_depend_on_seed_epoch_and_index_alone():
    sample = Sample("drawn", np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3), {})
    config = Augment((24, 16), (0.5, 1.0))
    first, again = (augment(sample, config, np.random.default_rng((0, 1, 2)))[0] for _ in range(2))
    other = augment(sample, config, np.random.default_rng((0, 2, 2)))[0]
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_arrays_of_a_batch_stay_aligned(drawn):
    samples = load_fashionista(drawn, "train", ["fashion", "person"])
    images, labels, soft = batch_views(samples, np.array([0, 2]), TINY.augment, seed=0, epoch=0)
    assert images.shape == (2, 3, 64, 48) and labels["fashion"].shape == (2, 64, 48) and not soft
    decided = labels["fashion"] != IGNORE
    assert_array_equal(labels["fashion"][decided] > 0, labels["person"][decided] == 1)


def test_a_batch_shows_photos_anew_in_every_epoch_whoever_else_is_in_it(sample):
    def images(*indices: int, seed: int = 1, epoch: int = 2) -> torch.Tensor:
        config = dataclasses.replace(STILL, scale=(0.5, 1.0), colour=0.3)
        return batch_views([sample, sample], np.array(indices), config, seed=seed, epoch=epoch)[0]

    assert torch.equal(images(1, 0)[1], images(0)[0])
    for other in (images(0, seed=2), images(0, epoch=3), images(1)):
        assert not torch.equal(other, images(0))


def test_photos_without_soft_labels_have_zeros_beside_others(sample):
    plain = dataclasses.replace(sample, soft={})
    _, _, soft = batch_views([plain, sample], np.arange(2), STILL, seed=0, epoch=0)
    assert torch.equal(soft["person"], torch.stack([torch.zeros(2, 40, 24), view(sample).soft["person"]]))
