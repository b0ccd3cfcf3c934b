"""`hubmodels coco` and `Segmentation.to_coco`, read back by COCO's own package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

import hubmodels
from hubmodels import FASHION, ImageError, LabelSet, Segmentation
from hubmodels.cli import main
from hubmodels.coco import annotations_of
from hubmodels.images import read_image, upright_size
from tests.conftest import grid

# Of pycocotools to itself, where it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def coco(tmp_path, capsys):
    """`hubmodels coco` -> status, stdout, stderr; what it writes is annotations.json in tmp_path."""

    def write(*arguments: str | Path) -> tuple[int, str, str]:
        status = main(["coco", *map(str, arguments), "--out", str(tmp_path / "annotations.json")])
        return (status, *capsys.readouterr())

    return write


def drawn(folder: Path, name: str, ids: np.ndarray) -> Path:
    """A grey photo and its mask of label ids, NAME.png in `folder`/photos and `folder`/masks."""
    for part, pixels in (("photos", np.full((*ids.shape, 3), 90, np.uint8)), ("masks", ids.astype(np.uint8))):
        (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / part / f"{name}.png")
    return folder


def test_a_result_as_annotations():
    labels = grid("00110", "06110", "66010")
    probs = np.full((7, *labels.shape), 1 / 7, np.float32)
    found = Segmentation(np.zeros((*labels.shape, 3), np.uint8), labels, probs, FASHION).to_coco()
    assert json.loads(json.dumps(found)) == found
    assert [(each["category_id"], each["area"], each["bbox"], each["iscrowd"]) for each in found] == [
        (1, 5, [2, 0, 2, 3], 0),
        (6, 3, [0, 1, 2, 2], 0),
    ]
    for each in found:
        assert_array_equal(mask_api.decode(each["segmentation"]), labels == each["category_id"])


def test_the_code_is_that_of_the_paper_by_hand():
    """Runs down the columns, zeros first, each less the one two before it from the third on."""
    (found,) = annotations_of(grid("01", "11"), LabelSet.custom(2))
    assert found["segmentation"] == {"size": [2, 2], "counts": "13"}  # one 0, three 1


def test_undecided_pixels_and_the_background_are_in_no_annotation():
    assert annotations_of(np.array([[0, 255], [255, 0]], np.uint8), FASHION) == []


def test_a_result_as_polygons():
    labels = grid("00110", "06110", "66010")
    probs = np.full((7, *labels.shape), 1 / 7, np.float32)
    seg = Segmentation(np.zeros((*labels.shape, 3), np.uint8), labels, probs, FASHION)
    found = seg.to_coco(polygons=True)
    assert json.loads(json.dumps(found)) == found
    assert [each["segmentation"] for each in found] == [
        [[2, 0, 4, 0, 4, 3, 3, 3, 3, 2, 2, 2]],
        [[1, 1, 2, 1, 2, 3, 0, 3, 0, 2, 1, 2]],
    ]
    for each, same in zip(found, seg.to_coco(), strict=True):
        assert {**each, "segmentation": 0} == {**same, "segmentation": 0}
    coarse = seg.to_coco(polygons=True, tolerance_px=1.5)
    assert [len(each["segmentation"][0]) // 2 for each in coarse] == [3, 3]
    assert [each["area"] for each in coarse] != [each["area"] for each in found]  # those of what is written


def test_polygons_of_a_photo_are_its_mask(astronaut, fashion):
    """Every label, with its holes and parts, and nearly so with a third of the corners."""
    seg = fashion.predict(astronaut)
    for tolerance_px, least in ((0, 1.0), (0.75, 0.97)):
        for each in seg.to_coco(polygons=True, tolerance_px=tolerance_px):
            shown = seg.labels == each["category_id"]
            found = mask_api.decode(mask_api.merge(mask_api.frPyObjects(each["segmentation"], *shown.shape))) > 0
            if tolerance_px == 0 or shown.sum() > 1000:  # of specks a corner is much
                assert (found & shown).sum() >= least * (found | shown).sum(), (tolerance_px, each["category_id"])
            assert each["area"] == found.sum()


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf")])
def test_a_tolerance_is_a_distance(wrong):
    with pytest.raises(ValueError, match=f"tolerance_px must be 0 or more, in pixels, and finite; got {wrong}"):
        annotations_of(grid("01"), FASHION, polygons=True, tolerance_px=wrong)


def test_a_tolerance_is_for_polygons(coco, tmp_path):
    with pytest.raises(ValueError, match="tolerance_px is for polygons, run lengths are exact; got 1"):
        annotations_of(grid("00"), FASHION, tolerance_px=1)
    folder = drawn(tmp_path, "a", grid("01"))
    place = folder / "photos", "--masks", folder / "masks", "--task", "person"
    for wrong in (("--tolerance-px", 1), ("--polygons", "--tolerance-px", "nan")):
        status, _, err = coco(*place, *wrong)
        assert status == 2 and "tolerance_px" in err and not (tmp_path / "annotations.json").exists()


def test_a_folder_as_polygons(coco, tmp_path):
    folder = drawn(tmp_path, "a", grid("01110", "01010", "01110"))
    place = folder / "photos", "--masks", folder / "masks", "--task", "person"
    assert coco(*place, "--polygons")[0] == 0
    found = COCO(tmp_path / "annotations.json")
    (annotation,) = found.anns.values()
    assert [len(each) for each in annotation["segmentation"]] == [20]  # eight corners, and a slit to the hole
    assert_array_equal(found.annToMask(annotation), grid("01110", "01010", "01110"))
    assert coco(*place, "--polygons", "--tolerance-px", 9)[0] == 0
    (coarse,) = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    assert coarse["segmentation"] == [[1, 0, 4, 0, 4, 3, 1, 3]]


def test_a_labelled_folder_is_read_by_cocos_package_as_it_was_labelled(call, coco, photos, tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright
    Image.open(photos / "a.png").convert("RGB").save(photos / "turned.jpg", exif=exif)
    assert call(photos, "--out", tmp_path / "out")[0] == 0
    corrected = tmp_path / "out" / "more" / "b_mask.png"
    by_hand = np.zeros((40, 32), np.uint8)
    by_hand[3:9, 4:20] = 1
    Image.fromarray(by_hand).save(corrected)
    (tmp_path / "out" / "more" / "deep" / "a_mask.png").unlink()

    status, out, err = coco(photos, "--masks", tmp_path / "out")
    assert status == 0 and "photos without a mask, which are left out: 1" in err and "3 photos" in out
    found = COCO(tmp_path / "annotations.json")
    assert found.cats == {1: {"id": 1, "name": "person", "supercategory": "person"}}
    names = {each["file_name"]: each for each in found.imgs.values()}
    assert set(names) == {"a.png", "more/b.jpg", "turned.jpg"}
    assert (names["turned.jpg"]["height"], names["turned.jpg"]["width"]) == (32, 40)
    for name, image in names.items():
        mask = np.asarray(Image.open(tmp_path / "out" / f"{name.rpartition('.')[0]}_mask.png"))
        (annotation,) = found.loadAnns(found.getAnnIds(imgIds=image["id"])) or [None]
        assert_array_equal(np.zeros_like(mask) if annotation is None else found.annToMask(annotation), mask == 1)
    assert any(each["area"] == 96 and each["bbox"] == [4, 3, 16, 6] for each in found.anns.values())


def test_masks_of_others_need_a_task(coco, tmp_path):
    folder = drawn(tmp_path, "deep/p", grid("0066", "0166"))
    status, _, err = coco(folder / "photos", "--masks", folder / "masks")
    assert status == 2 and "no mask in" in err and "say --task person or fashion" in err
    assert not (tmp_path / "annotations.json").exists()
    assert coco(folder / "photos", "--masks", folder / "masks", "--task", "fashion")[0] == 0
    found = json.loads((tmp_path / "annotations.json").read_text())
    assert [(each["id"], each["image_id"], each["category_id"]) for each in found["annotations"]] == [
        (1, 1, 1),
        (2, 1, 6),
    ]
    assert [each["name"] for each in found["categories"]] == list(FASHION.names[1:])
    assert found["images"] == [{"id": 1, "file_name": "deep/p.png", "width": 4, "height": 2}]


def test_masks_of_two_tasks_do_not_go_into_one_file(call, coco, photos, tmp_path):
    for task, part in (("person", "more/b.jpg"), ("fashion", "a.png")):
        assert main(["label", str(photos / part), "--out", str(tmp_path / "out"), "--task", task]) == 0
    (photos / "more" / "b.jpg").rename(photos / "b.jpg")
    status, _, err = coco(photos, "--masks", tmp_path / "out")
    assert status == 2 and "expected masks of the same labels; got " in err and "name one folder of them" in err


def test_options_do_not_contradict_what_masks_say(call, coco, photos, tmp_path):
    assert call(photos, "--out", tmp_path / "out")[0] == 0
    for option in (("--task", "fashion"), ("--model", "u2net_small_fashion")):
        status, _, err = coco(photos, "--masks", tmp_path / "out", *option)
        assert status == 2 and "_mask.png says that it shows person (background, person), not fashion" in err
        assert "leave out --task and --model" in err and not (tmp_path / "annotations.json").exists()
    for option in (("--task", "person"), ("--model", "u2net_small_person")):
        assert coco(photos, "--masks", tmp_path / "out", *option)[0] == 0


def test_masks_of_a_model_of_ones_own_may_all_be_corrected(coco, tmp_path):
    hubmodels.load("u2net_small_fashion", labels=["ground", "hat", "bag"]).save_pretrained(tmp_path / "mine")
    folder = drawn(tmp_path, "a", grid("0012", "0112"))
    status, _, err = coco(folder / "photos", "--masks", folder / "masks", "--model", tmp_path / "mine")
    assert status == 0, err
    found = json.loads((tmp_path / "annotations.json").read_text())
    assert [each["name"] for each in found["categories"]] == ["hat", "bag"]
    assert [(each["category_id"], each["area"]) for each in found["annotations"]] == [(1, 3), (2, 2)]


def test_a_photo_in_the_place_of_the_file_is_not_replaced(tmp_path, capsys):
    folder = drawn(tmp_path, "a", grid("01"))
    photo = folder / "photos" / "a.png"
    before = photo.read_bytes()
    call = ["coco", photo, "--masks", folder / "masks", "--task", "person", "--out", photo]
    assert main([*map(str, call)]) == 2 and "expected a name that ends in .json" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_what_cannot_be_used_is_named_and_the_rest_is_written(coco, tmp_path):
    for name in ("a", "b", "c", "d"):
        drawn(tmp_path, name, grid("0011", "0111"))
    (tmp_path / "photos" / "b.png").write_bytes(b"no photo")
    (tmp_path / "masks" / "c.png").write_bytes(b"no mask")
    drawn(tmp_path / "other", "d", grid("001", "011"))
    (tmp_path / "other" / "masks" / "d.png").replace(tmp_path / "masks" / "d.png")
    status, out, err = coco(tmp_path / "photos", "--masks", tmp_path / "masks", "--task", "person")
    assert status == 1 and "1 photos, 1 annotations" in out
    for said in ("photos/b.png: not an image", "masks/c.png: the mask is no PNG", "masks/d.png: the mask is 3x2"):
        assert said in err


def test_without_cocos_package_the_line_that_installs_it_is_said(coco, tmp_path, monkeypatch):
    drawn(tmp_path, "a", grid("01"))
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = coco(tmp_path / "photos", "--masks", tmp_path / "masks", "--task", "person")
    assert status == 2 and "pip install pycocotools" in err


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_known_without_the_pixels(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "p.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert upright_size(path) == read_image(path).shape[:2]


def test_the_size_of_what_is_no_photo_is_not_known(tmp_path):
    (tmp_path / "p.jpg").write_bytes(b"no photo")
    with pytest.raises(ImageError, match=r"p\.jpg: not an image of a known kind"):
        upright_size(tmp_path / "p.jpg")
