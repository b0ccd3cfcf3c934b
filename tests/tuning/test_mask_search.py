"""Which photos have which masks."""

from __future__ import annotations

import numpy as np
import pytest

from hubmodels.mask_search import find_examples
from tests.tuning.conftest import save


def test_masks_are_found_by_the_names_of_photos(folders):
    photos, masks = folders
    (masks / "p1.png").rename(masks / "p1_mask.png")
    (masks / "p2.png").unlink()
    found, without = find_examples([photos], masks)
    assert [(each.photo.relative_to(photos).as_posix(), each.mask.relative_to(masks).as_posix()) for each in found] == [
        ("deep/p3.png", "deep/p3.png"),
        ("p0.png", "p0.png"),
        ("p1.png", "p1_mask.png"),
    ]
    assert [each.name for each in found] == ["deep/p3.png", "p0.png", "p1.png"]
    assert without == 1
    save(masks, "p1.png", np.zeros((96, 64), np.uint8))
    with pytest.raises(ValueError, match=r"expected one mask of .*p1\.png; got .*p1\.png and .*p1_mask\.png: remove"):
        find_examples([photos], masks)


def test_a_photo_counts_once_and_a_mask_is_that_of_one_photo(folders, tmp_path):
    photos, masks = folders
    assert len(find_examples([photos, photos / "p0.png", photos / "deep" / ".." / "p1.png"], masks)[0]) == 4
    save(tmp_path / "others", "p0.png", np.zeros((96, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a mask for each photo; got .*p0\.png for .*photos/p0\.png and .*others/p0"):
        find_examples([photos, tmp_path / "others"], masks)


def test_masks_among_photos_are_no_photos(tmp_path):
    grey = np.full((40, 40, 3), 90, np.uint8)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "a_mask.png", "b.png", "d.jpg_mask.png"):
        save(tmp_path, name, grey)
    found, without = find_examples([tmp_path], tmp_path)
    pairs = [("a.jpg", "a_mask.png"), ("b.jpg", "b.png"), ("d.jpg", "d.jpg_mask.png")]
    assert [(each.photo.name, each.mask.name) for each in found] == pairs and without == 1


def test_photos_that_can_have_no_mask_are_counted_and_the_rest_goes_on(folders):
    """A link to itself, and a name with which no mask could be called."""
    photos, masks = folders
    (photos / "round.jpg").symlink_to("round.jpg")
    (photos / f"{'n' * 248}.png").write_bytes((photos / "p0.png").read_bytes())
    found, without = find_examples([photos], masks)
    assert len(found) == 4 and without == 2


def test_no_masks_are_refused(folders, tmp_path):
    photos, _ = folders
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of masks"):
        find_examples([photos], tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"as NAME\.png or NAME_mask\.png for a photo NAME\.jpg; got none for 4"):
        find_examples([photos], tmp_path / "empty")
