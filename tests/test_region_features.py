"""Features of regions: drawn photos, and a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import hubmodels.refine.region_features as module
from hubmodels.refine.region_features import feature_names, lab_planes, region_features
from tests import reference_merge as reference
from tests.conftest import grid

LEFT_RIGHT = grid("0011", "0011", "0011", "0011").astype(np.int32)


def certain(labels: np.ndarray, classes: int) -> np.ndarray:
    """(C, H, W) float32 probabilities that are sure of `labels`."""
    return (np.arange(classes)[:, None, None] == labels).astype(np.float32)


def columns(features: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    return dict(zip(feature_names(classes), features.T, strict=True))


def many_regions(rng: np.random.Generator, shape: tuple[int, int], count: int) -> np.ndarray:
    return np.unique(rng.integers(0, count, shape), return_inverse=True)[1].reshape(shape).astype(np.int32)


def test_there_is_a_name_for_every_column(rng):
    image = rng.integers(0, 256, (4, 4, 3), np.uint8)
    for classes in (2, 7):
        features = region_features(image, LEFT_RIGHT, certain(LEFT_RIGHT, classes))
        assert features.shape == (2, len(feature_names(classes))) == (2, 20 + classes)
        assert features.dtype == np.float32
        assert len(set(feature_names(classes))) == 20 + classes


def test_features_equal_their_slow_twin(rng):
    image = rng.integers(0, 256, (14, 11, 3), np.uint8)
    segments = many_regions(rng, (14, 11), 12)
    probs = rng.dirichlet(np.full(4, 0.3), (14, 11)).transpose(2, 0, 1).astype(np.float32)
    ours = region_features(image, segments, probs)
    # Lab comes from a table, right to 0.03; one pixel's rounded lightness must not flip, which this seed checks
    assert_allclose(ours, reference.region_features(image, segments, probs), atol=0.03)
    assert_allclose(ours[:, 6:], reference.region_features(image, segments, probs)[:, 6:], atol=1e-5)


def test_lab_is_scikit_images(rng):
    from skimage.color import rgb2lab

    image = rng.integers(0, 256, (50, 60, 3), np.uint8)
    image[0, :2] = [[0, 0, 0], [255, 255, 255]]
    image[1:9] //= 12  # dark colours, where the table is coarsest
    assert_allclose(lab_planes(image), rgb2lab(image).reshape(-1, 3).T, atol=0.03)


def test_flat_colours_have_their_lab_and_no_deviation():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 2:] = 255
    found = columns(region_features(image, LEFT_RIGHT, certain(LEFT_RIGHT, 2)), 2)
    assert_allclose(found["l_mean"], [0, 100], atol=0.01)
    for name in ("a_mean", "b_mean", "l_std", "a_std", "b_std"):
        assert_allclose(found[name], 0, atol=0.02)


def test_the_deviation_is_that_of_lightness():
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2, 2:] = 255  # half of the right region is white
    found = columns(region_features(image, LEFT_RIGHT, certain(LEFT_RIGHT, 2)), 2)
    assert_allclose(found["l_std"], [0, 50], atol=0.01)


def test_texture_tells_stripes_from_flat_and_sums_to_one():
    image = np.full((16, 32, 3), 128, np.uint8)
    image[::2, 16:] = 0
    segments = np.repeat([[0] * 16 + [1] * 16], 16, axis=0).astype(np.int32)
    texture = region_features(image, segments, certain(segments, 2))[:, 6:16]
    assert_allclose(texture.sum(1), 1, rtol=1e-6)
    # Every neighbour of a flat pixel is as bright as itself: pattern 8. Stripes and the photo's rim are others.
    assert texture[0, 8] > 0.7 and texture[1, 8] < 0.6


def test_place_is_counted_in_the_persons_box():
    person = grid("00000000", "00111100", "00111100", "00000000")
    segments = grid("00000000", "00112200", "00112200", "00000000").astype(np.int32)
    found = columns(region_features(np.zeros((4, 8, 3), np.uint8), segments, certain(person, 2)), 2)
    assert_allclose(found["x"], [0.5, 0.25, 0.75])
    assert_allclose(found["y"], [0.5, 0.5, 0.5])


def test_without_a_person_place_is_counted_in_the_photo():
    found = columns(region_features(np.zeros((4, 4, 3), np.uint8), LEFT_RIGHT, certain(0 * LEFT_RIGHT, 2)), 2)
    assert_allclose(found["x"], [0.25, 0.75])


def test_places_far_outside_the_box_are_held_at_one_box_size():
    segments = np.repeat([[0] + [1] * 18 + [2]], 2, axis=0).astype(np.int32)
    person = segments == 0
    found = columns(region_features(np.zeros((2, 20, 3), np.uint8), segments, certain(person, 2)), 2)
    assert_array_equal(found["x"], np.float32([0.5, 2, 2]))
    right = columns(region_features(np.zeros((2, 20, 3), np.uint8), segments, certain(segments == 2, 2)), 2)
    assert_array_equal(right["x"], np.float32([-1, -1, 0.5]))


def test_the_person_is_where_the_probabilities_say():
    found = columns(region_features(np.zeros((4, 4, 3), np.uint8), LEFT_RIGHT, certain(LEFT_RIGHT, 2)), 2)
    assert_allclose(found["x"], [-0.5, 0.5])


def test_area_is_the_logarithm_of_a_share():
    segments = grid("0001", "0001").astype(np.int32)
    found = columns(region_features(np.zeros((2, 4, 3), np.uint8), segments, certain(segments, 2)), 2)
    assert_allclose(found["log_area"], np.log([0.75, 0.25]), rtol=1e-6)


def test_probabilities_are_means_and_entropy_is_theirs():
    probs = certain(grid("0011", "0011", "0011", "0101"), 2)  # region 0 has one pixel of eight, region 1 one too
    found = columns(region_features(np.zeros((4, 4, 3), np.uint8), LEFT_RIGHT, probs), 2)
    assert_allclose(found["prob_1"], [1 / 8, 7 / 8])
    assert_allclose(found["entropy"], -(np.log(1 / 8) / 8 + 7 * np.log(7 / 8) / 8), rtol=1e-6)
    sure = columns(region_features(np.zeros((4, 4, 3), np.uint8), LEFT_RIGHT, certain(LEFT_RIGHT, 2)), 2)
    assert_allclose(sure["entropy"], 0, atol=1e-6)


def test_a_photo_twice_the_size_has_the_same_features(astronaut, monkeypatch):
    small = np.asarray(Image.fromarray(astronaut).resize((64, 64), Image.Resampling.BOX))
    segments = np.arange(64)[:, None] // 16 * 4 + np.arange(64) // 16
    probs = np.random.default_rng(0).dirichlet(np.ones(3), (64, 64)).transpose(2, 0, 1)
    monkeypatch.setattr(module, "REFERENCE_PX", 64 * 64)
    large = [np.kron(a, np.ones((2, 2), a.dtype)) for a in (segments, *probs, *small.transpose(2, 0, 1))]
    doubled = region_features(np.stack(large[-3:], axis=-1), large[0], np.stack(large[1:-3]))
    assert_allclose(doubled, region_features(small, segments, probs), atol=1e-4)


def test_renumbering_regions_reorders_the_rows(rng):
    image = rng.integers(0, 256, (12, 12, 3), np.uint8)
    segments = many_regions(rng, (12, 12), 9)
    probs = rng.dirichlet(np.ones(3), (12, 12)).transpose(2, 0, 1)
    order = rng.permutation(9)
    assert_array_equal(region_features(image, order[segments], probs)[order], region_features(image, segments, probs))


def test_bad_input_is_refused():
    image, probs = np.zeros((4, 4, 3), np.uint8), certain(LEFT_RIGHT, 2)
    with pytest.raises(ValueError, match=r"image must be \(4, 4, 3\) uint8 to match segments; got .* float64"):
        region_features(image / 255, LEFT_RIGHT, probs)
    with pytest.raises(ValueError, match=r"probs must be \(C, 4, 4\); got \(4, 4, 2\)"):
        region_features(image, LEFT_RIGHT, np.moveaxis(probs, 0, -1))
    for wrong in (LEFT_RIGHT * 2, LEFT_RIGHT + 1, LEFT_RIGHT - 1, LEFT_RIGHT * 2**30):
        with pytest.raises(ValueError, match=r"consecutive ids from 0; got ids in .* renumber"):
            region_features(image, wrong, probs)
    for wrong in (LEFT_RIGHT.astype(float), LEFT_RIGHT[None], LEFT_RIGHT[:0]):
        with pytest.raises(ValueError, match=r"segments must be \(H, W\) int region ids; got"):
            region_features(image, wrong, probs)
