"""Merging regions: drawn grids, slow twins, and scikit-image's own graph."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hubmodels.refine.merge import RegionGraph, merge_regions
from tests import reference_merge as reference
from tests.conftest import grid

WAYS = [
    {"by": "adjacency", "method": "cut"},
    {"by": "adjacency", "method": "hierarchical"},
    {"by": "colour", "clusters": 3},
    {"by": "colour", "clusters": 3, "adjacent_only": False},
]


def photo(segments: np.ndarray, *lightness: float) -> np.ndarray:
    """A grey photo whose region i has about lightness `lightness[i]`, 8 to 100."""
    luminance = (np.array(lightness) + 16) ** 3 / 116**3
    grey = np.round(255 * (1.055 * luminance ** (1 / 2.4) - 0.055)).astype(np.uint8)
    return np.repeat(grey[:, None], 3, axis=1)[segments]


def natural(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Superpixels of a photo straight from scikit-image, and the photo."""
    from skimage.segmentation import felzenszwalb

    return felzenszwalb(image, scale=40, min_size=20), image


def noise(seed: int, regions: int) -> tuple[np.ndarray, np.ndarray]:
    """Random blocks and colours: (9, 12) int32 segments, (9, 12, 3) uint8 photo."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, regions, (3, 4)), np.ones((3, 3), int))
    segments = np.unique(blocks, return_inverse=True)[1].reshape(blocks.shape).astype(np.int32)
    # Few levels far apart, with jitter: some neighbours are near and some far, and hardly ever are two pairs equal.
    return segments, (60 * rng.integers(0, 4, (9, 12, 3)) + rng.integers(0, 20, (9, 12, 3))).astype(np.uint8)


# ---- the graph


def test_corners_touch_too():
    segments = grid("0012", "0034").astype(np.int32)
    graph = RegionGraph(segments, photo(segments, 10, 20, 30, 40, 50))
    assert_array_equal(graph.edges, [[0, 1], [0, 3], [1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]])


def test_the_graph_holds_areas_colours_and_distances():
    segments = grid("001", "001").astype(np.int32)
    graph = RegionGraph(segments, photo(segments, 50, 100))
    assert_array_equal(graph.areas, [4, 2])
    assert_allclose(graph.mean_lab, [[50, 0, 0], [100, 0, 0]], atol=0.3)  # grey has 256 steps
    assert_allclose(graph.weights, [50], atol=0.3)
    assert_allclose(graph.centroids, np.array([[0.5, 0.5], [0.5, 2]]) / np.hypot(2, 3))


@pytest.mark.parametrize("seed", range(5))
def test_edges_equal_their_slow_twin(seed):
    segments, image = noise(seed, 9)
    assert {tuple(edge) for edge in RegionGraph(segments, image).edges.tolist()} == reference.touching(segments)


def test_one_region_stays_one():
    segments = np.zeros((3, 4), np.int32)
    graph = RegionGraph(segments, np.zeros((3, 4, 3), np.uint8))
    for new_ids in (graph.cut(9), graph.hierarchical(9), graph.kmeans(2)):
        assert_array_equal(new_ids, [0])


# ---- cut


def test_a_cut_joins_neighbours_nearer_than_the_threshold():
    segments = grid("0123").astype(np.int32)
    image = photo(segments, 10, 14, 50, 55)
    assert_array_equal(merge_regions(segments, image, threshold=8), grid("0011"))
    assert_array_equal(merge_regions(segments, image, threshold=4.5), grid("0012"))
    assert_array_equal(merge_regions(segments, image, threshold=2), segments)


def test_a_cut_follows_chains_and_hierarchical_does_not():
    segments = grid("0123").astype(np.int32)
    image = photo(segments, 30, 35, 41, 46)  # steps of 5, 6 and 5; means of the outer pairs are 11 apart
    assert_array_equal(merge_regions(segments, image, threshold=7), grid("0000"))
    assert_array_equal(merge_regions(segments, image, method="hierarchical", threshold=7), grid("0011"))


def test_like_colours_that_do_not_touch_stay_apart():
    segments = grid("0012").astype(np.int32)
    image = photo(segments, 10, 90, 10)
    assert_array_equal(merge_regions(segments, image, threshold=20), segments)


def test_the_threshold_itself_does_not_join_and_zero_joins_nothing():
    segments = grid("01").astype(np.int32)
    equal = photo(segments, 40, 40)
    graph = RegionGraph(segments, photo(segments, 20, 60))
    distance = float(graph.weights[0])
    for join in (graph.cut, graph.hierarchical):
        assert_array_equal(join(distance), [0, 1])
        assert_array_equal(join(np.nextafter(distance, np.inf)), [0, 0])
    for method in ("cut", "hierarchical"):
        assert_array_equal(merge_regions(segments, equal, method=method, threshold=0), grid("01"))
        assert_array_equal(merge_regions(segments, equal, method=method, threshold=1e-9), grid("00"))


# ---- hierarchical


def test_the_mean_is_weighted_by_pixels():
    # 0 and 1 join first, at a mean near 31 or near 39, as the first or the second is large; 2 is 19 or 11 away from it.
    for drawn, joined in (("0000000012", "0000000001"), ("0111111112", "0000000000")):
        segments = grid(drawn).astype(np.int32)
        image = photo(segments, 30, 40, 50.5)
        assert_array_equal(merge_regions(segments, image, method="hierarchical", threshold=13), grid(joined))


def test_a_threshold_can_go_up_and_down():
    segments, image = noise(1, 12)
    graph = RegionGraph(segments, image)
    for threshold in (20, 60, 5, 200, 40, np.inf, 0, 30):
        assert_array_equal(
            graph.hierarchical(threshold), RegionGraph(segments, image).hierarchical(threshold), err_msg=str(threshold)
        )


def test_threads_share_a_graph(astronaut):
    segments, image = natural(astronaut[:128, :128])
    thresholds = [5, 10, 20, 30, 40, 60] * 2
    expected = {t: RegionGraph(segments, image).hierarchical(t) for t in thresholds}
    graph, wrong = RegionGraph(segments, image), []

    def work(threshold: float) -> None:
        if not np.array_equal(graph.hierarchical(threshold), expected[threshold]):
            wrong.append(threshold)

    threads = [threading.Thread(target=work, args=(t,)) for t in thresholds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_region_with_thousands_of_neighbours_is_no_trap():
    """Dots on a ground of one colour: every merge with the ground changes what it is worth to all others."""
    segments = np.zeros((200, 200), np.int32)
    segments[1::2, 1::2] = 1 + np.arange(100 * 100).reshape(100, 100)
    image = np.random.default_rng(0).integers(100, 156, (200, 200, 3)).astype(np.uint8)
    graph = RegionGraph(segments, image)
    started = time.process_time()
    assert graph.hierarchical(np.inf).max() == 0
    assert time.process_time() - started < 15  # a heap of all pairs takes minutes


def test_the_loops_run_without_numba_too_and_one_line_is_logged():
    segments, image = noise(5, 12)
    code = f"""
