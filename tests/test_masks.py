"""A visitor's own mask: every kind that is read, every kind that is explained, and its scores."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels
from hubmodels import FASHION, PERSON, ImageError, LabelSet, masks
from hubmodels.app import texts
from hubmodels.metrics import IGNORE
from tests.conftest import grid


def saved(folder: Path, picture: Image.Image, kind: str = "PNG") -> Path:
    picture.save(folder / "mask.png", kind)
    return folder / "mask.png"


def read(path: Path, labels: LabelSet = FASHION, size: tuple[int, int] = (2, 4)) -> np.ndarray:
    return masks.read_truth(path, labels, size, max_pixels=1000)


def test_masks_of_every_kind_are_read(tmp_path):
    ids = grid("0123", "4560")
    indexed = hubmodels.export.indexed_png(ids, FASHION)
    reordered = Image.fromarray(np.array(FASHION.palette, np.uint8)[ids]).quantize(7)  # ids of its own, same colours
    for picture in (indexed, Image.fromarray(ids), indexed.convert("RGB"), indexed.convert("RGBA"), reordered):
        assert_array_equal(read(saved(tmp_path, picture)), ids)
    undecided = ids.copy()
    undecided[0, 0] = IGNORE
    assert_array_equal(read(saved(tmp_path, Image.fromarray(undecided))), undecided)
    black_and_white = Image.fromarray(grid("0101", "1100") * 255)
    for picture in (black_and_white, black_and_white.convert("1")):
        assert_array_equal(read(saved(tmp_path, picture), PERSON), grid("0101", "1100"))


@pytest.mark.parametrize("kind", ["L", "1"])
def test_a_mask_that_is_white_all_over_is_all_person(tmp_path, kind):
    for value, id in ((255, 1), (0, 0)):
        path = saved(tmp_path, Image.new("L", (4, 2), value).convert(kind))
        assert_array_equal(read(path, PERSON), np.full((2, 4), id))


WHITE_IDS = grid("0101", "1100")


def black_and_white(kind: str) -> Image.Image:
    """White where `WHITE_IDS` is 1, as programs write it."""
    grey = Image.fromarray(WHITE_IDS * 255)
    if kind == "white first":  # in the palette
        return grey.convert("RGB").quantize(2)
    if kind == "black first":
        picture = Image.fromarray(WHITE_IDS).convert("P")
        picture.putpalette([0, 0, 0, 255, 255, 255])
        return picture
    if kind == "cut out":  # all white; what is transparent is no person
        return Image.merge("LA", (Image.new("L", grey.size, 255), grey))
    return grey.convert(kind)  # as P, a palette of 256 greys


@pytest.mark.parametrize("kind", ["L", "1", "P", "RGB", "RGBA", "LA", "white first", "black first", "cut out"])
def test_white_is_the_person_in_black_and_white_of_any_kind(tmp_path, kind):
    path = saved(tmp_path, black_and_white(kind))
    assert_array_equal(read(path, PERSON), WHITE_IDS)
    if kind == "white first":  # or else the test would not say anything
        with Image.open(path) as picture:
            assert picture.mode == "P" and np.asarray(picture)[0, 1] == 0


def test_only_white_makes_a_mask_black_and_white(tmp_path):
    """Ids stay ids: of our own files, of greys beside white, of black alone, and of tasks with more labels."""
    ids = WHITE_IDS
    assert_array_equal(read(saved(tmp_path, hubmodels.export.indexed_png(ids, PERSON)), PERSON), ids)
    greys = Image.fromarray(np.where(ids == 1, IGNORE, grid("0010", "0001"))).convert("P")  # 0, 1 and undecided
    assert_array_equal(read(saved(tmp_path, greys), PERSON), np.asarray(greys))
    assert_array_equal(read(saved(tmp_path, Image.new("RGB", (4, 2))), PERSON), np.zeros((2, 4)))
    assert_array_equal(read(saved(tmp_path, black_and_white("black first")), FASHION), ids)
    with pytest.raises(ImageError, match="#ffffff"):
        read(saved(tmp_path, black_and_white("RGB")), FASHION)
    with pytest.raises(ImageError, match="holds 0 and 255 alone: if it is black and white, it is not for fashion"):
        read(saved(tmp_path, black_and_white("L")), FASHION)


@pytest.mark.parametrize("ids", [grid("9900", "9900"), grid("9999", "9999")], ids=["in part", "whole"])
def test_masks_may_be_undecided_but_for_the_background(tmp_path, ids):
    """As somebody leaves them who painted over the only label of a mask that `hubmodels label` wrote."""
    ids = np.where(ids == 9, np.uint8(IGNORE), ids)
    with Image.open(saved(tmp_path, hubmodels.export.indexed_png(np.zeros_like(ids), FASHION))) as written:
        picture = written.copy()
    picture.putdata(ids.ravel().tolist())
    palette = (picture.getpalette() + 768 * [0])[:765]
    for colour, is_read in (((128, 128, 128), True), ((0, 0, 0), True), ((255, 255, 255), False)):
        picture.putpalette([*palette, *colour])
        path = saved(tmp_path, picture)
        with nullcontext() if is_read else pytest.raises(ImageError, match="black and white, but fashion has 7 labels"):
            assert_array_equal(read(path, FASHION), ids)


@pytest.mark.parametrize(
    ("ids", "colours", "filling", "expected"),
    [
        ("0123 4569", FASHION.palette, FASHION.palette[0], "0123 4569"),
        ("1123 4569", FASHION.palette, FASHION.palette[0], "1123 4569"),  # no pixel of the background
        ("0123 4569", FASHION.palette, FASHION.palette[-1], "0123 4569"),
        ("9999 9999", FASHION.palette, FASHION.palette[0], "9999 9999"),
        ("0129 9999", [FASHION.palette[id] for id in (0, 2, 1)], FASHION.palette[0], "0219 9999"),
        # By programs that gave the colours another order, with one of them at the end.
        ("0019 0199", FASHION.palette[1:], FASHION.palette[0], "1120 1200"),
        ("0019 0199", FASHION.palette[:2], FASHION.palette[3], "0013 0133"),
        ("0189 8899", FASHION.palette, FASHION.palette[1], "0119 1199"),
    ],
    ids=[
        "zeros",
        "no background",
        "last colour",
        "nothing decided",
        "other order",
        "black last",
        "unique",
        "filling used",
    ],
)
def test_undecided_pixels_stay_so_where_a_palette_is_filled_up(tmp_path, ids, colours, filling, expected):
    """9 stands for 255, whose colour then is that of a label."""
    ids, expected = (
        np.where(each == 9, np.uint8(IGNORE), each) for each in (grid(*s.split()) for s in (ids, expected))
    )
    picture = Image.frombytes("P", (4, 2), ids.tobytes())
    colours = [*colours, *[filling] * (256 - len(colours))]
    if filling == FASHION.palette[3]:
        colours[2:255] = [(1, 2, 3)] * 253
    picture.putpalette([channel for colour in colours for channel in colour])
    with Image.open(saved(tmp_path, picture)) as again:
        assert_array_equal(masks.indexed_ids(again, FASHION), expected)
    assert_array_equal(read(tmp_path / "mask.png"), expected)


def test_colours_may_miss_those_of_the_labels_by_three_steps(tmp_path):
    hair = np.array(FASHION.palette[2])
    near, far = (Image.new("RGB", (4, 2), tuple((hair + off).tolist())) for off in ((3, -3, 3), (0, 0, 4)))
    assert_array_equal(read(saved(tmp_path, near)), np.full((2, 4), 2))
    with pytest.raises(ImageError, match="4 steps from any label of fashion"):
        read(saved(tmp_path, far))


def test_large_masks_are_brought_to_size_before_they_are_looked_at(tmp_path):
    ids = grid("0123", "4560")
    for picture in (hubmodels.export.indexed_png(ids, FASHION), Image.fromarray(ids)):
        large = picture.resize((400, 200), Image.Resampling.NEAREST)
        path = saved(tmp_path, large)
        assert_array_equal(masks.read_truth(path, FASHION, (200, 400), max_pixels=10**6, out_size=(2, 4)), ids)
        path = saved(tmp_path, large.convert("RGB"))
        if picture.mode == "P":
            assert_array_equal(masks.read_truth(path, FASHION, (200, 400), max_pixels=10**6, out_size=(2, 4)), ids)


@pytest.mark.parametrize(
    ("picture", "labels", "message"),
    [
        (Image.new("L", (4, 2), 9), FASHION, "holds id 9, but fashion has ids 0..6"),
        (Image.fromarray(grid("0128", "3977")), FASHION, "holds id 7, but fashion"),
        (Image.new("L", (4, 2), 7), FASHION, "holds id 7, but fashion"),
        (Image.new("L", (4, 2), 5), PERSON, "another task"),
        (Image.new("RGB", (4, 2), (1, 2, 99)), FASHION, "#010263"),
        (Image.frombytes("RGB", (4, 2), bytes(21) + bytes((1, 2, 99))), FASHION, "#010263, 99 steps"),
        (Image.new("L", (5, 2)), FASHION, "5x2, the photo 4x2"),
        (Image.new("I;16", (4, 2)), FASHION, "kind I;16"),
    ],
    ids=["id", "ids", "next id", "task", "colour", "one colour of two", "size", "depth"],
)
def test_masks_that_cannot_be_used_are_explained(tmp_path, picture, labels, message):
    with pytest.raises(ImageError, match=message):
        read(saved(tmp_path, picture), labels)


def test_a_mask_may_have_as_many_pixels_as_are_allowed_and_one_that_is_gone_is_told_so(tmp_path):
    path = saved(tmp_path, Image.fromarray(WHITE_IDS))
    assert_array_equal(masks.read_truth(path, FASHION, (2, 4), max_pixels=8), WHITE_IDS)
    with pytest.raises(ImageError, match="megapixels"):
        masks.read_truth(path, FASHION, (2, 4), max_pixels=7)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read(path)


@pytest.mark.parametrize(("count", "message"), [(256, "steps from any label"), (257, "more than 256 colours")])
def test_a_mask_of_many_colours_is_taken_for_a_photo(tmp_path, count, message):
    pixels = b"".join(bytes((200, i % 256, i // 256)) for i in range(count))
    with pytest.raises(ImageError, match=message):
        read(saved(tmp_path, Image.frombytes("RGB", (count, 1), pixels)), size=(1, count))


def test_masks_that_are_no_masks_are_explained(tmp_path, astronaut):
    with pytest.raises(ImageError, match="is no PNG"):
        read(saved(tmp_path, Image.new("L", (4, 2)), "JPEG"))
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="is no PNG"):
        read(tmp_path / "mask.png")
    with pytest.raises(ImageError, match="256 colours"):
        read(saved(tmp_path, Image.fromarray(astronaut[:30, :30])), size=(30, 30))
    with pytest.raises(ImageError, match="megapixels"):
        read(saved(tmp_path, Image.new("L", (50, 50))), size=(50, 50))
    path = saved(tmp_path, Image.fromarray(astronaut[:30, :30]))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ImageError, match=r"the mask is damaged \(\w+\)$"):
        read(path, size=(30, 30))


def test_scores_are_those_of_the_evaluation():
    labels, ids = grid("0011", "0011"), grid("0111", "0111")
    scores = masks.score(ids, labels, FASHION)
    assert scores.iou == {"background": 0.5, "skin": pytest.approx(2 / 3)}
    assert scores.miou == pytest.approx((1 / 2 + 2 / 3) / 2) and scores.boundary_f == 1
    undecided = np.full((2, 4), IGNORE, np.uint8)
    assert np.isnan(masks.score(undecided, labels, FASHION).miou)
    page = texts.scores_html(scores, masks.score(ids, ids, FASHION))
    assert "58.33" in page and "-41.67" in page and 'class="down"' in page
