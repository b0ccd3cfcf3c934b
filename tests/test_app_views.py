"""Pictures of the page: every style, exact labels, colours that can be told apart."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels import FASHION, Segmentation
from hubmodels.app import compare, views
from hubmodels.app.studio import Photo
from hubmodels.app.views import View
from tests.conftest import grid
from tests.page_examples import CLOTHES, TUNED, drawn


@pytest.mark.parametrize(
    ("said", "colour"),
    [
        ("#12AB34", "#12ab34"),
        ("rgba(1.5, 2, 300, 0.5)", "#0202ff"),
        ("rgb(1.2.3,4,5)", "#ffffff"),
        ("rgb(1.,2,3)", "#ffffff"),
        (f"rgb({'9' * 400},4,5)", "#ff0405"),
        ("red", "#ffffff"),
    ],
    ids=["hex", "picker", "points", "point", "huge", "name"],
)
def test_colours_are_read_or_left_at_white(said, colour):
    assert View.of({"colour": said}).colour == colour


def test_values_of_a_view_that_make_no_sense_are_left_at_their_defaults():
    for value in (["x"], {"x": 1}, None, 3, "nowhere", True):
        assert View.of({field.name: value for field in dataclasses.fields(View) if field.name != "opacity"}) == (
            View(label="nowhere", other="nowhere") if value == "nowhere" else View()
        )


def test_every_style_is_a_picture_of_the_photo_s_size(studio, small):
    analysis = studio.analyse(Photo.of(small), CLOTHES, TUNED)
    for style in views.STYLES:
        for ground in views.GROUNDS if style == "cutout" else ("transparent",):
            for edges in views.EDGES if style == "cutout" else ("hard",):
                view = View(style=style, ground=ground, edges=edges)
                picture = views.draw(analysis.final, view, analysis.tuner.superpixels(TUNED))
            assert picture.size == (64, 96) and not picture.info.get("exif")


def test_labels_stay_exact_on_their_way_to_the_browser():
    seg = drawn(grid("0123", "4560"))
    url = compare.data_url(views.draw(seg, View(style="labels")))
    import base64

    kind, _, data = url.partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert kind == "data:image/png;base64"
        assert_array_equal(np.asarray(picture), seg.labels)


def test_a_cut_out_shows_the_label_and_its_ground():
    seg = drawn(grid("0011", "0022"))
    rgba = np.asarray(views.cutout(seg, View(label="skin")))
    assert_array_equal(rgba[..., 3], [[0, 0, 255, 255], [0, 0, 0, 0]])
    assert_array_equal(np.asarray(views.cutout(seg, View()))[..., 3], [[0, 0, 255, 255]] * 2)
    red = np.asarray(views.cutout(seg, View(label="skin", ground="colour", colour="#ff0000")))
    assert red.shape == (2, 4, 3) and red[0, 0].tolist() == [255, 0, 0] and red[0, 2].tolist() == [100] * 3


def test_soft_edges_mix_the_label_with_its_ground(small):
    labels = np.zeros((96, 64), np.uint8)
    labels[30:70, 20:50] = 1
    seg = Segmentation(small, labels, np.full((7, 96, 64), 1 / 7, np.float32), FASHION)
    view = View(label="skin", ground="colour", colour="#ff0000", edges="soft")
    rgba = np.asarray(views.cutout(seg, View(label="skin", edges="soft"))).astype(float)
    share = rgba[..., 3:] / 255
    assert ((share > 0) & (share < 1)).any()
    expected = share * rgba[..., :3] + (1 - share) * np.array([255.0, 0, 0])
    assert np.abs(np.asarray(views.cutout(seg, view)) - expected).max() <= 1
    assert_array_equal(
        np.asarray(views.draw(seg, View(style="cutout", label="skin", edges="soft")))[50, 35], small[50, 35]
    )


def test_superpixels_take_their_mean_colour():
    image = np.zeros((1, 4, 3), np.uint8)
    image[0, :, 0] = (10, 20, 30, 50)
    assert np.asarray(views.mean_colours(image, np.array([[0, 0, 1, 1]])))[0, :, 0].tolist() == [15, 15, 40, 40]


def test_confidence_runs_from_undecided_to_sure():
    probs = np.array([[[0.5, 0.75, 1.0]], [[0.5, 0.25, 0.0]]], np.float32)
    shown = np.asarray(views.confidence(probs))[0].astype(int)
    assert shown[0].tolist() == [0, 32, 77] and shown[2].tolist() == [255, 234, 70]
    assert shown[0].sum() < shown[1].sum() < shown[2].sum()


def test_boundaries_are_drawn_where_labels_meet():
    seg = drawn(np.repeat(grid("0" * 10 + "1" * 10), 20, axis=0))
    row = np.asarray(views.draw(seg, View(style="boundaries")))[10, :, 0]
    assert row[9] == 255 and row[7] == 0 and row[0] == row[19] == 100


def test_labels_are_told_apart_by_colour_blind_readers():
    """Palette colours differ by a clear step for each common kind of colour vision (Machado et al. 2009, full)."""
    kinds = {
        "usual": np.eye(3),
        "protanopia": np.array(
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
        ),
        "deuteranopia": np.array(
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
        ),
    }
    from skimage.color import rgb2lab

    for name, matrix in kinds.items():
        linear = (np.array(FASHION.palette) / 255) ** 2.2
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        lab = rgb2lab(seen[None])[0]
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(len(lab))
        assert distance.min() > 12, (name, distance.round(1))  # about 2 is just seen


def test_pictures_have_text_and_a_handle_for_keys():
    sides = [compare.Side(Image.new("RGB", (8, 4)), f"cap <{x}>", f'alt "{x}"') for x in "ab"]
    page = compare.compare_html(*sides, layout="slider")
    assert page.count("alt &quot;") == page.count('alt="') == 2 and "<a>" not in page and "--ratio:2.0000" in page
    assert 'type="range"' in page and 'type="range"' not in compare.compare_html(*sides, layout="two-up")
