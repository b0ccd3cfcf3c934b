"""The committed measurements keep the promises the project makes about speed; a slower one cannot be committed."""

from __future__ import annotations

import json

import pytest

from hubmodels.entries import DEFAULTS, ENTRIES, list_models
from tests.conftest import ROOT
from training.bench_models import REFERENCE

RESULTS = ROOT / "training" / "results"
ADDED_FILES = sorted(RESULTS.glob("bench_models_added*.json"))  # of models that came after the last full run


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


@pytest.fixture(scope="module")
def model_rows() -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((RESULTS / "bench_models.json").read_text())["rows"]}


def reference_ms(rows: dict[str, dict]) -> float:
    """The predecessor's network as it comes, at 600x400."""
    return rows[REFERENCE]["ms"][REFERENCE]


def added_rows() -> dict[str, dict]:
    """Of later runs."""
    return {row["name"]: row for path in ADDED_FILES for row in json.loads(path.read_text())["rows"]}


def test_models_that_were_timed_later_ran_beside_the_predecessors_and_the_default():
    for path in ADDED_FILES:
        assert {REFERENCE, DEFAULTS["fashion"]} < {row["name"] for row in json.loads(path.read_text())["rows"]}


def test_the_default_takes_a_twentieth_of_the_predecessors_time_in_eager_mode(model_rows):
    assert 20 * model_rows[DEFAULTS["fashion"]]["ms"]["torch"] <= reference_ms(model_rows)


def test_every_trained_network_is_timed_and_weighed(model_rows):
    rows = {**model_rows, **added_rows()}
    assert set(rows) == {REFERENCE, *list_models()}
    for name in list_models():
        row = rows[name]
        assert row["parameters"] == ENTRIES[name].parameters  # else another network was timed
        assert row["process"]["torch"]["peak_mb"] > row["process"]["torch"]["peak_mb_before_loading"] > 0


def test_folding_and_onnx_runtime_pay(model_rows):
    """Otherwise neither would be worth its code."""
    ms = model_rows[DEFAULTS["fashion"]]["ms"]
    assert ms["torch"] <= 0.95 * ms["torch, not folded"]
    assert ms["onnx"] < ms["torch"]


def test_the_page_answers_a_slider_at_once():
    """95 of 100 times, on the server's side, for a photo of 600x400."""
    result = json.loads((RESULTS / "bench_page.json").read_text())
    assert result["photo"] == "600x400" and result["machine"]["cores"] == 2
    most_ms = {"min_region_px": 150, "opacity": 150, "crf_iterations, one more": 250, "first answer": 2000}
    assert {name: result["sliders"][name]["p95_ms"] <= ms for name, ms in most_ms.items()} == dict.fromkeys(
        most_ms, True
    )
