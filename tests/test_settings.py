"""Settings as a value: what they accept, how they are written, presets and help."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

from hubmodels import Refinement
from hubmodels.labels import TASKS
from hubmodels.refine import (
    PRESETS,
    SETTINGS,
)
from hubmodels.refine.settings import STAGES as ORDER
from hubmodels.refine.settings import settings_of
from tests.conftest import ROOT


def test_settings_survive_json():
    settings = Refinement(**{name: s.choices[-1] if s.choices else s.high for name, s in SETTINGS.items()})
    assert settings != Refinement() and Refinement.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_changes_are_what_differs_from_the_defaults_in_their_order():
    assert Refinement().changes() == {}
    settings = Refinement(vote="majority", crf_iterations=2, min_region_px=0)
    assert list(settings.changes().items()) == [("crf_iterations", 2), ("vote", "majority")]


@pytest.mark.parametrize(
    "values, error, message",
    [
        ({"superpixel_scale": -1}, ValueError, "0..10000"),
        ({"min_region_px": 1_000_000}, ValueError, "0..240000"),
        ({"min_region_px": 2.5}, ValueError, "whole number"),
        ({"crf_iterations": 1.5}, ValueError, "whole number"),
        ({"crf_iterations": 21}, ValueError, r"0\.\.20"),
        ({"superpixel_scale": float("nan")}, ValueError, "nan"),
        ({"superpixel_scale": "100"}, TypeError, "superpixel_scale must be a number; got str"),
        ({"min_region_px": True}, TypeError, "got bool"),
        ({"crf_iterations": np.array([5])}, TypeError, "got ndarray"),
        ({"min_region_px": np.float64(2.5)}, ValueError, r"whole number; got 2\.5"),
        ({"min_region_px": np.bool_(True)}, TypeError, "got bool"),
        ({"min_regoin_px": 3}, ValueError, "min_regoin_px"),
        ({"crf_appearance_sigma_px": 0}, ValueError, "1..500"),
        ({"person_threshold": 1.5}, ValueError, "0..1; got 1.5"),
        ({"superpixel_method": "voronoi"}, ValueError, r"one of \['felzenszwalb', 'slic', 'quickshift', 'watershed'\]"),
        ({"merge": None}, ValueError, "'hierarchical'"),
        ({"vote": 1}, ValueError, "'classifier'"),
        ({"connectivity": 6}, ValueError, r"\[4, 8\]; got 6"),
        ({"connectivity": True}, ValueError, "got True"),
        ({"keep_largest": 1}, ValueError, "got 1"),
        ({"schema_version": 99}, ValueError, "version 99"),
        ({"schema_version": "1"}, ValueError, "version '1'; this release reads 1"),
    ],
)
def test_wrong_settings_are_refused(values, error, message):
    with pytest.raises(ValueError, match=message):  # in a file, wrong types are wrong values
        Refinement.from_dict(values)
    if set(values) <= set(SETTINGS):
        with pytest.raises(error, match=message):
            Refinement(**values)


@pytest.mark.parametrize("values", [None, "{}", [], 3], ids=repr)
def test_settings_are_a_mapping(values):
    with pytest.raises(TypeError, match="must be a mapping, as to_dict"):
        Refinement.from_dict(values)


def test_numpy_scalars_become_pythons():
    settings = Refinement(
        min_region_px=np.int64(50), superpixel_scale=np.float32(60), keep_largest=np.bool_(True), merge=np.str_("cut")
    )
    assert settings == Refinement(min_region_px=50, superpixel_scale=60.0, keep_largest=True, merge="cut")
    assert Refinement.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert dataclasses.replace(settings, connectivity=np.uint8(8)).to_dict()["connectivity"] == 8


def test_a_misspelt_stage_is_refused():
    with pytest.raises(ValueError, match="expected stages of crf, decision, superpixels, clean-up; got 'superpixel'"):
        settings_of("crf", "superpixel")


def test_presets_are_settings_of_every_task_and_off_is_off():
    assert "off" in PRESETS
    for task in TASKS:
        assert Refinement.preset("off", task=task) == Refinement()
        for name in set(PRESETS) - {"off"}:
            assert Refinement.preset(name, task=task) != Refinement()
    with pytest.raises(ValueError, match=r"no preset 'wild'; expected one of \['off'"):
        Refinement.preset("wild", task="person")
    with pytest.raises(ValueError, match="no preset for task 'pets'"):
        Refinement.preset("off", task="pets")


def test_stages_partition_the_settings_in_the_order_in_which_they_run():
    assert [each.stage for each in SETTINGS.values()] == sorted(
        (each.stage for each in SETTINGS.values()), key=ORDER.index
    )
    assert sum((settings_of(stage) for stage in ORDER), ()) == tuple(SETTINGS)
    assert settings_of("crf")[0] == "crf_iterations" and settings_of("superpixels")[0] == "superpixel_scale"
    assert settings_of("clean-up") == ("min_region_px", "fill_holes_px", "keep_largest", "connectivity")


def test_help_lists_every_setting_with_its_range():
    lines = inspect.getdoc(Refinement).splitlines()[-len(SETTINGS) :]
    assert [line.partition(" (")[0] for line in lines] == list(SETTINGS)
    assert all(line.endswith(f": {s.help}.") for line, s in zip(lines, SETTINGS.values(), strict=True))
    assert "crf_iterations (0..20; 0)" in lines[0] and "merge (off, cut" in Refinement.__doc__


def test_settings_cost_no_pytorch():
    code = "import sys, hubmodels.refine.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
