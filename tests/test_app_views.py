"""Pictures of the page: every style, exact labels, colours that can be told apart."""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels import FASHION, Segmentation
from hubmodels.app import compare, views
from hubmodels.app.studio import Photo
from hubmodels.app.views import View
from hubmodels.refine import Refinement
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


@pytest.mark.parametrize(
    ("said", "percent"),
    [("29.6", 30), (-5, 0), ("300", 100), ("nan", 55), ("inf", 55), ("", 55), (None, 55), ([30], 55)],
    ids=str,
)
def test_opacity_is_a_whole_number_from_0_to_100(said, percent):
    assert View.of({"opacity": said}).opacity == percent


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
    seg, ids = drawn(np.zeros((1, 5), np.uint8)), np.array([[0, 0, 1, 1, 1]])
    image = np.zeros((1, 5, 3), np.uint8)
    image[0, :, 0], image[0, :, 2] = (10, 20, 30, 50, 51), 7
    shown = np.asarray(views.draw(dataclasses.replace(seg, image=image), View(style="superpixels"), ids))[0]
    assert shown.tolist() == [[15, 0, 7]] * 2 + [[44, 0, 7]] * 3


def test_superpixels_are_drawn_even_if_none_vote():
    own = Refinement(superpixel_scale=100, min_region_px=50)
    assert views.with_superpixels(own) == own
    assert views.with_superpixels(Refinement(min_region_px=50)) == Refinement(superpixel_scale=60, min_region_px=50)


def test_a_cut_out_is_shown_on_a_chequerboard_or_a_colour():
    seg = drawn(np.pad(grid("1"), ((0, 29), (0, 29))))
    board = np.asarray(views.draw(seg, View(style="cutout")))
    assert board.shape == (30, 30, 3) and board[0, 0].tolist() == [100] * 3
    for at, shade in {(0, 9): 255, (9, 10): 204, (10, 9): 204, (10, 10): 255}.items():
        assert board[at].tolist() == [shade] * 3
    view = View(style="cutout", ground="colour", colour="#0a141e")
    assert np.asarray(views.draw(seg, view))[0, :2].tolist() == [[100] * 3, [10, 20, 30]]


@pytest.mark.parametrize(("width", "reach"), [(20, 2), (1200, 30)], ids=["small", "large"])
def test_a_ground_is_blurred_as_far_as_the_photo_is_large(width, reach):
    labels, middle = np.zeros((9, width), np.uint8), width // 2
    labels[0] = 1
    image = np.zeros((9, width, 3), np.uint8)
    image[:, middle:] = 240
    seg = dataclasses.replace(drawn(labels), image=image)
    shown = np.asarray(views.cutout(seg, View(ground="blurred")))
    assert shown.shape == image.shape
    assert_array_equal(shown[0], image[0])
    assert 0 < shown[5, middle - reach, 0] < shown[5, middle, 0] < 240 and shown[5, 0, 0] == 0


def test_an_overlay_is_as_opaque_as_was_said():
    seg = drawn(grid("01"))
    skin, rest = np.array(FASHION.palette[1]), [100] * 3
    for opacity, shown in ((0, rest), (50, (skin + 100) // 2), (100, skin)):
        picture = np.asarray(views.draw(seg, View(opacity=opacity)))
        assert picture[0, 0].tolist() == rest and np.abs(picture[0, 1] - shown).max() <= 1


def test_confidence_runs_from_undecided_to_sure():
    probs = np.array([[[0.5, 0.625, 0.75, 0.875, 1]], [[0.5, 0.375, 0.25, 0.125, 0]]], np.float32)
    shown = np.asarray(views.confidence(probs))[0].astype(int)
    assert shown[0].tolist() == [0, 32, 77] and shown[4].tolist() == [255, 234, 70]
    assert (np.diff(shown.sum(axis=-1)) > 50).all()
    of_seven = np.array([[[1, 4]], *[[[1, 0.5]]] * 6]) / 7
    shown = np.asarray(views.confidence(of_seven))[0].astype(int)
    assert shown[0].tolist() == [0, 32, 77] and np.abs(shown[1] - [124, 123, 120]).max() <= 2


def test_boundaries_are_drawn_where_labels_meet():
    seg = drawn(np.repeat(grid("0" * 10 + "1" * 10), 20, axis=0))
    row = np.asarray(views.draw(seg, View(style="boundaries")))[10, :, 0]
    assert row.tolist() == 7 * [100] + [0, 255, 255, 255, 0] + 8 * [100]


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


@pytest.mark.parametrize("layout", views.LAYOUTS)
def test_both_sides_stand_in_their_places(layout):
    """The left picture comes last, as it lies over the other one."""
    left = compare.Side(Image.new("P", (8, 4)), "<b>one", "first")
    right = compare.Side(Image.new("RGB", (8, 4)), "<b>two", "second")
    page = compare.compare_html(left, right, layout=layout)
    image = r'<img class="(\w+)" src="data:image/(\w+);base64,[^"]+" alt="(\w+)" draggable="false"'
    assert re.findall(image, page) == [("right", "jpeg", "second"), ("left", "png", "first")]
    assert page.index("&lt;b&gt;one") < page.index("Full screen") < page.index("&lt;b&gt;two")
    assert f'class="pair {layout}"' in page and page.count("onload=") == (layout == "slider")