import sys
sys.modules["numba"] = None
import numpy as np
from hubmodels.refine import RegionGraph
segments, image = np.array({segments.tolist()}, np.int32), np.array({image.tolist()}, np.uint8)
RegionGraph(segments, image).hierarchical(40)
print(RegionGraph(segments, image).hierarchical(40).tolist())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == RegionGraph(segments, image).hierarchical(40).tolist()
    assert ran.stderr.count("pip install numba") == 1


# ---- twins


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.floats(1, 120))
def test_both_methods_equal_their_slow_twins(seed, threshold):
    segments, image = noise(seed, 12)
    graph = RegionGraph(segments, image)
    assert_array_equal(graph.cut(threshold), reference.cut(segments, graph.mean_lab, threshold))
    assert_array_equal(
        graph.hierarchical(threshold), reference.hierarchical(segments, graph.mean_lab, graph.areas, threshold)
    )


def scikit_images_merge(segments: np.ndarray, image: np.ndarray, method: str, threshold: float) -> np.ndarray:
    from skimage import color, graph

    def join(rag, src, dst):
        rag.nodes[dst]["total color"] += rag.nodes[src]["total color"]
        rag.nodes[dst]["pixel count"] += rag.nodes[src]["pixel count"]
        rag.nodes[dst]["mean color"] = rag.nodes[dst]["total color"] / rag.nodes[dst]["pixel count"]

    def weight(rag, _src, dst, other):
        return {"weight": np.linalg.norm(rag.nodes[dst]["mean color"] - rag.nodes[other]["mean color"])}

    rag = graph.rag_mean_color(color.rgb2lab(image), segments)
    if method == "cut":
        return graph.cut_threshold(segments, rag, threshold)
    return graph.merge_hierarchical(
        segments, rag, threshold, rag_copy=False, in_place_merge=True, merge_func=join, weight_func=weight
    )


