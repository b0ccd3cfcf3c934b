"""Tuning on one's own photos: which photos count, what is chosen, and whether the gain is told without flattery."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels
from hubmodels import ImageError, LabelSet, Refinement
from hubmodels.bootstrap import PhotoScores
from hubmodels.cli import main
from hubmodels.ctrl_c import stops_on_ctrl_c
from hubmodels.export import encode_image, indexed_png
from hubmodels.labels import PERSON
from hubmodels.metrics import Scores
from hubmodels.planning import Job
from hubmodels.result_files import sealed
from hubmodels.segmenter import Segmenter
from hubmodels.settings_files import read_settings
from hubmodels.tuning import (
    Example,
    Trials,
    candidates,
    conclude,
    find_examples,
    measure,
    try_settings,
)

NONE, CLEAN, HOLES = Refinement(), Refinement(min_region_px=400), Refinement(fill_holes_px=400)


class Bright(torch.nn.Module):
    """What is bright is a person, with little doubt."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = 20 * (x.mean(1, keepdim=True) - 0.5)
        return torch.cat([-bright, bright], 1)


@pytest.fixture
def model() -> Segmenter:
    return Segmenter(Bright().eval(), PERSON, name="bright", input_px=800)


def save(folder: Path, name: str, pixels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def dotted(rng: np.random.Generator, *, dots: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square on dark ground with single bright pixels beside it, which are no person, and its true labels."""
    truth = np.zeros((96, 64), np.uint8)
    top, left = rng.integers(8, 24, 2)
    truth[top : top + 40, left : left + 24] = 1
    seen = truth.copy()
    seen[rng.integers(72, 94, dots), rng.integers(2, 62, dots)] = 1
    return np.repeat(np.uint8(40 + 180 * seen)[..., None], 3, 2), truth


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    """Photos p0.png to p3.png, one of them deeper, and their masks."""
    for number in range(4):
        deep = "deep" if number == 3 else ""
        photo, truth = dotted(rng, dots=30)
        save(tmp_path / "photos" / deep, f"p{number}.png", photo)
        save(tmp_path / "masks" / deep, f"p{number}.png", truth)
    return tmp_path / "photos", tmp_path / "masks"


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


def test_a_photo_is_scored_as_predict_answers_it(folders, model):
    photos, masks = folders
    example = Example(photos / "p0.png", masks / "p0.png")
    confusion, boundary_f = try_settings(model, example, [NONE, CLEAN])
    for index, settings in enumerate((NONE, CLEAN)):
        expected = Scores(2)
        expected.add(np.asarray(Image.open(example.mask)), model.predict(example.photo, refinement=settings).labels)
        assert_array_equal(confusion[index], expected.confusion)
        assert boundary_f[index] == expected.boundary_f
    assert confusion[0, 0, 1] > confusion[1, 0, 1] == 0  # the dots are gone


def test_large_photos_are_tried_at_the_size_the_page_works_at(tmp_path, model):
    large = np.zeros((1200, 60, 3), np.uint8)
    example = Example(save(tmp_path, "a.png", large), save(tmp_path, "m.png", large[..., 0]))
    assert try_settings(model, example, [NONE])[0].sum() == 800 * 40


def test_what_is_wrong_names_its_file(folders, model, tmp_path):
    photos, _ = folders
    wrong = save(tmp_path, "wrong.png", np.zeros((50, 64), np.uint8))
    with pytest.raises(ImageError, match=r"wrong\.png: the mask is 64x50, the photo 64x96"):
        try_settings(model, Example(photos / "p0.png", wrong), [NONE])


def trials(hits: list[list[int]], settings: list[Refinement], *, size: int = 100) -> Trials:
    """Of each settings and photo, so many of the pixels of one true label were found; the others were called 1."""
    confusion = np.array([[[[found, size - found], [0, size]] for found in row] for row in hits])
    return Trials(settings, confusion, np.full((len(hits), len(hits[0])), 0.5))


def test_the_best_does_least_of_equals():
    found = trials([[50, 50], [60, 60], [60, 60]], [NONE, CLEAN, HOLES])
    assert found.best() == 1 and found.best(np.array([1])) == 1
    assert trials([[60, 60], [60, 60]], [NONE, CLEAN]).best() == 0
    both = Refinement(min_region_px=400, fill_holes_px=400)
    assert trials([[50, 50], [60, 60], [60, 60]], [NONE, both, CLEAN]).best() == 2


def test_photos_on_which_nothing_is_decided_choose_nothing():
    undecided = Trials([NONE, CLEAN], np.zeros((2, 2, 2, 2), np.int64), np.full((2, 2), np.nan))
    result = conclude(undecided, LabelSet.custom(2))
    assert not result["taken"] and result["best"] == {} and result["share"] is None
    assert result["scores"]["cross_validated"]["miou"] is None


def test_a_photo_with_too_many_superpixels_is_left_out(folders, model, monkeypatch):
    photos, masks = folders
    monkeypatch.setattr("hubmodels.refine.tuner.MERGEABLE", 0)
    said: list[str] = []
    merged = Refinement(superpixel_scale=30, merge="kmeans")
    with pytest.raises(ValueError, match="got 0 to learn from"):
        measure(model, find_examples([photos], masks)[0], [merged], failed=said.append)
    assert len(said) == 4 and "p0.png: merge 'kmeans' takes at most 0 superpixels" in said[1]


def test_every_photo_is_scored_by_the_choice_of_the_others():
    """CLEAN is best on the first photo alone, by so much that it is best on all; HOLES on the other two."""
    found = trials([[50, 50, 50], [100, 52, 52], [50, 60, 60]], [NONE, CLEAN, HOLES])
    assert found.best() == 1
    validated = found.cross_validated().confusion[:, 0, 0]
    assert validated.tolist() == [50, 52, 52]  # HOLES on the first; CLEAN on both others, because of the first


def test_a_gain_that_hangs_on_one_photo_is_not_taken():
    labels = LabelSet.custom(2)
    lucky = conclude(trials([[50] * 6, [99, 49, 49, 49, 49, 49]], [NONE, CLEAN]), labels)
    assert lucky["best"] == {"min_region_px": 400} and not lucky["taken"] and lucky["share"] < 0.9
    sure = conclude(trials([[50] * 6, [60] * 6], [NONE, CLEAN]), labels)
    assert sure["taken"] and sure["share"] == 1 and sure["photos"] == 6 and sure["settings_tried"] == 2
    assert sure["scores"]["best"] == sure["scores"]["cross_validated"]
    assert sure["scores"]["none"] == {"miou": 0.58333, "pixel_accuracy": 0.75, "boundary_f": 0.5}
    assert list(sure["iou"].values()) == [[0.5, 0.6], [0.66667, 0.71429]]
    same = conclude(trials([[50] * 6, [50] * 6], [NONE, CLEAN]), labels)
    assert not same["taken"] and same["best"] == {} and same["share"] == 0.5


def test_labels_that_vanish_are_named():
    """Both settings find all of label 0; of 40 pixels that were called 1 the second leaves 19."""
    before, after = [[60, 40], [0, 0]], [[81, 19], [0, 0]]
    found = Trials([NONE, CLEAN], np.array([[before] * 2, [after] * 2]), np.full((2, 2), np.nan))
    result = conclude(found, LabelSet.custom(["ground", "hat"]))
    assert result["vanished"] == ["hat"] and result["scores"]["none"]["boundary_f"] is None
    assert json.loads(json.dumps(result)) == result


def test_a_label_that_no_photo_shows_has_no_say():
    """The second setting finds less of both labels there are, and no more of the third, which is nowhere."""
    before = [[90, 7, 3], [10, 90, 0], [0, 0, 0]]
    after = [[80, 20, 0], [20, 80, 0], [0, 0, 0]]
    found = Trials([NONE, CLEAN], np.array([[before] * 4, [after] * 4]), np.full((2, 4), np.nan))
    result = conclude(found, LabelSet.custom(["ground", "hat", "scarf"]))
    assert found.best() == 0 and result["absent"] == ["scarf"] and not result["taken"]
    assert result["scores"]["none"]["miou"] == round((90 / 110 + 90 / 107) / 2, 5)
    assert result["iou"]["scarf"] == [0.0, 0.0]


def test_a_damaged_photo_is_left_out_and_one_is_not_enough(folders, model):
    photos, masks = folders
    examples, _ = find_examples([photos], masks)
    (photos / "p0.png").write_bytes(b"no photo")
    said: list[str] = []
    found = measure(model, examples, [CLEAN, NONE, CLEAN], failed=said.append)
    assert found.settings == [NONE, CLEAN] and found.confusion.shape == (2, 3, 2, 2)
    assert len(said) == 1 and "p0.png" in said[0]
    with pytest.raises(ValueError, match=r"two photos with masks.*got 1"):
        measure(model, examples[:1], [CLEAN], failed=said.append)
    assert isinstance(found.of(1), PhotoScores)
    rows = found.rows()
    assert [row["settings"] for row in rows] == [{}, {"min_region_px": 400}] and rows[1]["miou"] > rows[0]["miou"]


def test_what_is_tried_is_valid_and_never_twice():
    for labels, count in ((PERSON, 340), (LabelSet.custom(5), 336)):
        every = candidates(labels)
        assert len(set(every)) == len(every) == count and every[0] == NONE


@pytest.fixture
def tune(folders, model, tmp_path, monkeypatch, capsys):
    """`hubmodels tune` with the drawn model and few settings -> status, stdout, stderr."""
    monkeypatch.setattr("hubmodels.tune_command.load_chosen", lambda *_: model)
    monkeypatch.setattr("hubmodels.tuning.candidates", lambda _: [NONE, CLEAN, HOLES])
    photos, masks = folders

    def call(*arguments: str | Path, source: Path = photos) -> tuple[int, str, str]:
        places = [source, "--masks", masks, "--out", tmp_path / "tuned.json", "--task", "person"]
        status = main(["tune", *map(str, [*places, *arguments])])
        return (status, *capsys.readouterr())

    return call


def test_the_command_writes_settings_that_label_reads(tune, folders, model, tmp_path, monkeypatch):
    photos, masks = folders
    status, out, err = tune("--report", tmp_path / "report.json")
    assert status == 0 and "4/4" in err
    values, task = read_settings(tmp_path / "tuned.json")
    assert Refinement.from_dict(values) == CLEAN and task == "person"
    assert "note: 4 photos are few to choose by" in out
    assert "4 photos, 5 settings" in out  # with the presets of the task, of which one is none
    assert "best settings: min_region_px=400" in out and "better than none in 100 % of 10,000 draws" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["taken"] and len(report["rows"]) == 5 and report["photos"] == 4
    assert report["model"] == "u2net_small_person" and len(report["sha256"]) == 64

    monkeypatch.setattr("hubmodels.label_command.load_chosen", lambda *_: model)
    monkeypatch.setattr("hubmodels.batch.how_made", lambda *_: {})
    job = Job.of(photos / "p0.png", tmp_path / "out", "p0")
    call = ["label", str(job.photo), "--out", str(tmp_path / "out"), "--runtime", "torch"]  # the file says the task
    assert main([*call, "--settings", str(tmp_path / "tuned.json")]) == 0
    assert_array_equal(np.asarray(Image.open(job.mask)), np.asarray(Image.open(masks / "p0.png")))


def test_without_a_sure_gain_all_is_off(tune, folders, tmp_path, rng):
    photos, masks = folders
    for path in photos.rglob("*.png"):
        photo, truth = dotted(rng, dots=0)
        save(path.parent, path.name, photo)
        save(masks / path.parent.relative_to(photos), path.name, truth)
    status, out, _ = tune()
    assert status == 0 and read_settings(tmp_path / "tuned.json")[0] == NONE.to_dict()
    assert "not better than none by more than chance: in 50 % of 10,000 draws" in out and "best settings: none" in out


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("photo", [1, 2, 3])
@pytest.mark.parametrize("bar", ["", "1"], ids=["bar", "no bar"])
def test_ctrl_c_chooses_on_the_photos_that_are_scored(tune, model, tmp_path, monkeypatch, photo, times, bar):
    """One that comes before two photos are scored, or a second one, ends at once and writes nothing."""
    monkeypatch.setenv("TQDM_DISABLE", bar)
    seen = []

    def tuned(image: np.ndarray) -> Any:
        seen.append(image)
        for _ in range(times if len(seen) == photo else 0):
            signal.raise_signal(signal.SIGINT)
        return Segmenter.tune(model, image)

    monkeypatch.setattr(model, "tune", tuned, raising=False)
    status, out, err = tune()
    assert status == 130 and len(seen) == photo
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (tmp_path / "tuned.json").exists() == (photo == 3 and times == 1)
    if photo == 3 and times == 1:
        assert "3 photos, 5 settings" in out and "stopped: chosen on 3 of 4 photos" in err
        assert Refinement.from_dict(read_settings(tmp_path / "tuned.json")[0]) == CLEAN


def test_ctrl_c_during_the_last_photo_stops_nothing(tune, model, monkeypatch):
    seen = []

    def tuned(image: np.ndarray) -> Any:
        seen.append(image)
        if len(seen) == 4:
            signal.raise_signal(signal.SIGINT)
        return Segmenter.tune(model, image)

    monkeypatch.setattr(model, "tune", tuned, raising=False)
    status, out, err = tune()
    assert status == 0 and "4 photos, 5 settings" in out and "stopped" not in err


def test_an_ignored_ctrl_c_stays_ignored():
    """As of commands that a script has put into the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stops_on_ctrl_c(is_worth_it=lambda: True, say=pytest.fail) as stop:
            signal.raise_signal(signal.SIGINT)
        assert not stop.is_set() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_settings_of_ones_own_are_tried_too(tune, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"min_region_px": 60, "fill_holes_px": 10}))
    _, out, _ = tune("--settings", tmp_path / "mine.json")
    assert "4 photos, 6 settings" in out


