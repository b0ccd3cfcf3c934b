"""Folders of photos: what is taken for a photo, what for a result, and how results are named."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import hubmodels
from hubmodels.images import SUFFIXES
from hubmodels.planning import plan
from hubmodels.result_files import MASK, OVERLAY
from tests.folders import names, stored


def test_results_are_never_taken_for_photos_and_nothing_else_is_replaced(photos, call):
    out = photos / "out"
    assert call(photos / "a.png", "--out", out)[0] == 0
    (photos / "by_hand_mask.png").write_bytes((photos / "a.png").read_bytes())
    planned = [job.photo.name for job in plan([photos], out).jobs]
    assert sorted(planned) == ["a.png", "a.png", "b.jpg", "by_hand_mask.png"]
    for name in ("a_mask.png", "a_overlay.jpg"):
        drawn = photos / name
        drawn.write_bytes(b"drawn by hand")
        found = plan([photos], photos)
        assert found.kept == found.drawn == [drawn] and photos / "a.png" not in {job.photo for job in found.jobs}
        drawn.unlink()
    Image.new("L", (32, 40)).save(out / "a_mask.png")  # corrected by hand
    found = plan([photos], out)
    assert found.kept == found.drawn == [out / "a_mask.png"] and len(found.jobs) == 3


@pytest.mark.parametrize("resumed", [(), ("--resume",)], ids=["anew", "resumed"])
@pytest.mark.parametrize("keeps_text", [False, True])
def test_a_mask_corrected_by_hand_is_kept_and_the_rest_goes_on(photos, tmp_path, call, resumed, keeps_text):
    out = tmp_path / "out"
    assert call(photos, "--out", out)[0] == 0
    corrected = out / "more" / "b_mask.png"
    correct(corrected, keeps_text=keeps_text)
    (out / "a_mask.png").unlink()
    (out / "a_overlay.jpg").unlink()
    (out / "a_overlay.jpg").symlink_to(photos / "a.png")
    before = corrected.read_bytes(), (photos / "a.png").read_bytes()
    status, summary, said = call(photos, out, "--out", out, "--min-region-px", "50", *resumed)
    assert status == 0 and "1 of 1 photos labelled" in summary
    assert said.count("kept: ") == 1
    assert f"kept: 2 files ({out / 'a_overlay.jpg'}, {corrected}) were not made by hubmodels" in said
    assert (corrected.read_bytes(), (photos / "a.png").read_bytes()) == before


def correct(mask: Path, *, keeps_text: bool) -> None:
    """Change one pixel, as some editor does: with all text that the file has in the new one, or none."""
    with Image.open(mask) as picture:
        picture.putpixel((3, 5), 1 - picture.getpixel((3, 5)))
        assert len(picture.text) == 2
        info = PngInfo()
        for key, text in picture.text.items() if keeps_text else ():
            info.add_text(key, text)
    picture.save(mask, pnginfo=info)


def test_masks_drawn_beside_their_photos_are_not_labelled(photos, tmp_path, call):
    """However the photos are named, and even if the mask itself is; one without its photo is a photo."""
    for name in ("a_mask.png", "a_overlay.jpg", "b_mask.png"):
        Image.new("L", (32, 40)).save(photos / name)
    for sources in ([photos], list(photos.iterdir())):
        status, summary, said = call(*sources, "--out", tmp_path / "out")
        assert status == 0 and "4 of 4 photos labelled" in summary
        assert re.search(r"2 files \(.*a_(mask|overlay).*\) were taken for masks, overlays or cut-outs of photos", said)
    assert "b_mask_mask.png" in names(tmp_path / "out") and "a_mask_mask.png" not in names(tmp_path / "out")
    status, summary, said = call(photos / "a_mask.png", "--out", tmp_path / "own")  # as nothing else was asked for
    assert status == 0 and "1 of 1 photos labelled" in summary and "taken for" not in said


def test_the_same_call_goes_on_where_results_lie_among_the_photos(photos, call, left_out):
    assert call(photos, "--out", photos)[0] == 0
    assert left_out(photos, "--out", photos) == (3, 3)
    assert call(*photos.iterdir(), "--out", photos / "out")[0] == 0
    assert left_out(*photos.iterdir(), "--out", photos / "out") == (3, 3)
    assert "out/out" not in " ".join(names(photos))
    (photos / "a_mask.png").unlink()  # its overlay says on its own what it is
    assert left_out(photos, "--out", photos) == (2, 3)


def test_a_kill_leaves_nothing_that_is_taken_for_a_photo(photos, monkeypatch):
    """Killed between writing and renaming: what stays is found by no search for photos."""
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(SystemExit))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    before = names(photos)
    for name in (f"a{MASK}", f"a{OVERLAY}"):
        with pytest.raises(SystemExit):
            hubmodels.export.save_image(Image.new("RGB", (32, 40)), photos / name)
    assert len(names(photos)) == len(before) + 2
    assert len(plan([photos], photos).jobs) == 3


@pytest.mark.parametrize("name", ["..jpg", "a.b.jpg", " .jpg", "-.png"])
def test_results_stay_in_the_folder_for_results(tmp_path, name):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 40)).save(tmp_path / "in" / name, "PNG")
    out = tmp_path / "out"
    for source in (tmp_path / "in", tmp_path / "in" / name):
        (job,) = plan([source], out).jobs
        assert job.mask.parent == job.overlay.parent == out and job.mask.name.endswith(MASK)


def test_what_looks_like_a_photo_is_found_or_named(photos, tmp_path, call):
    folder = tmp_path / "camera"
    (folder / "__MACOSX").mkdir(parents=True)
    for name in ("saved.jfif", "old.jpe", "grey.PGM"):
        Image.new("L", (40, 32)).save(folder / name, "PPM" if name.endswith("PGM") else "JPEG")
    for name in ("1.HEIC", "2.heic", "raw.dng", "._saved.jpg", "__MACOSX/a.jpg"):
        (folder / name).write_bytes(b"\0")
    (folder / "linked").symlink_to(photos, target_is_directory=True)
    (photos / "round").symlink_to(photos, target_is_directory=True)
    (folder / "again").symlink_to(photos / "more" / "deep", target_is_directory=True)  # found by both of its names
    os.mkfifo(folder / "pipe.jpg")
    status, summary, said = call(folder, "--out", tmp_path / "out")
    assert status == 0 and "not read: 1 .dng, 2 .heic; convert" in said
    assert "7 of 7 photos labelled" in summary
    found = names(tmp_path / "out")
    assert {"linked/more/b_mask.png", "linked/more/deep/a_mask.png", "again/a_mask.png"} <= set(found)


def test_photos_that_no_suffix_tells_are_counted(photos, tmp_path):
    """A backup of a phone, say: what begins as a photo does, and nothing else; other kinds in the same line."""
    folder = tmp_path / "backup"
    folder.mkdir()
    for name, kind in (("8a01", "JPEG"), ("8a02", "PNG"), (".8a03", "PNG")):
        Image.new("L", (40, 32)).save(folder / name, kind)
    (folder / "8a04").write_bytes(b"text")
    (folder / "8a05").touch()
    (folder / "8a06").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no photos .*; .*not read: 3 without .* JPEG or PNG; name them \.jpg or"):
        plan([folder], tmp_path / "out")
    (folder / "raw.PEF").touch()
    with pytest.raises(ValueError, match=r"not read: 1 \.pef, 3 without .*; convert them to JPEG first and name those"):
        plan([folder], tmp_path / "out")
    (photos / "a.png").rename(photos / "a")
    assert "1 without a suffix that begins" in plan([photos], tmp_path / "out").unread
    assert plan([photos / "a"], tmp_path / "out").unread == ""  # named on its own


@pytest.mark.parametrize("suffix", ["pjpeg", "PJP"])
def test_jpegs_have_many_suffixes(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").touch()
    assert len(plan([tmp_path], tmp_path / "out").jobs) == 1


@pytest.mark.parametrize("suffix", ["hif", "psd", "tga", "pef", "srw", "x3f", "jpf", "j2k", "rwl"])
def test_photos_of_kinds_that_are_not_read_are_counted(photos, tmp_path, suffix):
    (photos / f"c.{suffix}").touch()
    assert f"not read: 1 .{suffix}; convert them to JPEG first" in plan([photos], tmp_path / "out").unread


def test_what_cannot_be_opened_is_reported_and_the_rest_goes_on(photos, tmp_path, call, monkeypatch):
    """A link to a photo that is gone, and a folder that may not be searched; tests may run as somebody who may."""
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    iterdir = Path.iterdir

    def refusing(folder):
        if folder.name == "deep":
            raise PermissionError(13, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refusing)
    status, summary, said = call(photos, "--out", tmp_path / "out")
    assert status == 1 and "2 of 3 photos labelled" in summary
    assert re.search(r"deep: cannot be searched for photos \(Permission denied\)", said)
    assert re.search(r"gone\.jpg: is a link to a file that is not there", said)
    assert call(photos / "a.png", photos / "more", "--out", tmp_path / "out")[0] == 1  # for the folder alone
    with pytest.raises(ValueError, match=r"no photos found.*; .*deep: cannot be searched"):
        plan([photos / "more" / "deep"], tmp_path / "out")


def test_a_name_too_long_for_results_is_told_before_the_work_and_the_rest_goes_on(photos, tmp_path, call):
    long = photos / f"{'n' * 248}.jpg"
    shutil.copy(photos / "more" / "b.jpg", long)
    for _ in range(2):  # the second finds what the first made
        status, summary, said = call(photos, "--out", tmp_path / "out")
        assert status == 1 and "3 of 4 photos labelled" in summary
        assert f"{long}: its results would have names of 260 bytes, of 255 at most: shorten its" in said


def test_a_closed_folder_for_results_is_told_and_the_rest_goes_on(photos, tmp_path, call, monkeypatch):
    """Tests may run as somebody to whom no folder is closed."""
    closed = tmp_path / "out" / "more"
    assert call(photos, "--out", tmp_path / "out")[0] == 0
    write = hubmodels.files.write_bytes

    def refusing(data: bytes, path: Path) -> Path:
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return write(data, path)

    monkeypatch.setattr("hubmodels.result_files.write_bytes", refusing)
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != closed)
    status, summary, said = call(photos, "--out", tmp_path / "out", "--preset", "gentle")
    assert status == 1 and "2 of 3 photos labelled" in summary
    assert f"b.jpg: {closed} cannot be written; change its permissions or choose another --out" in said


def test_a_photo_that_may_not_be_read_is_not_taken_for_a_closed_folder(photos, tmp_path, call, monkeypatch):
    def refusing(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("hubmodels.batch.read_image", refusing)
    status, summary, said = call(photos / "a.png", "--out", tmp_path / "out")
    assert status == 1 and "0 of 1 photos labelled" in summary
    assert "Permission denied" in said and "cannot be written" not in said


def test_a_link_to_itself_is_told_and_the_rest_goes_on(photos, tmp_path, call):
    (photos / "a.jpg").symlink_to("a.jpg")
    status, summary, said = call(photos, "--out", tmp_path / "out")
    assert (
        status == 1 and "3 of 4 photos labelled" in summary and "a.jpg: is a link to a file that is not there" in said
    )


@pytest.mark.parametrize("source", ["https://example.com/a.jpg", "file:///tmp/a.jpg", ""])
def test_addresses_are_not_opened(tmp_path, call, source):
    status, _, said = call(source, "--out", tmp_path / "out")
    assert status == 2 and (f"{source}: addresses are not opened; download the photo" in said or not source)
    assert source or "expected the path of a photo; got an empty text" in said


def test_an_empty_folder_is_refused_and_told_which_files_are_photos(tmp_path):
    with pytest.raises(ValueError) as refused:
        plan([tmp_path], tmp_path / "out")
    said, suffixes = str(refused.value).split("no photos found; expected files ending in ")
    assert not said and suffixes.split(", ") == sorted(SUFFIXES)


def planned(*sources: Path) -> dict[str, str]:
    """Photo -> what its results are called."""
    jobs = plan(sources, "out").jobs
    assert len({job.mask for job in jobs}) == len({job.overlay for job in jobs}) == len(jobs)
    assert all(job.mask.name[: -len(MASK)] == job.overlay.name[: -len(OVERLAY)] for job in jobs)
    return {job.photo.name: job.mask.name.removesuffix(MASK) for job in jobs}


@pytest.mark.parametrize(
    "photos, results",
    [
        (["a.jpg", "b.png"], ["a", "b"]),
        (["a.jpg", "a.jpeg", "b.jpg"], ["a.jpg", "a.jpeg", "b"]),
        (["A.jpg", "a.png"], ["A.jpg", "a.png"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.png", "a.jpg.png"]),
        (["A.jpg", "a.JPG", "a.jpg"], ["A.jpg", "a.JPG_2", "a.jpg_3"]),
        (["A.jpg", "a.jpg", "a.jpg_2.png"], ["A.jpg", "a.jpg_2", "a.jpg_2.png"]),
    ],
    ids=["apart", "suffixes", "case", "a name with a suffix", "case of suffixes", "a name with a number"],
)
def test_photos_of_one_name_have_results_of_their_own(tmp_path, photos, results):
    paths = [tmp_path / name for name in photos]
    for path in paths:
        path.touch()
    assert planned(tmp_path) == planned(*reversed(paths)) == dict(zip(photos, results, strict=True))


def test_folders_that_differ_by_case_alone_have_results_of_their_own(tmp_path):
    """Results may go where case makes no difference."""
    for folder in ("A", "a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").touch()
    masks = [str(job.mask).casefold() for job in plan([tmp_path], "out").jobs]
    assert len(set(masks)) == len(masks) == 2


def test_resume_knows_results_that_are_named_with_the_suffix(photos, tmp_path, left_out):
    out = tmp_path / "out"
    Image.new("RGB", (32, 40)).save(photos / "a.jpeg")
    assert [left_out(photos, "--out", out), left_out(photos, "--out", out)] == [(0, 4), (4, 4)]
    assert {"a.jpeg_mask.png", "a.png_overlay.jpg", "more/b_mask.png", "more/deep/a_mask.png"} <= set(names(out))
    assert left_out(photos, "--out", photos) == (0, 4)
    Image.new("L", (32, 40)).save(photos / "a.jpeg_mask.png")
    assert plan([photos], photos).drawn == [photos / "a.jpeg_mask.png"]


def test_results_never_overwrite_each_other(photos, tmp_path):
    deep = photos / "more" / "deep"
    with pytest.raises(ValueError, match=r"of different folders .* of one name: .*in/a\.png and .*deep/a\.png; ren"):
        plan([photos / "a.png", deep / "a.png"], tmp_path / "out")
    for name in "bcdef":
        for folder, suffix in ((photos, "png"), (deep, "jpg")):
            (folder / f"{name}.{suffix}").touch()
    with pytest.raises(ValueError, match=r"a\.png and .*b\.png and .*b\.jpg; .*c\.jpg; and 3 more; re"):
        plan([photos, deep], tmp_path / "out")


def test_three_names_that_clash_are_all_there_is_to_tell(photos, tmp_path):
    for name in "abc":
        for folder in (photos, photos / "more" / "deep"):
            (folder / f"{name}.png").touch()
    with pytest.raises(
        ValueError, match=r"in/c\.png and .*deep/c\.png; rename one of each or label the folders apart$"
    ):
        plan([photos, photos / "more" / "deep"], tmp_path / "out")


def test_a_corrected_mask_under_a_name_that_photos_share_since_is_told(photos, tmp_path, call):
    """A photo that is added later changes what the results of another are called."""
    out = tmp_path / "out"
    assert call(photos, "--out", out)[0] == 0
    Image.new("RGB", (32, 40)).save(photos / "a.jpg")
    assert "or it counts for none" not in call(photos, "--out", out)[2]  # nothing is lost with one of hubmodels
    Image.new("L", (32, 40)).save(out / "a_mask.png")
    found = plan([photos], out)
    assert found.orphans == [out / "a_mask.png"] and len(found.jobs) == 4 and not found.kept
    said = call(photos, "--out", out)[2]
    assert f"1 mask ({out / 'a_mask.png'}) was not made by hubmodels, and photos share the name" in said
    assert "as in a.jpg_mask.png, or it counts for none" in said
    (out / "a_mask.png").rename(out / "a.png_mask.png")
    found = plan([photos], out)
    assert not found.orphans and found.kept == [out / "a.png_mask.png"]


def test_photos_of_one_folder_are_no_clash_by_whatever_path_they_come(photos, tmp_path):
    (photos / "a.jpg").touch()
    (tmp_path / "linked").symlink_to(photos, target_is_directory=True)
    jobs = plan([photos / "a.png", tmp_path / "linked" / "a.jpg"], tmp_path / "out").jobs
    assert [job.mask.name for job in jobs] == ["a.png_mask.png", "a.jpg_mask.png"]


@pytest.mark.parametrize("relative", ["sources", "out"])
@pytest.mark.parametrize("result", ["a_mask.png", "a_overlay.jpg"])
def test_what_lies_where_a_result_would_go_is_no_photo_by_whatever_path_it_is_found(
    photos, tmp_path, monkeypatch, result, relative
):
    """In a folder for results below that of the photos, of which one is named from here and one in full."""
    monkeypatch.chdir(photos)
    source, out = (Path(), photos / "out") if relative == "sources" else (photos, Path("out"))
    (photos / "out").mkdir()
    Image.new("L", (32, 40)).save(photos / "out" / result)
    found = plan([source], out)
    assert found.drawn == [source / "out" / result] and found.kept == [out / result]
    assert [job.photo for job in found.jobs] == [source / "more" / "b.jpg", source / "more" / "deep" / "a.png"]


def test_files_drawn_beside_photos_are_told_in_order(photos, tmp_path):
    for name in ("more/b_overlay.jpg", "a_overlay.jpg", "a_mask.png"):
        Image.new("L", (32, 40)).save(photos / name)
    assert plan([photos / "more", photos], tmp_path / "out").drawn == [
        photos / "a_mask.png",
        photos / "a_overlay.jpg",
        photos / "more" / "b_overlay.jpg",
    ]


def test_what_photos_are_called_does_not_hang_on_masks_drawn_beside_others(tmp_path):
    """The mask of a.jpg beside a photo called a_mask.jpg, in the same folder and in another one."""
    for name in ("one/a.jpg", "one/a_mask.png", "one/a_mask.jpg", "two/a_mask.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert planned(tmp_path / "one") == {"a.jpg": "a", "a_mask.jpg": "a_mask"}
    (tmp_path / "one" / "a_mask.jpg").unlink()
    assert planned(tmp_path / "one", tmp_path / "two") == {"a.jpg": "a", "a_mask.jpg": "a_mask"}


def test_a_mask_drawn_beside_its_photo_may_be_named_with_the_suffix(photos, tmp_path):
    drawn = photos / "more" / "b.jpg_mask.png"
    drawn.touch()
    found = plan([photos], tmp_path / "out")
    assert found.drawn == [drawn] and len(found.jobs) == 3


def test_a_link_to_nothing_where_a_result_would_go_is_left_alone(photos, tmp_path):
    """What it names may be on a disk that is not there today."""
    (tmp_path / "out").mkdir()
    link = tmp_path / "out" / "a_mask.png"
    link.symlink_to(tmp_path / "nowhere")
    found = plan([photos], tmp_path / "out")
    assert found.kept == [link] and photos / "a.png" not in {job.photo for job in found.jobs}


@pytest.mark.parametrize("again", ["a.png", "../in/a.png", "linked/a.png"])
def test_a_photo_named_twice_is_labelled_once(photos, tmp_path, again):
    (photos / "linked").symlink_to(photos, target_is_directory=True)
    assert len(plan([photos / "a.png", photos / again], tmp_path / "out").jobs) == 1


def test_a_photo_is_labelled_as_it_is_named(photos, tmp_path, call, person):
    """One that is named on its own, whatever its suffix."""
    shutil.copy(photos / "a.png", tmp_path / "scan.raw")
    assert call(tmp_path / "scan.raw", "--out", tmp_path / "out")[0] == 0
    assert_array_equal(stored(tmp_path / "out" / "scan_mask.png"), person.predict(photos / "a.png").labels)
