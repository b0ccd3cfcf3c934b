"""What the page says: legend, shares, model menu, notices."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import pytest

from hubmodels import LabelSet, Refinement
from hubmodels.app import texts
from hubmodels.app.studio import Photo
from hubmodels.entries import ENTRIES
from tests.conftest import grid
from tests.page_examples import CLOTHES, drawn


def test_the_legend_names_every_label_with_its_share(studio, small):
    analysis = studio.analyse(Photo.of(small), CLOTHES, Refinement())
    labels = LabelSet("demo", ("ground", "<b>&hat", "shoe"), ((0, 0, 0), (1, 2, 3), (4, 5, 6)))
    analysis = dataclasses.replace(analysis, final=drawn(grid("0001"), labels))
    page = texts.details_html(analysis, {"network": 0.5, "pictures": 0.01}, ["<i>note"])
    assert "<b>" not in page and page.count("&lt;b&gt;&amp;hat") == 2 and "&lt;i&gt;note" in page
    assert page.count("<li") == 3 and page.count("background:rgb(1, 2, 3)") == 2
    assert "Found &lt;b&gt;&amp;hat (25.0\u00a0%); 75.0\u00a0% is ground." in page
    assert 'class="absent"' in page and "510 ms (network 500 ms, pictures 10 ms)" in page


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0"), (1e-9, "<0.1"), (0.0005, "0.1"), (0.25, "25.0"), (1, "100.0")], ids=str
)
def test_shares_read_well(share, text):
    assert texts.percent(share) == f"{text}\u00a0%"


def test_nothing_found_is_said():
    assert texts.summary({"background": 1.0, "person": 0.0}) == "Nothing found: all of the photo is background."


def test_the_menu_shows_score_size_and_speed(monkeypatch):
    entry = dataclasses.replace(ENTRIES[CLOTHES])
    measured = {"metrics": {"miou": 0.6123}, "size_bytes": 6_730_000}
    object.__setattr__(entry, "measured", MappingProxyType(measured))
    monkeypatch.setattr(texts, "find_entry", lambda name: entry)
    assert texts.model_choice(CLOTHES, {CLOTHES: 0.123}) == f"{CLOTHES} · 61.2 mIoU · 6.7 MB · 0.12 s"
    measured["metrics"] = {}
    object.__setattr__(entry, "measured", MappingProxyType(measured))
    assert texts.model_choice(CLOTHES, {}) == f"{CLOTHES} · 6.7 MB"


def test_notices_escape_what_they_say():
    assert "<script>" not in texts.notice_html("<script>", error=True)
