"""Superpixels: four methods, one meaning of their numbers."""

from __future__ import annotations

from pkgutil import resolve_name

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image
from scipy import ndimage
from skimage.measure import label as label_regions
from skimage.segmentation import felzenszwalb, quickshift, watershed

from hubmodels.refine import superpixels
from hubmodels.refine.felzenszwalb import FelzenszwalbGraph
from hubmodels.refine.settings import METHODS, REFERENCE_PX
from hubmodels.refine.superpixels import PreparedSuperpixels, _quickshift, _reference_grid, _seeds, _watershed
from tests import reference_superpixels as reference
from tests.conftest import grid


@pytest.fixture(scope="module")
def photo(astronaut) -> np.ndarray:
    """(600, 400, 3) uint8, a photo of the reference size."""
    return np.asarray(Image.fromarray(astronaut).resize((400, 600), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def small(astronaut) -> np.ndarray:
    """(100, 80, 3) uint8, a thirtieth of the reference size."""
    return np.ascontiguousarray(astronaut[60:160, 180:260])


def halves(height: int, width: int) -> np.ndarray:
    image = np.full((height, width, 3), 60, np.uint8)
    image[:, width // 2 :] = 190
    return image


# ---- what the methods make -------------------------------------------------------------------------------


def test_two_colours_make_two_superpixels():
    segments = superpixels(halves(20, 30), scale=100, sigma=0, min_size_px=1)
    assert_array_equal(segments, np.repeat([[0] * 15 + [1] * 15], 20, axis=0))


@pytest.mark.parametrize("method", METHODS)
def test_no_superpixel_crosses_a_clear_edge(method):
    segments = superpixels(halves(60, 80), method=method, scale=400, sigma=0)
    assert not np.intersect1d(segments[:, :39], segments[:, 41:]).size


@pytest.mark.parametrize("method", METHODS)
def test_every_pixel_has_one_and_ids_are_consecutive_and_each_hangs_together(method, small):
    segments = superpixels(small, method=method, scale=50)
    assert segments.shape == (100, 80) and segments.dtype == np.int32
    assert_array_equal(segments, reference.in_scan_order(segments, np.ones((100, 80), bool)))
    assert label_regions(segments + 1, connectivity=2).max() == segments.max() + 1 > 10


@pytest.mark.parametrize("method", METHODS)
def test_a_larger_scale_makes_fewer_superpixels(method, small):
    prepared = PreparedSuperpixels(small, method=method, sigma=0.8)
    counts = [prepared.segments(scale, 20).max() for scale in (10, 100, 1000)]
    assert counts[0] > counts[1] > counts[2] > 0


@pytest.mark.parametrize("method", ["slic", "quickshift", "watershed"])
def test_one_scale_makes_about_as_many_by_every_method(method, photo):
    prepared = PreparedSuperpixels(photo, method=method, sigma=0.8)
    graph = FelzenszwalbGraph(photo, 0.8)
    for scale in (50, 150, 400) if method != "slic" else (50, 400):
        ratio = (prepared.segments(scale, 20).max() + 1) / (graph.segments(scale, 20).max() + 1)
        assert 0.5 < ratio < 2, scale


def test_at_the_reference_size_felzenszwalb_is_scikit_images(photo):
    expected = felzenszwalb(photo.astype(np.float32) / 255, scale=120, sigma=0.7, min_size=30)
    assert_array_equal(superpixels(photo, scale=120, sigma=0.7, min_size_px=30), expected)


def test_quickshifts_links_are_cut_as_scikit_image_cuts_them(rng):
    lab = rng.random((30, 40, 3)).astype(np.float32) * 20
    got = _quickshift(lab, 1.0)(50)  # links of more than 1 + 0.08 * 50
    expected = quickshift(lab, kernel_size=3, max_dist=5, convert2lab=False)
    assert_array_equal(np.unique(got, return_inverse=True)[1].reshape(30, 40), expected)


def test_seeds_lie_where_each_cell_has_the_least_edge_and_in_the_middle_of_flat_ones(rng):
    edges = rng.random((12, 15))
    edges[:4, :5] = 0.5
    seeds = _seeds(edges, 3, 3)
    assert_array_equal(np.sort(seeds[seeds > 0]), np.arange(1, 10))
    for row in range(3):
        for column in range(3):
            cell = slice(4 * row, 4 * row + 4), slice(5 * column, 5 * column + 5)
            assert np.count_nonzero(seeds[cell]) == 1
            assert edges[cell][seeds[cell] > 0] == edges[cell].min()
    assert seeds[1, 2] or seeds[2, 2]


def test_the_watershed_floods_the_magnitude_of_sobel_edges_in_all_channels(rng):
    lab = ndimage.gaussian_filter(rng.random((40, 50, 3)), (2, 2, 0))
    edges = np.sqrt(sum(ndimage.sobel(lab[..., c], axis) ** 2 for c in range(3) for axis in (0, 1)))
    got = _watershed(lab, 1.0)(1000)  # 143 segments: 11 rows of 13
    assert got.max() + 1 == 11 * 13
    assert_array_equal(got, watershed(edges, _seeds(edges, 11, 13)) - 1)


# ---- small and flat photos -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 40), (40, 1), (2, 2), (13, 17)])
def test_tiny_and_flat_photos(method, shape, rng):
    everywhere = np.ones(shape, bool)
    for image in (np.full((*shape, 3), 90, np.uint8), rng.integers(0, 256, (*shape, 3)).astype(np.uint8)):
        for scale in (0.01, 100, 1e5):
            for mask in (None, rng.random(shape) < 0.5):
                segments = superpixels(image, method=method, scale=scale, mask=mask)
                inside = everywhere if mask is None else mask
                assert_array_equal(segments, reference.in_scan_order(segments, inside))


def test_a_flat_photo_is_one_superpixel():
    assert superpixels(np.full((50, 60, 3), 90, np.uint8)).max() == 0


# ---- values and sizes of the photo -----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_bytes_and_floats_of_one_photo_make_the_same_superpixels(method, small):
    expected = superpixels(small, method=method)
    for dtype in (np.float32, np.float64):
        assert_array_equal(superpixels((small / 255).astype(dtype), method=method), expected)


@pytest.mark.parametrize("method, masked", [("felzenszwalb", False), ("felzenszwalb", True), ("watershed", True)])
def test_an_enlarged_photo_makes_the_same_superpixels_enlarged(method, masked, photo):
    """Four pixels for each: the reduced photo is the original one, so all numbers keep their meaning."""
    mask = np.zeros((600, 400), bool)
    mask[50:500, 70:350] = True
    large, large_mask = (np.repeat(np.repeat(each, 2, 0), 2, 1) for each in (photo, mask))
    options = {"method": method, "scale": 150, "min_size_px": 30}
    got = superpixels(large, mask=large_mask if masked else None, **options)
    expected = superpixels(photo, mask=mask if masked else None, **options)
    assert_array_equal(got, np.repeat(np.repeat(expected, 2, 0), 2, 1))


@pytest.mark.parametrize("method", ["felzenszwalb", "slic", "quickshift", "watershed"])
def test_a_preview_makes_about_as_many_as_the_photo(method, photo):
    full, preview = (
        np.asarray(Image.fromarray(photo).resize(s, Image.Resampling.BOX)) for s in ((240, 360), (120, 180))
    )
    counts = [superpixels(each, method=method, scale=200).max() + 1 for each in (full, preview)]
    assert 0.6 < counts[1] / counts[0] < 1.6


def test_small_photos_take_sizes_by_area_and_sigma_by_side(photo):
    quarter = np.ascontiguousarray(photo[::2, ::2])
    expected = felzenszwalb(quarter.astype(np.float32) / 255, scale=200, sigma=1.2 / 2, min_size=50)
    assert_array_equal(superpixels(quarter, scale=200, sigma=1.2, min_size_px=199), expected)  # 49.75: at least 50


def test_ids_are_spread_to_the_nearest_pixels():
    for index in _reference_grid(701, 431):
        cells = np.arange(index.max() + 1, dtype=np.int32)[None]
        assert_array_equal(
            index, np.asarray(Image.fromarray(cells).resize((len(index), 1), Image.Resampling.NEAREST))[0]
        )


@pytest.mark.parametrize("shape", [(700, 431), (1, 300_001), (2999, 90), (601, 400)])
def test_large_photos_of_odd_sizes(shape, rng):
    mask = rng.random(shape) < 0.5
    image = np.broadcast_to(rng.integers(0, 256, (1, 1, 3)).astype(np.uint8), (*shape, 3))
    assert superpixels(image).max() == 0
    segments = superpixels(image, mask=mask)
    assert segments.shape == shape and segments.dtype == np.int32
    assert_array_equal(segments == 0, ~mask)
    assert_array_equal(np.unique(segments), np.arange(segments.max() + 1))


def test_large_photos_keep_colours_outside_the_mask_out(rng):
    """Cells on the mask's outline average their inside pixels alone."""
    image = np.full((900, 801, 3), 90, np.uint8)
    mask = np.zeros((900, 801), bool)
    mask[100:701, 100:602] = True
    image[~mask] = rng.integers(0, 256, (np.count_nonzero(~mask), 3))
    for method in ("felzenszwalb", "watershed"):
        segments = superpixels(image, method=method, mask=mask, scale=1000)
        flat = superpixels(np.full_like(image, 90), method=method, mask=mask, scale=1000)
        assert_array_equal(segments, flat)


# ---- masks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_keeps_inside_and_outside_apart(method, small):
    mask = np.zeros((100, 80), bool)
    mask[20:70, 10:60] = True
    segments = superpixels(small, method=method, mask=mask, scale=50)
    assert_array_equal(segments == 0, ~mask)
    assert_array_equal(segments, reference.in_scan_order(segments, mask))
    assert segments.max() > 5
    inverted = np.where(mask[..., None], small, 255 - small)
    assert_array_equal(superpixels(inverted, method=method, mask=mask, scale=50), segments)


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_mask_is_one_superpixel_and_a_full_one_changes_nothing(method, small):
    image = small[:30, :40]
    assert_array_equal(superpixels(image, method=method, mask=np.zeros((30, 40), bool)), np.zeros((30, 40)))
    full = superpixels(image, method=method, mask=np.ones((30, 40), bool))
    assert_array_equal(full, superpixels(image, method=method))


def test_a_mask_without_outside_cells_at_the_reference_size_still_keeps_id_0_for_the_outside():
    image, mask = np.full((1200, 800, 3), 90, np.uint8), np.ones((1200, 800), bool)
    mask[::2, ::2] = False  # one pixel of every cell
    assert_array_equal(superpixels(image, mask=mask), mask.astype(np.int32))


# ---- small superpixels -----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(METHODS), st.integers(0, 2**32 - 1), st.sampled_from([20, 200, 2000]), st.booleans())
def test_the_smallest_size_holds_and_a_larger_one_only_joins(method, seed, scale, masked):
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 256, (5, 6, 3)), np.ones((5, 5, 1))).astype(np.uint8)
    image += rng.integers(0, 30, image.shape).astype(np.uint8) // 2
    mask = np.ones((25, 30), bool)
    if masked:
        mask[:, 13] = mask[7] = False  # four parts that are not small
    prepared = PreparedSuperpixels(image, method=method, sigma=0.8, mask=mask)
    area = mask.size / REFERENCE_PX
    before = None
    for pixels in (0, 3, 10, 60):
        segments = prepared.segments(scale, round(pixels / area))
        assert np.bincount(segments[mask])[int(masked) :].min() >= pixels
        if before is not None:
            joined = np.unique(np.stack([before, segments]).reshape(2, -1), axis=1)
            assert joined.shape[1] == before.max() + 1
        before = segments


@pytest.mark.parametrize("method", METHODS)
def test_a_part_of_the_mask_without_neighbours_stays_however_small(method):
    mask = grid("1100000", "1100011", "1100000").astype(bool)
    image = np.full((3, 7, 3), 90, np.uint8)
    segments = superpixels(image, method=method, mask=mask, min_size_px=REFERENCE_PX)
    assert_array_equal(segments, grid("1100000", "1100022", "1100000"))


# ---- prepared --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_prepared_superpixels_are_those_of_single_calls(method, small):
    prepared = PreparedSuperpixels(small, method=method, sigma=0.5)
    for scale, min_size in ((300, 40), (60, 0), (300, 40)):
        expected = superpixels(small, method=method, scale=scale, sigma=0.5, min_size_px=min_size)
        assert_array_equal(prepared.segments(scale, min_size), expected)


PREPARING = {  # what is computed for all scales
    "felzenszwalb": {"skimage.filters.gaussian", "hubmodels.refine.felzenszwalb._sorted_edges"},
    "slic": {"skimage.filters.gaussian", "skimage.color.rgb2lab"},
    "quickshift": {"skimage.filters.gaussian", "skimage.color.rgb2lab", "skimage.segmentation.quickshift"},
    "watershed": {"skimage.filters.gaussian", "skimage.color.rgb2lab", "skimage.filters.sobel"},
}


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_computed_twice(method, small, monkeypatch):
    """A new scale smooths nothing, sorts no edges and seeks no modes."""
    calls: list[str] = []
    for name in set().union(*PREPARING.values()):  # before preparing, which may keep the functions themselves
        real = resolve_name(name)

        def spy(*args, _real=real, _name=name, **kwargs):
            calls.append(_name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(name, spy)
    prepared = PreparedSuperpixels(small, method=method, sigma=0.5)
    assert set(calls) == PREPARING[method]
    calls.clear()
    for scale in (80, 120):
        prepared.segments(scale, 10)
    assert not calls


def test_the_photo_and_the_mask_are_left_untouched_and_may_change(small):
    image, mask = small.copy(), np.zeros((100, 80), bool)
    mask[10:80, 20:60] = True
    prepared = PreparedSuperpixels(image, method="felzenszwalb", sigma=0.8, mask=mask)
    assert_array_equal(image, small)
    expected = prepared.segments(100, 20)
    image[:], mask[:] = 0, False
    assert_array_equal(prepared.segments(100, 20), expected)
    image = small.astype(np.float32) / 255
    prepared = PreparedSuperpixels(image, method="slic", sigma=0.8)
    expected = prepared.segments(100, 20)
    image[:] = 0
    assert_array_equal(prepared.segments(100, 20), expected)


# ---- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": 0}, "scale must be a number above 0; got 0"),
        ({"scale": float("nan")}, "scale must be a number above 0; got nan"),
        ({"sigma": -1}, r"sigma must be in 0\.\.1000 pixels; got -1"),
        ({"sigma": 1e9}, r"sigma must be in 0\.\.1000 pixels; got 1000000000"),
        ({"min_size_px": -1}, "min_size_px must be 0 or more; got -1"),
        ({"method": "slik"}, "method must be one of felzenszwalb, slic, quickshift, watershed; got 'slik'"),
        ({"mask": np.zeros((3, 4))}, r"mask must be \(100, 80\) bool; got \(3, 4\) float64"),
    ],
)
def test_bad_options_are_refused(options, message, small):
    with pytest.raises(ValueError, match=message):
        superpixels(small, **options)