@pytest.mark.parametrize("method", ["cut", "hierarchical"])
@pytest.mark.parametrize("threshold", [6, 13, 25])
@pytest.mark.parametrize("kind", ["drawn", "natural"])
def test_partitions_are_scikit_images(astronaut, kind, method, threshold):
    segments, image = natural(astronaut[60:180, 150:290]) if kind == "natural" else noise(3, 12)
    ours = merge_regions(segments, image, method=method, threshold=threshold)
    theirs = scikit_images_merge(segments, image, method, threshold)
    assert reference.same_partition(ours, theirs)
    if kind == "natural":
        assert 1 < ours.max() + 1 < segments.max() + 1  # the comparison is of something


@pytest.mark.parametrize("method", ["cut", "hierarchical"])
def test_partitions_are_scikit_images_on_a_labelled_photo(data_root, method):
    from training.data import load_fashionista

    image = load_fashionista(data_root, "train", ["person"], limit=1)[0].image[150:300, 120:260]
    segments, image = natural(image)
    ours = merge_regions(segments, image, method=method, threshold=10)
    assert reference.same_partition(ours, scikit_images_merge(segments, image, method, 10))
    assert 1 < ours.max() + 1 < segments.max() + 1


# ---- colour clusters


def test_clusters_are_of_colour_and_by_default_connected():
    segments = grid("001122", "001122").astype(np.int32)
    image = photo(segments, 20, 80, 22)
    assert_array_equal(merge_regions(segments, image, by="colour", clusters=2), segments)
    together = merge_regions(segments, image, by="colour", clusters=2, adjacent_only=False)
    assert_array_equal(together, grid("001100", "001100"))
    touching = grid("002211", "002211").astype(np.int32)
    assert_array_equal(
        merge_regions(touching, photo(touching, 20, 80, 22), by="colour", clusters=2), grid("000011", "000011")
    )


def test_large_regions_draw_the_clusters():
    # The first two are nearer, but both are large: joining them costs 50 * 20^2, the last two about 1 * 30^2.
    for widths, expected in (((100, 100, 1), [0, 1, 1]), ((1, 1, 1), [0, 0, 1])):
        segments = np.repeat(np.arange(3), widths)[None]
        graph = RegionGraph(segments, photo(segments, 30, 50, 80))
        assert_array_equal(graph.kmeans(2, adjacent_only=False), expected)


def test_place_weight_tells_far_regions_of_one_colour_apart():
    segments = grid("012222234", "012222234").astype(np.int32)
    graph = RegionGraph(segments, photo(segments, 50, 60, 100, 51, 61))
    assert_array_equal(graph.kmeans(3, adjacent_only=False), [0, 1, 2, 0, 1])
    by_place = np.array([0, 0, 1, 2, 2])
    options = {"clusters": 3, "adjacent_only": False, "place_weight": 1000}
    assert_array_equal(graph.kmeans(**options), by_place)
    image = photo(segments, 50, 60, 100, 51, 61)
    assert_array_equal(merge_regions(segments, image, by="colour", **options), by_place[segments])


