"""`hubmodels cutout`: what masks show, cut out of many photos."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels import cutting, render
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
    by_hand = np.zeros((40, 32), np.uint8)
    by_hand[3:9, 4:20] = 1
    Image.fromarray(by_hand).save(tmp_path / "out" / "a_mask.png")
    status, out, err = cutout(photos, "--masks", tmp_path / "out", "--hard")
    assert status == 0 and "1 of 3" in out
    assert "2 show none of person, and have no cut-out" in err  # the small network sees nobody in noise
    ((name, rgba),) = cut_out(tmp_path / "cut").items()
    assert name == "a_cutout.png"
    assert_array_equal(rgba[..., 3], 255 * by_hand)


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(cutout, folder):
    (folder / "photos" / "a.png").write_bytes(b"no photo")
    (folder / "masks" / "deep" / "b.png").write_bytes(b"no mask")
    (folder / "photos" / "gone.jpg").symlink_to("nowhere.jpg")
    shutil.copy(folder / "masks" / "a.jpg_mask.png", folder / "masks" / "gone_mask.png")
    status, out, err = cutout(folder / "photos", "--masks", folder / "masks", "--task", "fashion")
    assert status == 1 and "1 of 4" in out and "gone.jpg" in err
    assert "photos/a.png: not an image" in err and "deep/b.png: the mask is no PNG" in err


def test_cut_outs_may_lie_among_the_photos_and_are_taken_for_none(call, cutout, folder):
    photos = folder / "photos"
    options = ["--masks", folder / "masks", "--task", "fashion"]
    assert cutout(photos, *options, out=photos)[0] == 0
    assert (photos / "deep" / "b_cutout.png").exists()
    assert "3 of 3 photos cut out" in cutout(photos, *options, out=photos)[1]
    assert "3 of 3 photos labelled" in call(photos, "--out", folder / "out")[1]
    edited = photos / "deep" / "b_cutout.png"
    Image.open(edited).rotate(180).save(edited)  # no longer ours, and beside its photo no photo either
    _, summary, said = call(photos, "--out", folder / "out")
    assert "3 of 3 photos labelled" in summary and "b_cutout.png) was taken for masks, overlays or cut-outs" in said


def test_what_somebody_else_made_is_kept(cutout, folder):
    call = [folder / "photos", "--masks", folder / "masks", "--task", "fashion"]
    assert cutout(*call)[0] == 0
    cut = folder / "cut"
    edited, torn = cut / "deep" / "b_cutout.png", cut / "a.png_cutout.png"
    Image.open(edited).rotate(180).save(edited)
    before = edited.read_bytes()
    whole = torn.read_bytes()
    torn.write_bytes(whole[:100])  # of a crash
    status, out, err = cutout(*call)
    assert status == 0 and "2 of 3 photos cut out" in out
    assert f"kept: {edited} was not made by hubmodels" in err and edited.read_bytes() == before
    assert torn.read_bytes() == whole


def test_photos_that_show_none_of_it_have_no_cut_out(cutout, folder):
    call = [folder / "photos", "--masks", folder / "masks", "--task", "fashion", "--label", "dress"]
    assert "3 of 3" in cutout(*call)[1]
    Image.fromarray(np.ones((60, 40), np.uint8)).save(folder / "masks" / "deep" / "b.png")
    status, out, err = cutout(*call)
    assert status == 0 and "2 of 3 photos cut out" in out and "1 show none of dress" in err
    assert "deep/b_cutout.png" not in cut_out(folder / "cut")  # that of the mask before is gone


def test_resume_cuts_what_is_not_there_or_would_be_another(cutout, folder, monkeypatch):
    call = [folder / "photos", "--masks", folder / "masks", "--task", "fashion", "--resume"]
    assert "3 of 3" in cutout(*call)[1]
    status, out, err = cutout(*call)
    assert status == 0 and "0 of 3 photos cut out" in out and "3 were cut out already" in err
    (folder / "cut" / "a.jpg_cutout.png").unlink()
    Image.fromarray(np.ones((60, 40), np.uint8)).save(folder / "masks" / "a.png_mask.png")
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(folder / "photos" / "deep" / "b.png")
    assert "3 of 3" in cutout(*call)[1]
    for other in (["--hard"], ["--label", "dress,skin,hair"]):
        assert "3 of 3" in cutout(*call, *other)[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_says_how_far_it_came_and_how_to_go_on(cutout, folder, monkeypatch, threads):
    """What is under way is done first, and counts: here the photos that other threads have begun."""
    monkeypatch.setattr("hubmodels.commands.cutout.MAX_THREADS", threads)
    real, calls = cutting.write_cutout, []

    def stop_at_the_second(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*arguments, **options)

    monkeypatch.setattr(cutting, "write_cutout", stop_at_the_second)
    call = [folder / "photos", "--masks", folder / "masks", "--task", "fashion"]
    status, out, err = cutout(*call)
    done = len(list((folder / "cut").rglob("*.png")))
    assert status == 130 and f"{done} of 3 photos cut out" in out and "the same call with --resume goes on" in err
    assert 1 <= done <= 2 and f"{3 - done} of 3" in cutout(*call, "--resume")[1]


@pytest.mark.parametrize(("number", "status", "done"), [(errno.EISDIR, 1, 2), (errno.ENOSPC, 2, 0)])
def test_a_place_that_cannot_be_written_stops_nothing_but_a_full_disk_does(
    cutout, folder, monkeypatch, number, status, done
):
    real, calls = cutting.write_cutout, []

    def fail_at_first(*arguments, **options):
        calls.append(1)
        if len(calls) == 1 or number == errno.ENOSPC:
            raise OSError(number, "cannot", str(folder / "cut"))
        real(*arguments, **options)

    monkeypatch.setattr(cutting, "write_cutout", fail_at_first)
    found, out, err = cutout(folder / "photos", "--masks", folder / "masks", "--task", "fashion")
    assert found == status and f"{done} of 3 photos cut out" in out and "cannot" in err


def test_a_photo_too_large_for_the_memory_there_is_is_named_and_the_others_are_cut_out(cutout, folder, monkeypatch):
    real, large = cutting.cutout, read_image(folder / "photos" / "a.jpg")

    def fail_at_one(photo, mask, **options):
        if np.array_equal(photo, large):
            raise MemoryError
        return real(photo, mask, **options)

    monkeypatch.setattr(cutting, "cutout", fail_at_one)
    status, out, err = cutout(folder / "photos", "--masks", folder / "masks", "--task", "fashion")
    assert status == 1 and "2 of 3 photos cut out" in out and "a.jpg: needs more memory than there is" in err


@pytest.mark.parametrize("command", ["cutout", "coco", "areas"])
def test_folders_that_cannot_be_searched_and_kinds_that_are_not_read_are_said(folder, capsys, monkeypatch, command):
    (folder / "photos" / "c.heic").touch()
    real = Path.iterdir

    def iterdir(path):
        if path.name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    out = {"cutout": folder / "cut", "coco": folder / "coco.json", "areas": folder / "areas.csv"}[command]
    call = [command, folder / "photos", "--masks", folder / "masks", "--task", "fashion", "--out", out]
    assert main([*map(str, call)]) == 1
    said = capsys.readouterr().err
    assert "deep: cannot be searched for photos (Permission denied)" in said and "not read: 1 .heic" in said


def test_an_unknown_label_or_no_task_is_refused_before_the_work(cutout, folder):
    status, _, err = cutout(folder / "photos", "--masks", folder / "masks", "--task", "fashion", "--label", "hat")
    assert status == 2 and "no label 'hat'" in err
    status, _, err = cutout(folder / "photos", "--masks", folder / "masks")
    assert status == 2 and "say --task person or fashion" in err
    assert not (folder / "cut").exists()
