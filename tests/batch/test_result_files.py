"""What a result says of how it was made, and what counts as one."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from PIL import Image

import hubmodels
from hubmodels.batch import how_made
from hubmodels.labels import LabelSet
from hubmodels.planning import plan
from hubmodels.result_files import ENDS, MASK, OVERLAY, is_remains, is_result, is_whole, note_in, note_of, short_note
from tests.folders import stored


def test_a_mask_says_how_it_was_made_and_is_sealed(photos, call):
    """Any change of the file breaks the seal, and what others read stays a PNG."""
    assert call(photos / "a.png", "--out", photos)[0] == 0
    mask = photos / "a_mask.png"
    with Image.open(mask) as checked:
        checked.verify()  # its checksums, which reading it does not look at in text
    with Image.open(mask) as picture:
        picture.load()
        assert set(picture.text) == {"hubmodels", "hubmodels_sha256"}
        assert json.loads(picture.text["hubmodels"]) and note_in(mask) == picture.text["hubmodels"]
    data = mask.read_bytes()
    without = data.replace(picture.text["hubmodels_sha256"].encode(), b"")
    rest = data[: data.index(b"hubmodels_sha256") - 8] + data[-12:]
    assert picture.text["hubmodels_sha256"] == hashlib.sha256(rest).hexdigest()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    for other in (without, rest, bytes(changed), data + b"\0", data[:-1]):
        mask.write_bytes(other)
        assert not is_result(mask)


def test_a_result_under_another_name_and_an_overlay_with_another_comment_are_none(photos, call):
    assert call(photos / "a.png", "--out", photos)[0] == 0
    shutil.copy(photos / "a_mask.png", photos / "copied.png")
    assert is_result(photos / "a_mask.png") and not is_result(photos / "copied.png")
    overlay = Image.fromarray(stored(photos / "a_overlay.jpg"))
    for comment, ours in ((short_note("{}"), True), ("hubmodelsx", False), ("somebody's", False)):
        overlay.save(photos / f"own{OVERLAY}", comment=comment)
        assert is_result(photos / f"own{OVERLAY}") == ours


@pytest.mark.parametrize("name", [MASK, OVERLAY])
def test_remains_begin_as_results_do_and_have_no_end(tmp_path, name):
    (begin, end), path = ENDS[name], tmp_path / f"a{name}"
    whole = begin + b"pixels" + end
    for data in (b"", bytes(9), begin[:2], begin, whole[:-1]):
        path.write_bytes(data)
        assert is_remains(path), data
    for data in (whole, whole + b"more", b"drawn by hand", bytes(9) + whole):
        path.write_bytes(data)
        assert not is_remains(path), data
    path.unlink()
    assert not is_remains(path)


def test_an_overlay_is_whole_if_it_ends_as_jpegs_do(tmp_path):
    path, (begin, end) = tmp_path / f"a{OVERLAY}", ENDS[OVERLAY]
    for data, whole in ((begin + end, True), (end, True), (begin + end + b"\0", False), (begin, False)):
        path.write_bytes(data)
        assert is_whole(path) == whole
    path.write_bytes(end[:1])
    with pytest.raises(OSError):
        is_whole(path)


def test_what_a_mask_says_names_its_photo_and_hangs_on_no_order(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"photo")
    note = note_of(tmp_path / "a.jpg", {"name": "mine", "bf16": False})
    assert note == note_of(tmp_path / "a.jpg", {"bf16": False, "name": "mine"})
    assert json.loads(note) == {"name": "mine", "bf16": False, "photo_sha256": hashlib.sha256(b"photo").hexdigest()}


def test_an_overlay_of_a_release_before_comments_is_known_by_its_mask(photos, call):
    assert call(photos / "a.png", "--out", photos)[0] == 0
    overlay = photos / "a_overlay.jpg"
    Image.fromarray(stored(overlay)).save(overlay)
    assert is_result(overlay)
    shutil.copy(overlay, photos / "other_overlay.jpg")
    assert not is_result(photos / "other_overlay.jpg")


def test_many_long_labels_fit_beside_an_overlay(photos, tmp_path, call, person):
    """Their names take more than a comment of JPEG may hold."""
    labels = LabelSet.custom([f"{index:03d}" + 97 * "é" for index in range(256)])
    made_by = how_made(hubmodels.Segmenter(person.network, labels, name="m"), hubmodels.Refinement())
    assert len(json.dumps(made_by)) > 65_533
    (job,) = plan([photos / "a.png"], tmp_path / "out").jobs
    (outcome,) = hubmodels.batch.run(person, [job], made_by)
    assert outcome.error is None and hubmodels.batch.is_done(job, made_by)
