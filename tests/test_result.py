"""Segmentation: masks, areas, pictures, files."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels import FASHION, PERSON, Segmentation
from hubmodels.labels import LabelSet
from tests.conftest import grid


@pytest.fixture
def seg(rng) -> Segmentation:
    labels = grid("0012", "0612")
    probs = np.full((7, 2, 4), 1 / 7, np.float32)
    return Segmentation(rng.integers(0, 256, (2, 4, 3), dtype=np.uint8), labels, probs, FASHION)


def test_mask_and_areas(seg):
    assert_array_equal(seg.mask("dress"), [[0, 0, 0, 0], [0, 1, 0, 0]])
    assert seg.areas() == {
        "background": 3 / 8, "skin": 2 / 8, "hair": 2 / 8, "t-shirt": 0, "shoes": 0, "pants": 0, "dress": 1 / 8,
    }  # fmt: skip


def test_saved_values_are_ids_and_the_palette_is_attached(seg, tmp_path):
    with Image.open(seg.save(tmp_path / "new folder" / "labels.png")) as picture:
        assert picture.mode == "P"
        assert_array_equal(np.asarray(picture), seg.labels)
        assert picture.getpalette()[:21] == [channel for colour in FASHION.palette for channel in colour]
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == ["labels.png"]  # no temporary file stays


@pytest.mark.filterwarnings("ignore:.*of TorchVision are deprecated:DeprecationWarning")  # and still much used
@pytest.mark.parametrize("count", [2, 4, 16, 17, 256])
def test_saved_values_have_8_bits_however_few_labels_there_are(tmp_path, count):
    """Other readers than Pillow take packed pixels for something else."""
    read_image = pytest.importorskip("torchvision.io").read_image
    labels = (np.arange(40 * 33) % count).astype(np.uint8).reshape(40, 33)
    shape = (count, *labels.shape)
    label_set = LabelSet.custom(count)
    seg = Segmentation(np.zeros((40, 33, 3), np.uint8), labels, np.zeros(shape, np.float32), label_set)
    path = seg.save(tmp_path / "labels.png")
    assert path.read_bytes()[24:26] == b"\x08\x03"  # bits a pixel, and that these are indices
    assert_array_equal(read_image(str(path))[0], labels)
    with Image.open(path) as picture:
        assert_array_equal(np.asarray(picture), labels)
        assert_array_equal(np.asarray(picture.convert("RGB")), np.array(label_set.palette, np.uint8)[labels])


def test_formats_that_would_change_ids_are_refused(seg, tmp_path):
    with pytest.raises(ValueError, match=r"\.png"):
        seg.save(tmp_path / "labels.jpg")
    assert seg.save(tmp_path / "LABELS.PNG").is_file()


def test_a_failed_save_leaves_the_old_file(seg, tmp_path, monkeypatch):
    path = seg.save(tmp_path / "labels.png")
    before = path.read_bytes()
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        seg.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_overlay_tints_labels_and_leaves_the_background(seg):
    half = np.asarray(seg.overlay(opacity=0.5)).astype(int)
    background = seg.mask("background")
    assert_array_equal(half[background], seg.image[background])
    expected = (seg.image[1, 1].astype(int) + FASHION.palette[6]) / 2
    assert np.abs(half[1, 1] - expected).max() <= 0.5  # rounding
    assert_array_equal(np.asarray(seg.overlay(opacity=0)), seg.image)


def test_overlay_opacity_is_checked(seg):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        seg.overlay(opacity=50)


def test_cutout_hides_nothing_in_transparent_pixels(seg):
    rgba = np.asarray(seg.cutout("skin"))
    assert_array_equal(rgba[..., 3], np.where(seg.mask("skin"), 255, 0))
    assert_array_equal(rgba[seg.mask("skin"), :3], seg.image[seg.mask("skin")])
    assert not rgba[~seg.mask("skin")].any()


def test_an_unknown_label_lists_the_known_ones(seg):
    with pytest.raises(ValueError, match=r"no label 'shirt'.*t-shirt"):
        seg.mask("shirt")


def test_labels_and_probabilities_cannot_be_changed(seg):
    for array in (seg.image, seg.labels, seg.probs):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda seg: pickle.loads(pickle.dumps(seg))])
def test_copies_cannot_be_changed_either(seg, copied):
    other = copied(seg)
    for name in ("image", "labels", "probs"):
        assert_array_equal(getattr(other, name), getattr(seg, name))
        with pytest.raises(ValueError, match="read-only"):
            getattr(other, name)[...] = 0
    assert type(other) is Segmentation and other.label_set == seg.label_set


def test_arrays_stay_the_callers_to_write_to():
    given = {"image": np.zeros((2, 4, 3), np.uint8), "labels": grid("0000", "0000"), "probs": np.ones((2, 2, 4), "f4")}
    Segmentation(**given, label_set=PERSON)
    for array in given.values():
        array[...] = 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": grid("00")}, "labels must be"),
        ({"labels": np.zeros((2, 4), np.int64)}, "uint8"),
        ({"labels": np.full((2, 4), 7, np.uint8)}, "out of range"),
        ({"probs": np.zeros((2, 2, 4), np.float32)}, "probs must be"),
        ({"probs": np.zeros((7, 2, 4))}, "float32; got .* float64"),
        ({"image": np.zeros((2, 4), np.uint8)}, "image must be"),
        ({"image": np.zeros((2, 0, 3), np.uint8)}, r"image must be \(H, W, 3\)"),
        ({"image": np.zeros((2, 4, 4), np.uint8)}, r"image must be \(H, W, 3\)"),
        ({"image": np.zeros((2, 4, 3))}, "uint8; got .* float64"),
        ({"label_set": PERSON}, "probs must be"),
    ],
)
def test_arrays_that_disagree_are_refused(seg, change, message):
    values = {"image": seg.image, "labels": seg.labels, "probs": seg.probs, "label_set": seg.label_set, **change}
    with pytest.raises(ValueError, match=message):
        Segmentation(**values)


@pytest.mark.parametrize("name", ["image", "labels", "probs"])
def test_lists_are_no_arrays(seg, name):
    values = {"image": seg.image, "labels": seg.labels, "probs": seg.probs, "label_set": seg.label_set}
    with pytest.raises(TypeError, match=f"{name} must be a NumPy array; got list"):
        Segmentation(**{**values, name: values[name].tolist()})


def test_what_a_notebook_shows_is_one_line(seg):
    assert repr(seg) == "Segmentation(2x4 pixels: background 37.5 %, skin 25.0 %, hair 25.0 %, dress 12.5 %)"
