"""Each part of the augmentation by itself: what it does, and that it does nothing when it is off."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

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


class OnePlace(np.random.Generator):
    """Draws one place of every range: 0 is its lower end, 1 its upper one."""

    def __init__(self, place: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.place = place

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        value = low + self.place * (high - low)
        return value if size is None else np.full(size, value)


def test_with_everything_off_a_view_is_the_photo(sample):
    got = view(sample)
    assert_array_equal(got.image, sample.image.transpose(2, 0, 1) / np.float32(255))
    assert_array_equal(got.labels["person"], sample.labels["person"])


def test_what_a_recipe_leaves_out_is_as_published_networks_were_trained():
    """They name few of these: a change here would change what their recipes make."""
    left_out = dataclasses.asdict(Augment((40, 24), (0.5, 1.0)))
    assert left_out == {
        "crop_hw": (40, 24),
        "scale": (0.5, 1.0),
        "stretch": 0.1,
        "flip": 0.5,
        "colour": 0.3,
        "grey": 0.03,
        "paste": 0.0,
        "paste_labels": ("shoes", "dress", "t-shirt"),
    }


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


def recoloured(pixels: list[list[int]], place: float) -> np.ndarray:
    """(N, 3) of a row of N pixels with colour=0.5, where all that is drawn lies at one place of its range."""
    photo = Sample("drawn", np.array([pixels], np.uint8), {})
    config = dataclasses.replace(STILL, crop_hw=(1, len(pixels)), colour=0.5)
    return augment(photo, config, OnePlace(place)).image[:, 0].T.numpy().astype(float)


# Place of a range -> brightness, contrast and saturation, each; the tint of each channel; and gamma, for colour=0.5.
ENDS = {0: (0.5, 0.85, np.exp(-0.35)), 1: (1.5, 1.15, np.exp(0.35))}


@pytest.mark.parametrize("place", ENDS)
def test_brightness_tint_and_gamma_change_a_photo_of_one_grey(place):
    """Contrast and saturation find nothing in it to change."""
    factor, tint, gamma = ENDS[place]
    expected = (51 / 255 * factor * tint) ** gamma
    assert_allclose(recoloured([[51] * 3, [51] * 3], place), np.full((2, 3), expected), rtol=1e-5)


@pytest.mark.parametrize("place", ENDS)
def test_contrast_changes_how_far_pixels_are_from_the_mean_of_the_photo(place):
    """Greys of 51, 51 and 102: their mean of 68 stays where brightness puts it."""
    factor, tint, gamma = ENDS[place]
    got = recoloured([[51] * 3, [51] * 3, [102] * 3], place) ** (1 / gamma) / (factor * tint) * 255
    assert_allclose(got, [[68 - 17 * factor] * 3, [68 - 17 * factor] * 3, [68 + 34 * factor] * 3], rtol=1e-5)


@pytest.mark.parametrize("place", ENDS)
def test_saturation_changes_how_far_channels_are_from_the_mean_of_their_pixel(place):
    """A pixel of one colour beside a grey one of the same mean: contrast and saturation change the former alone."""
    factor, tint, gamma = ENDS[place]
    got = recoloured([[81, 51, 21], [51] * 3], place) ** (1 / gamma) / (factor * tint)
    assert_allclose(got[1], 51 / 255, rtol=1e-5)
    assert_allclose(got[0], np.array([51 + 30 * factor**2, 51, 51 - 30 * factor**2]).clip(0) / 255, rtol=1e-5)


def test_a_pixel_keeps_its_own_brightness_as_its_saturation_changes():
    """Contrast brings (40, 10, 10) and (100, 100, 220), 80 in the mean, to (60, 45, 45) and (90, 90, 150)."""
    factor, tint, gamma = ENDS[0]
    got = recoloured([[40, 10, 10], [100, 100, 220]], 0) ** (1 / gamma) / (factor * tint) * 255
    assert_allclose(got, [[55, 47.5, 47.5], [100, 100, 130]], rtol=1e-5)


def test_white_stays_white_however_bright_it_was_to_become():
    assert_array_equal(recoloured([[255] * 3, [255] * 3], 1), np.ones((2, 3)))


def test_a_tint_is_of_each_channel_and_a_draw_of_its_own():
    """All else is alike for the channels of a photo of one grey."""
    grey = Sample("drawn", np.full((40, 24, 3), 100, np.uint8), {})
    seen = [view(grey, seed, colour=0.3).image[:, 0, 0].tolist() for seed in range(8)]
    assert all(len(set(channels)) == 3 for channels in seen)
    assert {int(np.argmax(channels)) for channels in seen} == {0, 1, 2}


def test_a_grey_photo_has_no_tint_left(sample):
    got = view(sample, colour=0.4, grey=1).image
    assert torch.equal(got[0], got[1]) and torch.equal(got[0], got[2])


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


def test_a_stretch_is_by_as_much_either_way():
    """By 0.8 to 1.25, and not at all in the middle of the range: of a side that becomes longer less is in view."""
    each = np.broadcast_to(np.arange(100, dtype=np.uint8), (100, 100))
    large = Sample("drawn", np.zeros((100, 100, 3), np.uint8), {"rows": each.T.copy(), "columns": each.copy()})
    config = dataclasses.replace(STILL, crop_hw=(40, 40), stretch=0.25)
    seen = [augment(large, config, OnePlace(place)).labels for place in (0, 0.5, 1)]
    sides = [tuple(int(labels[key].max() - labels[key].min()) + 1 for key in ("rows", "columns")) for labels in seen]
    assert sides[1] == (40, 40) and {sides[0], sides[2]} == {(32, 50), (50, 32)}


@pytest.mark.parametrize("place, side", [(0, 40), (0.5, 20), (1, 10)])
def test_views_are_as_often_twice_as_large_as_half_as_large(place, side):
    """The middle of 0.5 to 2 is 1."""
    each = np.broadcast_to(np.arange(40, dtype=np.uint8), (40, 40)).copy()
    square = Sample("drawn", np.zeros((40, 40, 3), np.uint8), {"columns": each})
    config = dataclasses.replace(STILL, crop_hw=(20, 20), scale=(0.5, 2.0))
    columns = augment(square, config, OnePlace(place)).labels["columns"]
    assert int(columns.max() - columns.min()) + 1 == pytest.approx(side, abs=1)


def test_photos_are_mirrored_and_turned_grey_as_often_as_is_asked():
    """A quarter and an eighth of 400, within five standard deviations."""
    photo = Sample("drawn", np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8), {})
    seen = [view(photo, seed, crop_hw=(1, 2), flip=0.25, grey=0.125).image for seed in range(400)]
    assert abs(sum(bool(image[0, 0, 1] > 0) for image in seen) - 100) < 44
    assert abs(sum(bool(image[1].any()) for image in seen) - 50) < 34


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
    assert images.is_contiguous(memory_format=torch.channels_last)  # as convolutions on a CPU are fastest


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
