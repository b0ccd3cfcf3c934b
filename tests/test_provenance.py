"""What model cards say of the training, stage after stage."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from tests.tiny_runs import TINY
from training.average import main as average
from training.errors import DataError
from training.provenance import of_stage, provenance


def test_a_stage_names_its_photos_its_teachers_and_its_start(tmp_path):
    (tmp_path / "settings.json").write_text(
        json.dumps(
            {
                "ccp": {"fashion": {"teachers": ["b", "a"]}, "other": {"teachers": ["x"]}},
                "elsewhere": {"fashion": {"teachers": ["y"]}},
            }
        )
    )
    plain = dataclasses.replace(TINY, init="random", sources=("fashionista", "ccp"))
    assert provenance(plain) == "Fashionista and Clothing Co-Parsing"
    taught = dataclasses.replace(plain, soft_labels=str(tmp_path), init="imagenet")
    assert provenance(taught) == (
        "Fashionista and Clothing Co-Parsing, in part with labels by a and b, "
        "starting from a backbone trained on ImageNet"
    )
    unknown = dataclasses.replace(plain, soft_labels=str(tmp_path / "none"))
    assert provenance(unknown).endswith("in part with labels by other networks")
    published = dataclasses.replace(plain, init="u2net_small_person", sources=("ccp",))
    assert provenance(published).startswith(
        "Clothing Co-Parsing, starting from u2net_small_person (Apache-2.0), which was"
    )


def test_every_stage_before_is_told(tmp_path):
    first = dataclasses.replace(TINY, init="imagenet", sources=("ccp",))
    torch.save({"recipe": {}, "ema": {}, "provenance": provenance(first)}, tmp_path / "first.pt")
    second = dataclasses.replace(TINY, init=str(tmp_path / "first.pt"), sources=("fashionista",))
    assert provenance(second) == (
        "Fashionista, starting from an earlier stage, which was trained on Clothing Co-Parsing, "
        "starting from a backbone trained on ImageNet"
    )
    assert of_stage(second) == "Fashionista"
    torch.save({"recipe": {}, "ema": {}}, tmp_path / "first.pt")
    assert provenance(second).endswith("trained on photos that its checkpoint does not name")
    with pytest.raises(DataError, match=r"none\.pt: no checkpoint there"):
        provenance(dataclasses.replace(TINY, init=str(tmp_path / "none.pt")))


def test_a_mean_was_trained_on_what_its_runs_were(tmp_path):
    for number in (1, 2):
        state = {"recipe": TINY.to_dict(), "ema": {"w": torch.ones(1)}, "provenance": f"set {number}"}
        torch.save({**state, "photos": {"seen": [f"p/{number}", "p/0"]}}, tmp_path / f"{number}.pt")
    average([str(tmp_path / "1.pt"), str(tmp_path / "2.pt"), "--out", str(tmp_path / "mean.pt")])
    mean = torch.load(tmp_path / "mean.pt", weights_only=True)
    assert mean["provenance"] == "set 1; and set 2" and mean["photos"] == {"seen": ["p/0", "p/1", "p/2"]}


def test_a_mean_says_what_several_runs_share_once_and_nothing_that_none_says(tmp_path):
    state = {"recipe": TINY.to_dict(), "ema": {"w": torch.ones(1)}}
    torch.save({**state, "provenance": "a set"}, tmp_path / "new.pt")
    torch.save(state, tmp_path / "old.pt")

    def mean_of(*names: str) -> dict:
        average([*(str(tmp_path / name) for name in names), "--out", str(tmp_path / "mean.pt")])
        return torch.load(tmp_path / "mean.pt", weights_only=True)

    assert mean_of("new.pt", "new.pt", "old.pt")["provenance"] == "a set"
    assert set(mean_of("old.pt", "old.pt")) == set(state)
