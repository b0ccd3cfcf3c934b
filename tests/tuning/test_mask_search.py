"""Which photos have which masks."""

from __future__ import annotations

import numpy as np
import pytest

from hubmodels import PERSON, Segmentation
from hubmodels.mask_search import find_examples
from hubmodels.planning import plan
from hubmodels.result_files import write_results
from tests.tuning.conftest import save


def test_masks_are_found_by_the_names_of_photos(folders):
    photos, masks = folders
    (masks / "p1.png").rename(masks / "p1_mask.png")
    (masks / "p2.png").unlink()
    found = find_examples([photos], masks)
    wanted = {"deep/p3.png": "deep/p3.png", "p0.png": "p0.png", "p1.png": "p1_mask.png"}
    assert [(each.photo, each.mask) for each in found.examples] == [
        (photos / photo, masks / mask) for photo, mask in wanted.items()
    ]
    assert [each.name for each in found.examples] == list(wanted)
    assert found.without == 1
    save(masks, "p1.png", np.zeros((96, 64), np.uint8))
    with pytest.raises(ValueError, match=r"one mask of each photo; got .*p1\.png and .*p1_mask\.png for .*: remove"):
        find_examples([photos], masks)


def test_a_photo_counts_once_and_a_mask_is_that_of_one_photo(folders, tmp_path):
    photos, masks = folders
    assert len(find_examples([photos, photos / "p0.png", photos / "deep" / ".." / "p1.png"], masks).examples) == 4
    save(tmp_path / "others", "p0.png", np.zeros((96, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a mask for each photo; got .*p0\.png for .*photos/p0\.png and .*others/p0"):
        find_examples([photos, tmp_path / "others"], masks)


def test_masks_among_photos_are_no_photos(tmp_path):
    grey = np.full((40, 40, 3), 90, np.uint8)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "a_mask.png", "b.png", "d.jpg_mask.png"):
        save(tmp_path, name, grey)
    found = find_examples([tmp_path], tmp_path)
    pairs = [("a.jpg", "a_mask.png"), ("b.jpg", "b.png"), ("d.jpg", "d.jpg_mask.png")]
    assert [(each.photo.name, each.mask.name) for each in found.examples] == pairs and found.without == 1


def test_photos_that_can_have_no_mask_are_counted_and_the_rest_goes_on(folders):
    """A link to itself, and a name with which no mask could be called."""
    photos, masks = folders
    (photos / "round.jpg").symlink_to("round.jpg")
    (photos / f"{'n' * 248}.png").write_bytes((photos / "p0.png").read_bytes())
    found = find_examples([photos], masks)
    assert len(found.examples) == 4 and found.without == 2


def test_no_masks_are_refused(folders, tmp_path):
    photos, _ = folders
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of masks"):
        find_examples([photos], tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"as NAME\.png or NAME_mask\.png for a photo NAME\.jpg; got none for 4"):
        find_examples([photos], tmp_path / "empty")


def test_no_photos_are_said_and_not_taken_for_missing_masks(folders, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.heic").touch()
    with pytest.raises(ValueError, match=r"^no photos found; expected .*\.jpg.*not read: 1 \.heic"):
        find_examples([tmp_path / "none"], folders[1])


def pairs(photos, masks) -> dict[str, str]:
    """Photo -> mask, by name."""
    return {each.name: each.mask.relative_to(masks).as_posix() for each in find_examples([photos], masks).examples}


def labelled(photos, out) -> None:
    """What `hubmodels label` leaves, by its plan; nothing is kept."""
    planned = plan([photos], out)
    assert not planned.kept
    labels = np.zeros((40, 40), np.uint8)
    for job in planned.jobs:
        grey = np.full((40, 40, 3), 90, np.uint8)
        write_results(Segmentation(grey, labels, one_hot(labels), PERSON), job.mask, job.overlay, note="made")


def one_hot(labels):
    return np.stack([labels == 0, labels == 1]).astype(np.float32)


@pytest.mark.parametrize("place", ["photos", "out"])
@pytest.mark.parametrize(
    "names", [("a.jpg", "a.png"), ("a.jpg", "A.jpg"), ("a.jpg", "a.jpeg", "a.JPG")], ids=["suffix", "case", "both"]
)
def test_every_mask_that_label_writes_is_found(tmp_path, place, names):
    for name in names:
        save(tmp_path / "photos", name, np.full((40, 40, 3), 90, np.uint8))
    labelled(tmp_path / "photos", tmp_path / place)
    found = pairs(tmp_path / "photos", tmp_path / place)
    assert set(found) == set(names) and len(set(found.values())) == len(names)
    (tmp_path / place / found["a.jpg"]).write_bytes(b"corrected by hand")
    assert pairs(tmp_path / "photos", tmp_path / place) == found


def test_links_to_photos_have_masks_of_their_own(tmp_path):
    photos = tmp_path / "photos"
    save(photos, "a.jpg", np.full((40, 40, 3), 90, np.uint8))
    (photos / "best").mkdir()
    (photos / "best" / "fav.jpg").symlink_to("../a.jpg")
    labelled(photos, tmp_path / "out")
    assert pairs(photos, tmp_path / "out") == {"a.jpg": "a_mask.png", "best/fav.jpg": "best/fav_mask.png"}
    (tmp_path / "out" / "best" / "fav_mask.png").unlink()
    assert pairs(photos, tmp_path / "out") == {"a.jpg": "a_mask.png"}


def test_a_mask_from_before_a_photo_shared_its_name_is_left_out_unless_somebody_changed_it(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a.jpg", "b.jpg"):
        save(photos, name, np.full((40, 40, 3), 90, np.uint8))
    labelled(photos, out)
    for name in ("a.png", "b.png"):
        save(photos, name, np.full((40, 40, 3), 90, np.uint8))
    labelled(photos, out)
    assert set(pairs(photos, out).values()) == {f"{name}_mask.png" for name in ("a.jpg", "a.png", "b.jpg", "b.png")}
    for name in ("a_mask.png", "b_mask.png"):
        (out / name).write_bytes(b"corrected by hand")
    with pytest.raises(ValueError, match=r"/a_mask\.png and .*a\.jpg_mask\.png for .*; and 1 more: remove one"):
        find_examples([photos], out)


def test_what_is_left_out_is_told(tmp_path):
    for name in ("a.jpg", "a_mask.png"):
        save(tmp_path, name, np.full((40, 40, 3), 90, np.uint8))
    (tmp_path / "c.heic").touch()
    found = find_examples([tmp_path], tmp_path)
    assert "1 .heic" in found.unread and found.closed == []
