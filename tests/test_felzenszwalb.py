"""The Felzenszwalb graph against a slow twin and against scikit-image."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from skimage import data
from skimage.measure import label as label_regions
from skimage.segmentation import felzenszwalb

from hubmodels.refine import felzenszwalb as module
from hubmodels.refine.compiled import load
from hubmodels.refine.felzenszwalb import FelzenszwalbGraph, fill_outside, join_small, pieces
from tests import reference_superpixels as reference
from tests.conftest import grid


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) float64 in 0..1, smooth enough that segments have all sizes; no two edges tie."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 0.3 + 0.2 * np.sin(x / 5)[..., None] * np.cos(y / 4)[..., None]
    return np.clip(waves + rng.normal(0, 0.08, (height, width, 3)), 0.001 * rng.random((height, width, 3)), 1)


def adjusted_rand(one: np.ndarray, other: np.ndarray) -> float:
    """Hubert & Arabie 1985, from the contingency table; 1 for equal partitions, about 0 for unrelated ones."""

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1.0)).sum() / 2)

    _, table = np.unique(one.ravel().astype(np.int64) * (int(other.max()) + 1) + other.ravel(), return_counts=True)
    rows, columns = pairs(np.bincount(one.ravel())), pairs(np.bincount(other.ravel()))
    expected = rows * columns / pairs(np.array([one.size]))
    return (pairs(table) - expected) / ((rows + columns) / 2 - expected)


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import hubmodels.refine.felzenszwalb_loops  # which comes back afterwards

    monkeypatch.setitem(sys.modules, "numba", None)  # makes its import fail
    monkeypatch.delitem(sys.modules, "hubmodels.refine.felzenszwalb_loops")
    monkeypatch.delattr(hubmodels.refine, "felzenszwalb_loops")
    load.cache_clear()
    yield
    load.cache_clear()


# ---- the same segments as the twins ----------------------------------------------------------------------


def test_the_rand_index_of_a_worked_example():
    one, other = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    assert adjusted_rand(one, one) == 1 and adjusted_rand(one, (one + 1) % 2) == 1
    assert adjusted_rand(one, other) == pytest.approx((2 - 6 * 3 / 15) / (4.5 - 6 * 3 / 15))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(8, 10), (1, 15), (14, 1), (1, 1)])
@pytest.mark.parametrize("scale, sigma, min_size", [(20, 0.8, 0), (150, 0.0, 5), (60, 1.5, 12)])
def test_equals_the_slow_twin(shape, scale, sigma, min_size, masked):
    for seed in range(2):
        image = noise(*shape, seed)
        mask = np.random.default_rng(seed).random(shape) < 0.7 if masked else None
        expected = reference.felzenszwalb(image, scale, sigma, min_size, mask)
        assert_array_equal(FelzenszwalbGraph(image, sigma, mask).segments(scale, min_size), expected)


def test_ties_are_taken_in_scan_order_as_by_the_slow_twin(rng):
    image = rng.integers(0, 3, (10, 12, 3)).astype(np.uint8) * 40
    expected = reference.felzenszwalb(image / 255, 60, 0.0, 6)
    assert_array_equal(FelzenszwalbGraph(image, 0.0).segments(60, 6), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_equals_scikit_image_where_no_edges_tie(sigma, dtype):
    image = noise(90, 120).astype(dtype)
    graph = FelzenszwalbGraph(image, sigma)
    assert np.unique(graph._costs).size == graph._costs.size
    counts = set()
    for scale in (5, 40, 100, 400, 3000):
        for min_size in (0, 1, 20, 150):
            got, expected = graph.segments(scale, min_size), felzenszwalb(image, scale, sigma, min_size)
            assert_array_equal(got, expected)
            counts.add(int(got.max()))
    assert len(counts) > 8  # the settings are really different ones


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_close_to_scikit_image_on_photos(name, sigma):
    image = getattr(data, name)()[20:180, 100:300]
    graph = FelzenszwalbGraph(image, sigma)
    if sigma == 0:  # 8-bit differences: nine edges of ten tie
        assert np.unique(graph._costs).size < 0.2 * graph._costs.size
    for scale in (50, 300):
        assert adjusted_rand(graph.segments(scale, 20), felzenszwalb(image, scale, sigma, 20)) > 0.99


def test_one_graph_serves_every_scale():
    graph = FelzenszwalbGraph(noise(40, 50), 0.8)
    first = graph.segments(80, 10)
    graph.segments(500, 40)
    assert_array_equal(graph.segments(80, 10), first)
    assert first.dtype == np.int32 and first.shape == (40, 50)


# ---- what holds for every photo --------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 14),
    st.integers(1, 14),
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 6, 256]),
    st.floats(1, 1000),
    st.booleans(),
)
def test_segments_are_numbered_connected_and_fewer_the_larger_they_must_be(height, width, seed, levels, scale, masked):
    rng = np.random.default_rng(seed)
    image = (rng.integers(0, levels, (height, width, 3)) * (255 // (levels - 1))).astype(np.uint8)
    mask = rng.random((height, width)) < 0.6 if masked else np.ones((height, width), bool)
    graph = FelzenszwalbGraph(image, 0.5, mask)
    before = None
    for min_size in (0, 2, 5, 30, 1000):
        ids = graph.segments(scale, min_size)
        assert_array_equal(ids, reference.in_scan_order(ids, mask))  # consecutive, in scan order, 0 outside
        inside = np.where(mask, ids + 1, 0)
        assert label_regions(inside, background=0, connectivity=2).max() == np.unique(ids[mask]).size
        for i, size in zip(*np.unique(ids[mask], return_counts=True), strict=True):
            alone = not touches(ids == i, mask)
            assert size >= min_size or alone
        if before is not None:  # coarser: every earlier segment lies inside of one
            assert np.unique(np.stack([before[mask], ids[mask]]), axis=1).shape[1] == np.unique(before[mask]).size
        before = ids


def touches(segment: np.ndarray, mask: np.ndarray) -> bool:
    from scipy.ndimage import binary_dilation

    return bool((binary_dilation(segment, np.ones((3, 3))) & mask & ~segment).any())


# ---- masks -----------------------------------------------------------------------------------------------


def test_colours_outside_the_mask_have_no_influence():
    image, mask = noise(30, 40), np.zeros((30, 40), bool)
    mask[5:25, 8:30] = True
    other = np.where(mask[..., None], image, 1 - image)
    for sigma in (0.0, 1.5):
        assert_array_equal(
            FelzenszwalbGraph(image, sigma, mask).segments(50, 5), FelzenszwalbGraph(other, sigma, mask).segments(50, 5)
        )


def test_a_mask_is_not_crossed():
    image = np.full((3, 7, 3), 100, np.uint8)
    mask = grid("1110111", "1110111", "1110111").astype(bool)
    expected = grid("1110222", "1110222", "1110222")
    assert_array_equal(FelzenszwalbGraph(image, 0.8, mask).segments(1000, 1000), expected)


def test_an_empty_mask_is_one_segment_and_a_full_one_none():
    image = noise(8, 9)
    assert_array_equal(FelzenszwalbGraph(image, 0.8, np.zeros((8, 9), bool)).segments(10, 0), np.zeros((8, 9)))
    full = FelzenszwalbGraph(image, 0.8, np.ones((8, 9), bool)).segments(10, 0)
    assert_array_equal(full, FelzenszwalbGraph(image, 0.8).segments(10, 0))


def test_the_callers_mask_may_change_afterwards():
    mask = np.zeros((8, 9), bool)
    mask[2:6] = True
    graph = FelzenszwalbGraph(noise(8, 9), 0.8, mask)
    before = graph.segments(30, 3)
    mask[:] = True
    assert_array_equal(graph.segments(30, 3), before)


def test_outside_takes_the_nearest_inside_colour(rng):
    image, mask = rng.random((9, 12, 3)), rng.random((9, 12)) < 0.2
    filled, places = fill_outside(image, mask), np.argwhere(mask)
    assert_array_equal(filled[mask], image[mask])
    for y, x in np.argwhere(~mask):
        apart = np.square(places - (y, x)).sum(1)
        nearest = places[apart == apart.min()]  # any of them on a tie
        assert any((filled[y, x] == image[v, u]).all() for v, u in nearest)
    assert fill_outside(image, np.zeros((9, 12), bool)) is image and fill_outside(image, None) is image


# ---- small segments of other methods ---------------------------------------------------------------------


def test_a_small_segment_joins_the_neighbour_of_nearest_colour():
    segments = grid("0012", "0012", "3333").astype(np.int32)
    image = np.array([0.1, 0.5, 0.8, 0.0])[segments][..., None].repeat(3, 2)
    assert_array_equal(join_small(segments, image, 3, None), grid("0011", "0011", "2222"))
    assert_array_equal(join_small(segments, image, 2, None), segments)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("compiled", [True, False])
def test_joining_equals_its_slow_twin(masked, compiled, rng, request):
    if not compiled:
        request.getfixturevalue("without_numba")
    for _ in range(4):
        mask = rng.random((7, 9)) < 0.8 if masked else None
        segments = pieces(rng.integers(0, 4, (7, 9)), mask)
        image = rng.random((7, 9, 3))
        for min_size in (0, 2, 4, 9, 50):
            expected = reference.join_small(segments, image, min_size, mask)
            assert_array_equal(join_small(segments, image, min_size, mask), expected)


def test_pieces_hang_together_over_corners():
    segments = grid("1001", "0110", "2202")
    assert_array_equal(pieces(segments, None), grid("0110", "1001", "2213"))
    assert_array_equal(pieces(segments, segments == 0), grid("0110", "1001", "0010"))


# ---- speed, and life without Numba -----------------------------------------------------------------------


def best_of(times: int, call: Callable[[], object]) -> float:
    """Seconds; processor time, as other work on the machine may interrupt."""
    taken = []
    for _ in range(times):
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
    return min(taken)


def test_a_new_scale_is_at_least_five_times_as_fast_as_scikit_image(astronaut):
    image = np.ascontiguousarray(astronaut[:400, :400])
    graph = FelzenszwalbGraph(image, 0.8)
    graph.segments(100, 20)  # compiles, or loads
    ours = best_of(5, lambda: graph.segments(101, 20))
    assert best_of(1, lambda: felzenszwalb(image, 101, 0.8, 20)) > 5 * ours


def test_without_numba_scikit_image_does_it_and_one_line_is_logged(without_numba, caplog):
    image, mask = noise(40, 50), np.zeros((40, 50), bool)
    mask[4:30, :45] = True
    mask[35:, 47:] = True
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            graph = FelzenszwalbGraph(image, 0.8)
            assert_array_equal(graph.segments(60, 15), felzenszwalb(image, 60, 0.8, 15))
        masked = FelzenszwalbGraph(image, 0.8, mask).segments(60, 15)
    assert len(caplog.records) == 1 and "pip install numba" in caplog.text
    assert_array_equal(masked, reference.in_scan_order(masked, mask))
    assert masked.max() > 3 and np.bincount(masked[mask])[1:].min() >= 15


def test_import_loads_neither_numba_nor_scikit_image():
    code = "import sys; import hubmodels.refine.superpixels; sys.exit(bool({'numba', 'skimage'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((4, 5), np.uint8), r"\(H, W, 3\) array.*got \(4, 5\): convert it to RGB"),
        (np.zeros((4, 5, 4), np.uint8), r"got \(4, 5, 4\)"),
        (np.zeros((0, 5, 3), np.uint8), "at least one pixel"),
        ([[1, 2, 3]], "got list"),
        (np.zeros((4, 5, 3), int), r"uint8, or float in 0\.\.1; got int64: use image.astype"),
        (np.full((4, 5, 3), 200.0), r"0\.\.1; got 200\.\.200: divide 8-bit values by 255"),
        (np.full((4, 5, 3), -0.1), r"0\.\.1; got -0.1"),
        (np.full((4, 5, 3), np.nan), r"0\.\.1; got nan"),
    ],
)
def test_what_is_no_photo_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        FelzenszwalbGraph(image, 0.8)


@pytest.mark.parametrize(
    "mask, message",
    [
        (np.zeros((5, 4), bool), r"mask must be \(4, 5\) bool; got \(5, 4\) bool: use a comparison"),
        (np.zeros((4, 5), np.uint8), r"got \(4, 5\) uint8"),
        ([[True]], "got list"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        FelzenszwalbGraph(np.zeros((4, 5, 3), np.uint8), 0.8, mask)


def test_a_smallest_size_beyond_every_integer_leaves_one_segment(rng):
    graph = FelzenszwalbGraph(rng.random((600, 400, 3)), 0)
    assert graph.segments(1, 1e19).max() == 0


def test_numbers_out_of_range_are_refused():
    image = np.zeros((4, 5, 3), np.uint8)
    for sigma in (-1, np.nan, np.inf, 1001):
        with pytest.raises(ValueError, match=r"sigma must be in 0\.\.1000 pixels; got .*: 0 turns smoothing off"):
            FelzenszwalbGraph(image, sigma)
    graph = FelzenszwalbGraph(image, 0)
    for scale in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"scale must be a number above 0; got .*: 10 to 1000 is usual"):
            graph.segments(scale, 1)
    for min_size in (-1, np.nan):
        with pytest.raises(ValueError, match=r"min_size_px must be 0 or more; got .*: 0 keeps every segment"):
            graph.segments(1, min_size)


@pytest.mark.parametrize("values", [0, 1, 2, 40, 10**6])
def test_edges_are_sorted_as_by_a_stable_sort(values, rng):
    costs = np.sqrt(rng.integers(0, values + 1, 20_000)) / 255
    loops = module.load_loops()
    assert_array_equal(loops.sort_order(costs), np.argsort(costs, kind="stable"))
    assert loops.sort_order(costs[:0]).shape == (0,)
