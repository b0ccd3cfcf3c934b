"""What the page says: legend, shares, model menu, notices."""

from __future__ import annotations

import dataclasses
import html
import math
import re
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hubmodels import LabelSet, Refinement
from hubmodels.app import texts
from hubmodels.app.studio import Photo
from hubmodels.entries import ENTRIES
from hubmodels.masks import TruthScores
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


def test_the_legend_shows_colours_and_shares_as_bars():
    labels = LabelSet("demo", ("ground", "hat", "shoe"), ((0, 0, 0), (1, 2, 3), (4, 5, 6)))
    ids = np.zeros((20, 50), np.uint8)
    ids[0, 0] = 1
    analysis: Any = SimpleNamespace(final=drawn(ids, labels), entry=ENTRIES[CLOTHES])
    page = texts.details_html(analysis, {}, [])
    row = r'<li class="(\w+)"><span class="swatch(.*?)" style="(.*?)">.*?style="width:(.*?)%;(.*?)">'
    hat, shoe = "background:rgb(1, 2, 3)", "background:rgb(4, 5, 6)"
    assert re.findall(row, page) == [
        ("present", " clear", "", "99.9", ""), ("present", "", hat, "0.1", hat), ("absent", "", shoe, "0.0", shoe),
    ]  # fmt: skip
    assert "Time on the server: none, all was remembered." in page


def test_the_legend_says_whose_it_is():
    analysis: Any = SimpleNamespace(final=drawn(grid("01")), entry=ENTRIES[CLOTHES])
    page = texts.details_html(analysis, {}, [], whose="Final of <b>")
    assert '<p class="summary" role="status"><strong>Final of &lt;b&gt;: </strong>Found' in page
    assert 'aria-label="Final of &lt;b&gt;: Labels and their share of the photo"' in page


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (1e-9, "<0.1"), (0.0004, "<0.1"), (0.0005, "0.1"), (0.25, "25.0"), (1, "100.0")],
    ids=str,
)
def test_shares_read_well(share, text):
    assert texts.percent(share) == f"{text}\u00a0%"


def test_nothing_found_is_said():
    assert texts.summary({"background": 1.0, "person": 0.0}) == "Nothing found: all of the photo is background."


def test_what_is_found_is_said_from_large_to_small():
    areas = {"background": 0.5, "hair": 0.125, "skin": 0.375, "dress": 0.0}
    said = "Found skin (37.5 %), hair (12.5 %); 50.0 % is background."
    assert texts.summary(areas).replace("\u00a0", " ") == said


def test_scores_stand_beside_those_of_the_raw_network():
    final = TruthScores(0.75, math.nan, {"<b>": 0.5, "hat": 0.25, "shoe": 0.5})
    raw = TruthScores(0.5, math.nan, {"<b>": 0.75, "bag": 0.0, "shoe": 0.5})
    row = r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td><td class="(.*?)">(.*?)</td></tr>'
    assert re.findall(row, texts.scores_html(final, raw)) == [
        ("mIoU", "75.00", "50.00", "up", "+25.00"),
        ("boundary F, 3 px", "-", "-", "same", ""),
        ("IoU &lt;b&gt;", "50.00", "75.00", "down", "-25.00"),
        ("IoU hat", "25.00", "-", "same", ""),
        ("IoU shoe", "50.00", "50.00", "same", "+0.00"),
        ("IoU bag", "-", "0.00", "same", ""),  # which settings have removed
    ]


def test_the_menu_of_what_is_cut_out_has_every_label_but_the_background():
    names = ["skin", "hair", "t-shirt", "shoes", "pants", "dress"]
    assert texts.cut_choices(ENTRIES[CLOTHES]) == [("all that was found", ""), *zip(names, names, strict=True)]


def test_a_line_about_a_model_names_scores_only_if_there_are_some():
    entry = dataclasses.replace(ENTRIES[CLOTHES])
    assert re.search(r"MB\. \d+\.\d mIoU, .*\)\.$", texts.model_facts(entry))
    measured = {"metrics": {}, "parameters": 3_210_000, "size_bytes": 6_730_000}
    object.__setattr__(entry, "measured", MappingProxyType(measured))
    assert texts.model_facts(entry) == f"{entry.title}. 3.2 M parameters, 6.7 MB."


def test_the_menu_shows_score_size_and_speed(monkeypatch):
    entry = dataclasses.replace(ENTRIES[CLOTHES])
    measured = {"metrics": {"miou": 0.6123}, "size_bytes": 6_730_000}
    object.__setattr__(entry, "measured", MappingProxyType(measured))
    monkeypatch.setattr(texts, "find_entry", lambda name: entry)
    assert texts.model_choice(CLOTHES, {CLOTHES: 0.123}) == f"{CLOTHES} · 61.2 mIoU · 6.7 MB · 0.12 s"
    measured["metrics"] = {}
    object.__setattr__(entry, "measured", MappingProxyType(measured))
    for speeds in ({}, {"another": 0.1}):
        assert texts.model_choice(CLOTHES, speeds) == f"{CLOTHES} · 6.7 MB"


def test_notices_escape_what_they_say():
    assert "<script>" not in texts.notice_html("<script>", error=True)
    assert 'onclick="go(&quot;&lt;&quot;)"' in texts.notice_html("x", retry='go("<")')


def test_only_what_is_wrong_interrupts_and_only_what_can_be_tried_again_has_a_button():
    plain, wrong = texts.notice_html("x"), texts.notice_html("x", error=True, retry="go()")
    assert plain == '<div class="notice" role="status"><p>x</p></div>'
    assert wrong.startswith('<div class="notice wrong" role="alert">') and wrong.count("<button") == 1


def test_text_to_copy_is_shown_as_it_is():
    text = 'seg = a < b & "c"'
    page = texts.copy_html('A "<b>', text)
    assert f">{html.escape(text)}</pre>" in page and page.count("&quot;&lt;b&gt;") == 3 and "<b>" not in page


def test_visitors_read_how_long_their_photos_are_kept():
    assert "until newer ones take their place or 30 minutes" in texts.PRIVACY