@pytest.mark.parametrize("method", METHODS)
def test_a_smallest_size_beyond_the_photo_leaves_one_superpixel(method, small):
    assert superpixels(small, method=method, min_size_px=1e20).max() == 0


def test_what_is_no_photo_is_refused(small):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) array of at least one pixel; got \(100, 80\)"):
        superpixels(small[..., 0])
    with pytest.raises(ValueError, match=r"must be in 0\.\.1; got .*\.\.255: divide 8-bit values by 255"):
        superpixels(small.astype(np.float32) / small.max() * 255)
    with pytest.raises(ValueError, match=r"uint8, or float in 0\.\.1; got uint16"):
        PreparedSuperpixels(small.astype(np.uint16), method="slic", sigma=0.8)
    with pytest.raises(ValueError, match="scale must be a number above 0"):
        PreparedSuperpixels(small, method="slic", sigma=0.8).segments(-1, 20)


def test_a_photo_of_one_column_has_as_many_areas_as_one_of_one_row(rng):
    line = rng.integers(0, 256, (1, 40_000, 3), dtype=np.uint8)
    counts = [
        len(np.unique(superpixels(each, method="watershed", scale=300))) for each in (line, line.transpose(1, 0, 2))
    ]
    assert counts[1] <= 1.1 * counts[0]
