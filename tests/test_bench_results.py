"""The committed measurements keep the promises the project makes about speed; a slower one cannot be committed."""

from __future__ import annotations

import json

import pytest

from hubmodels.entries import DEFAULTS
from tests.conftest import ROOT

RESULTS = ROOT / "training" / "results"


@pytest.fixture(scope="module")
def refine_times() -> dict:
    return json.loads((RESULTS / "bench_refine.json").read_text())


@pytest.mark.parametrize("iterations", [5, 10])
def test_the_crf_takes_a_quarter_of_pydensecrfs_time_for_the_same_labels(iterations):
    rows = json.loads((RESULTS / "bench_crf.json").read_text())["rows"]
    rows = {row["name"].split()[0]: row for row in rows if row["iterations"] == iterations and "," not in row["name"]}
    ours, theirs = rows["hubmodels"], rows["pydensecrf2"]
    assert ours["total_ms"] <= theirs["total_ms"] / 4
    assert theirs["equal_labels"] >= 0.9999 and theirs["largest_difference"] <= 1e-4


@pytest.mark.parametrize(
    "stage, most_ms",
    [("vote", 30), ("merge, cut, with a new graph", 30), ("clean-up", 30), ("felzenszwalb, a new scale", 80)],
)
def test_stages_are_quick(refine_times, stage, most_ms):
    assert refine_times["stages_ms"][stage] <= most_ms


@pytest.mark.parametrize(
    "slider, most_ms", [("min_region_px", 40), ("superpixel_scale", 150), ("merge_threshold", 60), ("unchanged", 1)]
)
def test_sliders_are_quick(refine_times, slider, most_ms):
    assert refine_times["sliders_ms"][slider] <= most_ms


def test_what_is_replaced_is_much_slower(refine_times):
    stages, loops = refine_times["stages_ms"], refine_times["loops_ms"]
    assert stages["felzenszwalb, scikit-image"] >= 5 * stages["felzenszwalb, a new scale"]
    for stage in ("vote", "clean-up"):
        assert loops[f"{stage}, loops"] >= 50 * loops[stage]


def test_loading_the_defaults_and_importing_the_package_are_quick():
    """From a warm disk, once PyTorch is imported; the import alone needs nothing else."""
    times = json.loads((RESULTS / "bench_load.json").read_text())["seconds"]
    assert times["import hubmodels"] <= 0.5
    assert all(times[f"load {name}"] <= 1.5 for name in DEFAULTS.values())