def test_one_seed_gives_one_answer_and_more_clusters_than_colours_are_no_trouble():
    segments, image = noise(5, 12)
    graph = RegionGraph(segments, image)
    assert_array_equal(graph.kmeans(4, seed=3), graph.kmeans(4, seed=3))
    assert_array_equal(graph.kmeans(1000, adjacent_only=False), np.arange(len(graph.areas)))
    flat = photo(grid("012").astype(int), 50, 50, 50)
    assert_array_equal(RegionGraph(grid("012").astype(int), flat).kmeans(3), [0, 0, 0])


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("No module named 'sklearn'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        RegionGraph(*noise(0, 9)).kmeans(2)


# ---- what all of them promise


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.floats(0, 150), way=st.sampled_from(WAYS))
def test_regions_are_only_ever_joined(seed, threshold, way):
    segments, image = noise(seed, 12)
    merged = merge_regions(segments, image, threshold=threshold, **way)
    assert merged.shape == segments.shape and merged.dtype == np.int32
    assert_array_equal(np.unique(merged), np.arange(merged.max() + 1))
    assert merged.max() <= segments.max()
    assert len(np.unique(np.stack([segments.ravel(), merged.ravel()]), axis=1).T) == segments.max() + 1
    firsts = np.unique(merged[np.unravel_index(np.unique(segments, return_index=True)[1], segments.shape)])
    assert_array_equal(firsts, np.arange(merged.max() + 1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.floats(0, 150), way=st.sampled_from(WAYS))
def test_renumbering_regions_changes_no_partition(seed, threshold, way):
    segments, image = noise(seed, 12)
    order = np.random.default_rng(seed + 1).permutation(segments.max() + 1)
    one = merge_regions(segments, image, threshold=threshold, **way)
    other = merge_regions(order[segments], image, threshold=threshold, **way)
    assert reference.same_partition(one, other)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.floats(0, 300), way=st.sampled_from(WAYS))
def test_groups_that_are_kept_apart_never_share_a_region(seed, threshold, way):
    segments, image = noise(seed, 12)
    groups = np.random.default_rng(seed).integers(0, 3, segments.max() + 1)
    merged = merge_regions(segments, image, threshold=threshold, keep_apart=groups, **way)
    pairs = np.unique(np.stack([merged.ravel(), groups[segments].ravel()]), axis=1).T
    assert len(pairs) == merged.max() + 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_background_is_kept_apart_and_the_rest_joins(way):
    segments = grid("0012", "0012").astype(np.int32)
    image = photo(segments, 50, 50, 51)
    options = {"threshold": 300, **way} if way["by"] == "adjacency" else {**way, "clusters": 1}
    assert_array_equal(merge_regions(segments, image, **options), np.zeros((2, 4)))
    background = np.array([True, False, False])
    assert_array_equal(merge_regions(segments, image, keep_apart=background, **options), grid("0011", "0011"))


def test_bad_input_is_refused():
    segments, image = grid("01").astype(np.int32), np.zeros((1, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="by must be one of adjacency, colour; got 'size'"):
        merge_regions(segments, image, by="size")
    with pytest.raises(ValueError, match="method must be one of cut, hierarchical; got 'ncut'"):
        merge_regions(segments, image, method="ncut")
    with pytest.raises(ValueError, match="consecutive ids from 0"):
        merge_regions(segments * 2, image)
    with pytest.raises(ValueError, match=r"image must be \(1, 2, 3\) uint8"):
        merge_regions(segments, image[:, :1])
    graph = RegionGraph(segments, image)
    for wrong in (-1, float("nan")):
        for join in (graph.cut, graph.hierarchical):
            with pytest.raises(ValueError, match="threshold must be 0 or more, in Lab units; got"):
                join(wrong)
    for wrong in (-1, float("nan"), 1e300):
        with pytest.raises(ValueError, match=r"place_weight must be in 0\.\.1e\+06; got"):
            graph.kmeans(2, place_weight=wrong)
    for wrong in (0, 1.5, True, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="clusters must be a whole number of 1 or more; got"):
            graph.kmeans(wrong)
    for wrong in (np.zeros(3, bool), np.zeros(2), [0, 0, 0], [0.5, 0.5]):
        with pytest.raises(ValueError, match=r"keep_apart must be \(2,\) int or bool, one value per region; got"):
            RegionGraph(segments, image, keep_apart=wrong)
    assert RegionGraph(segments, image, keep_apart=[0, 1]).cut(200).tolist() == [0, 1]
