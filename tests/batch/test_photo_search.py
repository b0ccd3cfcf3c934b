"""Photos found in folders: in which order, by which paths, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL.PngImagePlugin import PngInfo

from hubmodels import ImageError
from hubmodels.export import encode_image, indexed_png
from hubmodels.labels import PERSON
from hubmodels.photo_search import PhotoSearch
from hubmodels.result_files import MADE_BY, sealed


def made(folder: Path, *names: str) -> Path:
    """A folder with empty files in it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(*sources: str | Path) -> list[tuple[str, str]]:
    """Names of photos and the folders that they have below their sources, in order."""
    return [(photo.name, folder.as_posix()) for photo, folder in PhotoSearch().photos_of(sources)]


def test_photos_come_in_order_of_their_names_with_their_folders_as_seen_from_the_source(tmp_path):
    made(tmp_path, "c.jpg", "a.PNG", "b/2.jpg", "b/deep/1.jpg", "notes.txt")
    expected = [("a.PNG", "."), ("2.jpg", "b"), ("1.jpg", "b/deep"), ("c.jpg", ".")]
    assert found(tmp_path) == found(str(tmp_path)) == expected
    assert found(tmp_path / "b", tmp_path / "notes.txt") == [("2.jpg", "."), ("1.jpg", "deep"), ("notes.txt", ".")]


@pytest.mark.parametrize("depth", ["", "x", "x/y"])
def test_a_link_to_a_folder_around_it_is_not_gone_round(tmp_path, depth):
    made(tmp_path, "a.jpg", "x/y/b.jpg")
    (tmp_path / depth / "round").symlink_to(tmp_path, target_is_directory=True)
    assert found(tmp_path) == [("a.jpg", "."), ("b.jpg", "x/y")]


def test_two_folders_that_link_to_each_other_are_seen_once_from_each_side(tmp_path):
    made(tmp_path, "x/a.jpg", "y/b.jpg")
    (tmp_path / "x" / "to_y").symlink_to(tmp_path / "y", target_is_directory=True)
    (tmp_path / "y" / "to_x").symlink_to(tmp_path / "x", target_is_directory=True)
    assert found(tmp_path) == [("a.jpg", "x"), ("b.jpg", "x/to_y"), ("b.jpg", "y"), ("a.jpg", "y/to_x")]


def test_what_macos_adds_on_foreign_disks_is_no_photo(tmp_path):
    made(tmp_path, "a.jpg", "._a.jpg", ".hidden.jpg", "__MACOSX/a.jpg", "x/__MACOSX/deep/b.jpg")
    assert found(tmp_path) == [(".hidden.jpg", "."), ("a.jpg", ".")]


def test_a_result_is_no_photo_even_if_it_is_named_on_its_own_and_away_from_its_photo(tmp_path, rng):
    """One that somebody drew is, as nothing says what else it is."""
    made(tmp_path, "drawn_mask.png", "results/notes.txt")
    info, mask = PngInfo(), tmp_path / "results" / "a_mask.png"
    info.add_text(MADE_BY, "{}")
    ids = rng.integers(0, 2, (8, 6), np.uint8)
    mask.write_bytes(sealed(encode_image(indexed_png(ids, PERSON), mask, pnginfo=info)))
    assert found(mask) == found(tmp_path / "results") == []
    assert found(tmp_path / "drawn_mask.png", tmp_path) == 2 * [("drawn_mask.png", ".")]


def test_a_source_that_is_not_there_is_named(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    for name in ("none", "gone.jpg"):
        with pytest.raises(FileNotFoundError, match=rf"{name}: no such photo or folder$"):
            PhotoSearch().photos_of([tmp_path / name])
    with pytest.raises(ImageError, match="addresses are not opened"):
        PhotoSearch().photos_of(["https://example.com/a.jpg"])


def test_kinds_that_are_not_read_are_counted_in_order_whatever_their_case(tmp_path):
    made(tmp_path, "1.HEIC", "x/2.heic", "3.dng", "4.jpg", "5.txt", "6.mov")
    search = PhotoSearch()
    assert [photo.name for photo, _ in search.photos_in(tmp_path)] == ["4.jpg"]
    assert search.unread() == "files of these kinds are not read: 1 .dng, 2 .heic; convert them to JPEG first"


@pytest.mark.parametrize("count, said", [(1, "1 without a suffix that begins"), (2, "2 without a suffix that begin")])
def test_photos_without_a_suffix_are_counted(tmp_path, count, said):
    for number in range(count):
        (tmp_path / f"8a0{number}").write_bytes(b"\xff\xd8\xff\xe0" if number else b"\x89PNG\r\n\x1a\n")
    (tmp_path / "notes.txt").write_bytes(b"\xff\xd8\xff\xe0")
    search = PhotoSearch()
    assert not list(search.photos_in(tmp_path))
    assert search.unread() == f"files of these kinds are not read: {said} like JPEG or PNG; name them .jpg or .png"
