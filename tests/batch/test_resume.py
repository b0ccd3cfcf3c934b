"""Labelling a folder in more than one run: what --resume leaves out after a stop, a crash or a change."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hubmodels
from hubmodels.batch import how_made
from hubmodels.files import write_bytes
from hubmodels.labels import FASHION, LabelSet
from tests.folders import names, stored


def test_a_stopped_run_says_how_to_go_on_and_does(photos, tmp_path, call, monkeypatch):
    out, labelled = tmp_path / "out", []
    predict = hubmodels.Segmenter.predict

    def stopping(model, photo, **options):
        if len(labelled) == 2:
            raise KeyboardInterrupt
        labelled.append(photo)
        return predict(model, photo, **options)

    with monkeypatch.context() as patch:
        patch.setattr(hubmodels.Segmenter, "predict", stopping)
        status, summary, said = call(photos, "--out", out)
    assert status == 130 and "2 of 3 photos labelled" in summary and "--resume" in said
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_mask.png")}
    status, summary, said = call(photos, "--out", out, "--resume")
    assert status == 0 and "2 of 3 photos are labelled already" in said and "1 of 1 photos labelled" in summary
    assert len(names(out)) == 6 and all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert "0 of 0 photos labelled" in call(photos, "--out", out, "--resume")[1]


def test_the_next_photo_is_read_and_the_last_results_are_written_meanwhile(photos, tmp_path, call, monkeypatch):
    """While the second of three photos is labelled; one after the other, this would wait for ever."""
    predict, read, write = hubmodels.Segmenter.predict, hubmodels.batch.read_image, hubmodels.batch.write_results
    reads, writes, seen = threading.Semaphore(0), threading.Semaphore(0), []

    def reading(path):
        reads.release()
        return read(path)

    def writing(*arguments, **options):
        write(*arguments, **options)
        writes.release()

    def labelling(model, photo, **options):
        seen.append(photo)
        if len(seen) == 2:
            assert all(reads.acquire(timeout=30) for _ in range(3)) and writes.acquire(timeout=30)
        return predict(model, photo, **options)

    monkeypatch.setattr("hubmodels.batch.read_image", reading)
    monkeypatch.setattr("hubmodels.batch.write_results", writing)
    monkeypatch.setattr(hubmodels.Segmenter, "predict", labelling)
    status, summary, _ = call(photos, "--out", tmp_path / "out")
    assert status == 0 and "3 of 3 photos labelled" in summary and len(names(tmp_path / "out")) == 6


def test_resume_labels_anew_what_would_come_out_otherwise(photos, tmp_path, left_out):
    out = tmp_path / "out"
    call = (photos, "--out", out)
    assert [left_out(*call), left_out(*call)] == [(0, 3), (3, 3)]
    call = (*call, "--min-region-px", "50")
    assert [left_out(*call), left_out(*call)] == [(0, 3), (3, 3)]
    Image.new("RGB", (32, 40)).save(photos / "a.png")
    (out / "more" / "b_overlay.jpg").unlink()
    (out / "more" / "deep" / "a_mask.png").unlink()
    assert [left_out(*call), left_out(*call)] == [(0, 3), (3, 3)]


def test_a_result_belongs_to_its_photo_not_to_a_name(photos, tmp_path, left_out):
    """Two cameras count from 1; a file is renamed, which keeps its time of change; another clock runs ahead."""
    out = tmp_path / "out"
    for day, size in (("day1", (32, 40)), ("day2", (40, 32))):
        (tmp_path / day).mkdir()
        Image.new("RGB", size).save(tmp_path / day / "IMG_0001.png")
        assert left_out(tmp_path / day, "--out", out) == (0, 1)
        assert stored(out / "IMG_0001_mask.png").shape == size[::-1]
    assert left_out(photos, "--out", out) == (0, 3)
    (photos / "more" / "deep" / "a.png").rename(photos / "a.png")
    assert left_out(photos, "--out", out) == (1, 2)
    os.utime(photos / "a.png", (2**32, 2**32))
    assert left_out(photos, "--out", out) == (2, 2)


@pytest.mark.parametrize("resumed", [(), ("--fill-holes-px", "9")], ids=["as before", "as stopped"])
def test_a_stop_between_the_two_results_of_a_photo_leaves_it_to_be_done(photos, tmp_path, call, monkeypatch, resumed):
    saved = []

    def stopping(*arguments, **options):
        if saved:
            raise KeyboardInterrupt
        saved.append(write_bytes(*arguments, **options))

    arguments = (photos / "a.png", "--out", tmp_path / "out")
    assert call(*arguments)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("hubmodels.result_files.write_bytes", stopping)
        assert call(*arguments, "--fill-holes-px", "9")[0] == 130 and saved
    assert "0 of 1 photos are labelled already" in call(*arguments, *resumed, "--resume")[2]
    assert "1 of 1 photos are labelled already" in call(*arguments, *resumed, "--resume")[2]


@pytest.mark.parametrize("name", ["a_mask.png", "a_overlay.jpg"])
@pytest.mark.parametrize("left", ["nothing", "zeros", "four bytes", "before the note", "all but the end"])
def test_what_a_crash_leaves_of_a_result_is_made_anew(photos, tmp_path, left_out, name, left):
    """Its name is there, its content only in part; what would be lost is nobody's work."""
    call = (photos / "a.png", "--out", tmp_path / "out")
    assert left_out(*call) == (0, 1)
    whole = (tmp_path / "out" / name).read_bytes()
    note = whole.index(b"hubmodels")
    remains = {
        "nothing": b"",
        "zeros": bytes(len(whole)),
        "four bytes": whole[:4],
        "before the note": whole[:note],
        "all but the end": whole[:-1],
    }[left]
    (tmp_path / "out" / name).write_bytes(remains)
    assert [left_out(*call), left_out(*call)] == [(0, 1), (1, 1)]
    assert len((tmp_path / "out" / name).read_bytes()) == len(whole)


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A power cut between the two would otherwise leave an empty file where a whole one was."""
    done = []
    monkeypatch.setattr("os.fsync", lambda file: done.append(os.fstat(file).st_size))
    monkeypatch.setattr(Path, "replace", lambda *_: done.append("renamed"))
    write_bytes(b"whole", tmp_path / "file")
    assert done == [5, "renamed"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_bytes(b"old", tmp_path / "file")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(b"new", tmp_path / "file")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"old"


def test_masks_say_how_they_were_made(photos, tmp_path, call, person):
    assert call(photos / "a.png", "--out", tmp_path, "--min-region-px", "50")[0] == 0
    with Image.open(tmp_path / "a_mask.png") as mask:
        said = json.loads(mask.info["hubmodels"])
    assert said["name"] == person.name and said["hubmodels"] == hubmodels.__version__
    assert hubmodels.Refinement.from_dict(said["settings"]) == hubmodels.Refinement(min_region_px=50)


def test_what_a_mask_says_differs_with_all_that_decides_about_it(person):
    """A model of the same weights that sees smaller photos, or names, paints or votes otherwise."""
    labels = person.labels
    classifier = hubmodels.load("deeplabv3plus_fashion").region_classifier
    assert classifier is not None
    trained, other = classifier(), type(classifier())(classifier().settings)
    vote = hubmodels.Refinement(superpixel_scale=200, vote="classifier")

    def said(settings: hubmodels.Refinement, **changes: object) -> str:
        options = {"labels": labels, "name": "m", "input_px": 576, "region_classifier": lambda: trained, **changes}
        return json.dumps(how_made(hubmodels.Segmenter(person.network, **options), settings), sort_keys=True)

    plain = hubmodels.Refinement()
    changes = (
        {},
        {"input_px": 288},
        {"labels": LabelSet("person", ("background", "somebody"), labels.palette)},
        {"labels": LabelSet("people", labels.names, labels.palette)},
        {"labels": LabelSet("person", labels.names, labels.palette[::-1])},
    )
    notes = [said(plain, **change) for change in changes] + [said(vote), said(vote, region_classifier=lambda: other)]
    assert len(set(notes)) == len(notes)
    assert said(plain, region_classifier=lambda: other) == notes[0]  # which does not vote


def test_labels_that_no_photo_shows_are_left_out_and_belong_to_how_a_mask_was_made(
    photos, tmp_path, call, left_out, astronaut
):
    Image.fromarray(astronaut).save(photos / "portrait.png")
    out = tmp_path / "out"
    clothes = ("--task", "fashion", "--out", out)

    def found() -> set[str]:
        return {FASHION.names[label] for path in out.rglob("*_mask.png") for label in np.asarray(Image.open(path)).flat}

    assert call(photos, *clothes)[0] == 0
    shown = sorted(found() - {"background"})
    assert shown and "dress" not in shown
    assert left_out(photos, *clothes, "--absent", f"{shown[0]},dress") == (0, 4)  # it labels them anew
    assert shown[0] not in found()
    assert left_out(photos, *clothes, "--absent", f"dress, {shown[0]}") == (4, 4)
    assert left_out(photos, *clothes) == (0, 4)
    assert shown[0] in found()


@pytest.mark.parametrize(
    ("absent", "said"),
    [("hat", "no label 'hat' in task 'fashion'"), ("background", "may not name background"), ("", "no label ''")],
    ids=["unknown", "background", "none"],
)
def test_labels_that_cannot_be_left_out_are_refused_before_anything_is_written(photos, tmp_path, call, absent, said):
    status, _, error = call(photos, "--task", "fashion", "--out", tmp_path / "out", "--absent", absent)
    assert status == 2 and said in error and not (tmp_path / "out").exists()
