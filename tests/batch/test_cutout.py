"""`hubmodels cutout`: what masks show, cut out of many photos."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels import render
from hubmodels.cli import main
from hubmodels.images import read_image


@pytest.fixture
def cutout(tmp_path, capsys):
    """`hubmodels cutout` into tmp_path/cut -> status, stdout, stderr."""

    def cut(*arguments: str | Path, out: Path = tmp_path / "cut") -> tuple[int, str, str]:
        status = main(["cutout", *map(str, arguments), "--out", str(out)])
        return (status, *capsys.readouterr())

    return cut


@pytest.fixture
def folder(tmp_path, rng) -> Path:
    """photos/a.jpg, photos/a.png and photos/deep/b.png, and masks of skin above dress."""
    mask = np.zeros((60, 40), np.uint8)
    mask[10:30, 10:30], mask[30:50, 10:30] = 1, 6
    for name, mask_name in (("a.jpg", "a.jpg_mask"), ("a.png", "a.png_mask"), ("deep/b.png", "deep/b")):
        for part, path in (("photos", name), ("masks", f"{mask_name}.png")):
            (tmp_path / part / path).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (60, 40, 3), dtype=np.uint8) if part == "photos" else mask
            Image.fromarray(pixels).save(tmp_path / part / path)
    return tmp_path


def cut_out(folder: Path) -> dict[str, np.ndarray]:
    """Name -> RGBA."""
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def test_cut_outs_are_those_of_the_masks(cutout, folder):
    status, out, _ = cutout(folder / "photos", "--masks", folder / "masks", "--task", "fashion")
    assert status == 0 and "3 of 3 photos cut out" in out
    found = cut_out(folder / "cut")
    assert set(found) == {"a.jpg_cutout.png", "a.png_cutout.png", "deep/b_cutout.png"}
    mask = np.asarray(Image.open(folder / "masks" / "deep" / "b.png")) > 0
    expected = render.cutout(read_image(folder / "photos" / "deep" / "b.png"), mask, soft=True)
    assert_array_equal(found["deep/b_cutout.png"], np.asarray(expected))


def test_single_labels_with_hard_edges(cutout, folder):
    call = [folder / "photos" / "a.jpg", "--masks", folder / "masks", "--task", "fashion", "--hard"]
    ids = np.asarray(Image.open(folder / "masks" / "a.jpg_mask.png"))
    for named, wanted in (("dress", [6]), ("dress, skin", [1, 6])):
        assert cutout(*call, "--label", named)[0] == 0
        (rgba,) = cut_out(folder / "cut").values()
        assert_array_equal(rgba[..., 3], 255 * np.isin(ids, wanted))


def test_masks_that_hubmodels_wrote_need_no_task(call, cutout, photos, tmp_path):
    assert call(photos, "--out", tmp_path / "out")[0] == 0
    status, out, _ = cutout(photos, "--masks", tmp_path / "out", "--hard")
    assert status == 0 and "3 of 3" in out
    found = cut_out(tmp_path / "cut")
    for name in ("a", "more/b", "more/deep/a"):
        mask = np.asarray(Image.open(tmp_path / "out" / f"{name}_mask.png"))
        assert_array_equal(found[f"{name}_cutout.png"][..., 3], 255 * (mask == 1))


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(cutout, folder):
    (folder / "photos" / "a.png").write_bytes(b"no photo")
    (folder / "masks" / "deep" / "b.png").write_bytes(b"no mask")
    (folder / "photos" / "gone.jpg").symlink_to("nowhere.jpg")
    shutil.copy(folder / "masks" / "a.jpg_mask.png", folder / "masks" / "gone_mask.png")
    status, out, err = cutout(folder / "photos", "--masks", folder / "masks", "--task", "fashion")
    assert status == 1 and "1 of 4" in out and "gone.jpg" in err
    assert "photos/a.png: not an image" in err and "deep/b.png: the mask is no PNG" in err


@pytest.mark.parametrize("place", ["photos", "photos/cut", "photos/deep/../cut"])
def test_cut_outs_do_not_go_among_the_photos(cutout, folder, place):
    status, _, err = cutout(folder / "photos", "--masks", folder / "masks", "--task", "fashion", out=folder / place)
    assert status == 2 and "would be taken for photos: choose a folder beside it" in err
    assert not list(folder.rglob("*_cutout.png"))


def test_an_unknown_label_or_no_task_is_refused_before_the_work(cutout, folder):
    status, _, err = cutout(folder / "photos", "--masks", folder / "masks", "--task", "fashion", "--label", "hat")
    assert status == 2 and "no label 'hat'" in err
    status, _, err = cutout(folder / "photos", "--masks", folder / "masks")
    assert status == 2 and "say --task person or fashion" in err
    assert not (folder / "cut").exists()