def test_what_is_left_out_is_said(tune, folders, tmp_path):
    photos, masks = folders
    truth = np.asarray(Image.open(masks / "p0.png"))
    (masks / "p1.png").unlink()
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("hubmodels", "{}")  # as `hubmodels label` marks what it made
    (masks / "p0.png").unlink()
    mask = masks / "p0_mask.png"
    mask.write_bytes(sealed(encode_image(indexed_png(truth, PERSON), mask, pnginfo=info)))
    (photos / "deep" / "p3.png").write_bytes(b"")
    status, out, err = tune()
    assert status == 1 and "2 photos" in out
    assert "1 photos have no mask" in err and "1 of 3 masks are as hubmodels wrote them" in err and "p3.png" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "u2net_small_persn"], "u2net_small_person"),
        (["--model", "u2net_small_fashion"], r"labels fashion, not person"),
        (["--settings", "nowhere.json"], "nowhere.json"),
        (["--report", "."], r"expected a file to write; got a folder"),
        (["--out", "same.json", "--report", "./same.json"], r"--report must be another file than --out"),
    ],
)
def test_calls_that_make_no_sense_are_refused_before_the_work(tune, monkeypatch, arguments, message):
    monkeypatch.setattr("hubmodels.tune_command.load_chosen", None)
    status, _, err = tune(*arguments)
    assert status == 2
    assert message in err


