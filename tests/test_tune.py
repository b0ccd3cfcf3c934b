"""Choosing settings on val: the rule, the table, and what the shipped results files say about the shipped defaults."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hubmodels import Refinement
from hubmodels.entries import DEFAULTS, ENTRIES
from hubmodels.labels import TASKS
from hubmodels.refine import PRESETS
from training import tune
from training.data import Sample


def row(miou: float, boundary_f: float) -> dict[str, float]:
    return {"miou": miou, "boundary_f": boundary_f}


@pytest.mark.parametrize(
    "rows, chosen",
    [
        ([row(0.6, 0.9), row(0.7, 0.2)], 1),  # the highest mIoU that beats doing nothing
        ([row(0.7, 0.2), row(0.7, 0.3)], 1),  # boundary F decides a tie
        ([row(0.4, 0.9), row(0.5, 0.6)], 1),  # none beats it: the outline, at no cost of mIoU
        ([row(0.4, 0.9), row(0.5, 0.5)], None),  # nothing helps
    ],
)
def test_the_rule_of_choice(rows, chosen):
    off = row(0.5, 0.5)
    assert tune.choose(off, rows) == (None if chosen is None else rows[chosen])


@pytest.mark.parametrize("study", tune.STUDIES)
@pytest.mark.parametrize("task", TASKS)
def test_candidates_are_different_settings_that_do_something(study, task):
    settings = [candidate for _, candidate in tune.STUDIES[study](task)]
    assert Refinement() not in settings and len(set(settings)) == len(settings) > 10


def test_the_report_measures_what_users_get(person, monkeypatch, astronaut):
    """On one photo whose truth is the answer of a candidate, that candidate is found and chosen."""
    image = astronaut[:256, :256]
    settings = Refinement(min_region_px=3000, person_threshold=0.9)
    truth = person.predict(image, refinement=settings).labels
    assert (truth != person.predict(image).labels).any()
    monkeypatch.setattr(tune, "load_model", lambda name: person)
    candidates = [("one", Refinement(min_region_px=5)), ("two", settings)]
    result = tune.report(ENTRIES[person.name], [Sample("drawn", image, {"person": truth})], candidates)
    assert result["chosen"] == result["best"]["two"] == result["rows"][1]
    assert result["rows"][1]["miou"] == 1 > result["off"]["miou"]
    assert result["rows"][1]["settings"] == {"min_region_px": 3000, "person_threshold": 0.9}
    assert [each["stage"] for each in result["rows"]] == ["one", "two"]
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("study", tune.STUDIES)
@pytest.mark.parametrize("task", TASKS)
def test_shipped_results_are_of_the_shipped_models_and_on_val(study, task):
    entry = ENTRIES[DEFAULTS[task]]
    result = json.loads((tune.RESULTS / f"tune_{study}_{entry.name}.json").read_text())
    assert result["sha256"] == entry.sha256 and result["data"] == "Fashionista val split" and result["images"] == 60
    wanted = [(stage, settings.changes()) for stage, settings in tune.STUDIES[study](task)]
    assert [(each["stage"], each["settings"]) for each in result["rows"]] == wanted
    assert result["chosen"] == tune.choose(result["off"], result["rows"])


@pytest.mark.parametrize("task", TASKS)
def test_presets_are_settings_that_were_measured_and_raise_both_scores(task):
    result = json.loads((tune.RESULTS / f"tune_refine_{DEFAULTS[task]}.json").read_text())
    measured = {Refinement(**each["settings"]): each for each in result["rows"]}
    for name in set(PRESETS) - {"off"}:
        found = measured[Refinement.preset(name, task=task)]
        assert found["miou"] > result["off"]["miou"] and found["boundary_f"] > result["off"]["boundary_f"], name


def test_the_crf_of_the_presets_is_the_one_chosen_on_val():
    for task in TASKS:
        chosen = json.loads((tune.RESULTS / f"tune_crf_{DEFAULTS[task]}.json").read_text())["chosen"]["settings"]
        preset = Refinement.preset("gentle", task=task).changes()
        assert {name: value for name, value in preset.items() if name.startswith("crf_")} == chosen


@pytest.mark.parametrize("task", TASKS)
def test_preset_scores_on_test_are_of_the_shipped_models(task):
    entry = ENTRIES[DEFAULTS[task]]
    for preset in set(PRESETS) - {"off"}:
        result = json.loads((tune.RESULTS / f"{entry.name}_{preset}.json").read_text())
        assert result["sha256"] == entry.sha256 and result["images"] == 120
        assert result["data"] == "Fashionista test split"
        assert result["refinement"] == Refinement.preset(preset, task=task).to_dict()


def test_the_region_report_is_of_the_shipped_classifier():
    result = json.loads((tune.RESULTS / "regions_deeplabv3plus_fashion.json").read_text())
    for kind, entry in (("network", "deeplabv3plus_fashion"), ("regions", "regions_fashion")):
        metrics = ENTRIES[entry].metrics
        assert {key: result["test"][kind][key] for key in ("miou", "pixel_accuracy", "boundary_f", "iou")} == {
            key: metrics[key] for key in ("miou", "pixel_accuracy", "boundary_f", "iou")
        }


def test_scores_are_rounded_shares(rng):
    from hubmodels.metrics import Scores

    scores = Scores(3)
    scores.add(rng.integers(0, 3, (20, 20)).astype(np.uint8), rng.integers(0, 3, (20, 20)).astype(np.uint8))
    assert all(0 <= value <= 1 and round(value, 5) == value for value in scores.summary().values())