def test_the_share_is_between_a_half_and_one(tune, capsys):
    with pytest.raises(SystemExit):
        tune("--share", "0.2")
    assert "expected 0.5 to 1; got 0.2" in capsys.readouterr().err


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from hubmodels.cli import main\n"
        "try: main(['tune', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'skimage', 'numba', 'gradio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_files_of_settings(tmp_path):
    path = tmp_path / "s.json"
    path.write_bytes(b'\xef\xbb\xbf{"task": "fashion", "crf_iterations": 3}')  # as Windows' editor saves it
    assert read_settings(path) == ({"crf_iterations": 3}, "fashion")
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file of settings; the page and"):
        read_settings(tmp_path / "none.json")
    for text, message in (
        ("{", r"s\.json: expected a JSON file of settings"),
        ("[1]", r"s\.json: expected a JSON object of settings; got list"),
        ('{"task": "pets"}', r"s\.json: expected a task of .*got 'pets'"),
        ('{"task": ["person"]}', r"s\.json: expected a task of .*got \['person'\]"),
        ("[" * 200_000, r"s\.json: expected a JSON file of settings"),
        ('{"crf_iterations": 99}', r"s\.json: crf_iterations"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_settings(path)


def test_the_real_default_gains_on_the_astronaut(astronaut, tmp_path, monkeypatch):
    """Masks that were made with settings: the same settings are found, of some."""
    person = hubmodels.load("u2net_small_person")
    wanted = Refinement(min_region_px=400, keep_largest=True, person_threshold=0.7)
    for index, part in enumerate((astronaut[:320, :256], astronaut[:320, 100:356])):
        save(tmp_path / "photos", f"{index}.png", part)
        person.predict(part, refinement=wanted).save(tmp_path / "masks" / f"{index}.png")
    examples, _ = find_examples([tmp_path / "photos"], tmp_path / "masks")
    found = measure(person, examples, [CLEAN, wanted, Refinement(crf_iterations=1)], failed=pytest.fail)
    result = conclude(found, person.labels)
    assert result["best"] == wanted.changes() and result["scores"]["best"]["miou"] == 1 and result["taken"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"task": "person", "min_region_px": 5}', "was tuned for person, but deeplabv3plus_fashion labels fashion"),
        ('{"person_threshold": 0.4}', "person_threshold is for two labels, but deeplabv3plus_fashion has 7; take it"),
    ],
)
def test_settings_to_try_that_are_for_other_labels_are_named(folders, tmp_path, capsys, text, said):
    (tmp_path / "s.json").write_text(text)
    call = ["tune", str(folders[0]), "--masks", str(folders[1]), "--out", str(tmp_path / "out.json")]
    assert main([*call, "--settings", str(tmp_path / "s.json")]) == 2
    assert f"{tmp_path / 's.json'}" in (told := capsys.readouterr().err) and said in told
    assert not (tmp_path / "out.json").exists()


def test_settings_of_one_task_are_not_for_another(folders, tmp_path, capsys):
    path = tmp_path / "s.json"
    path.write_text('{"task": "person", "min_region_px": 5}')
    call = ["label", str(folders[0]), "--out", str(tmp_path / "out"), "--settings", str(path)]
    assert main([*call, "--model", "deeplabv3_fashion"]) == 2
    said = "tuned for person, but deeplabv3_fashion labels fashion; choose another model, or say --task fashion"
    assert said in capsys.readouterr().err
    assert main([*call, "--model", "deeplabv3_fashion", "--task", "fashion", "--bf16", "--runtime", "onnx"]) == 2
    assert "leave out --bf16" in capsys.readouterr().err  # which comes after
    assert Refinement.from_dict(json.loads(path.read_text())) == Refinement(min_region_px=5)
