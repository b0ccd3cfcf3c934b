"""`hubmodels tune`: what it writes and says, what it refuses, and how it stops."""

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

from hubmodels import Refinement
from hubmodels.cli import main
from hubmodels.ctrl_c import stops_on_ctrl_c
from hubmodels.export import encode_image, indexed_png
from hubmodels.labels import PERSON, LabelSet
from hubmodels.planning import Job
from hubmodels.result_files import sealed, write_cutout
from hubmodels.segmenter import Segmenter
from hubmodels.settings_files import read_settings
from tests.tuning.conftest import CLEAN, HOLES, NONE, dotted, save


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Python ignores it in what a shell's script runs in the background, and so did tests there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def tune(folders, model, tmp_path, monkeypatch, capsys):
    """`hubmodels tune` with the drawn model and few settings -> status, stdout, stderr."""
    monkeypatch.setattr("hubmodels.commands.tune.load_chosen", lambda *_: model)
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

    monkeypatch.setattr("hubmodels.commands.label.load_chosen", lambda *_: model)
    monkeypatch.setattr("hubmodels.batch.how_made", lambda *_, **__: {})
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


def ctrl_c_during(photo: int, model: Segmenter, monkeypatch: pytest.MonkeyPatch, *, times: int = 1) -> list[np.ndarray]:
    """Ctrl-C comes, once or more often, while that photo, counted from 1, is tuned; the photos that were."""
    seen: list[np.ndarray] = []

    def tuned(image: np.ndarray, **options: Any) -> Any:
        seen.append(image)
        for _ in range(times if len(seen) == photo else 0):
            signal.raise_signal(signal.SIGINT)
        return Segmenter.tune(model, image, **options)

    monkeypatch.setattr(model, "tune", tuned, raising=False)
    return seen


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("photo", [1, 2, 3])
@pytest.mark.parametrize("bar", ["", "1"], ids=["bar", "no bar"])
def test_ctrl_c_chooses_on_the_photos_that_are_scored(tune, model, tmp_path, monkeypatch, photo, times, bar):
    """One that comes before two photos are scored, or a second one, ends at once and writes nothing."""
    monkeypatch.setenv("TQDM_DISABLE", bar)
    seen = ctrl_c_during(photo, model, monkeypatch, times=times)
    status, out, err = tune()
    assert status == 130 and len(seen) == photo
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (tmp_path / "tuned.json").exists() == (photo == 3 and times == 1)
    if photo == 3 and times == 1:
        assert "3 photos, 5 settings" in out and "stopped: chosen on 3 of 4 photos" in err
        assert Refinement.from_dict(read_settings(tmp_path / "tuned.json")[0]) == CLEAN


def test_ctrl_c_does_not_take_a_photo_that_was_left_out_for_scored(tune, folders, model, tmp_path, monkeypatch):
    """Of three photos that were begun one is damaged and one is scored, which is too few to choose by."""
    (folders[0] / "deep" / "p3.png").write_bytes(b"")  # the first
    seen = ctrl_c_during(2, model, monkeypatch)
    assert tune()[0] == 130 and len(seen) == 2 and not (tmp_path / "tuned.json").exists()


def test_ctrl_c_during_the_last_photo_stops_nothing(tune, model, monkeypatch):
    ctrl_c_during(4, model, monkeypatch)
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


class BrightBags(torch.nn.Module):
    """What is bright is a bag, or else a dress."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = 20 * (x.mean(1, keepdim=True) - 0.5)
        return torch.cat([-bright, bright, bright + 1], 1)


def test_labels_that_no_photo_shows_are_left_out_of_what_is_tried(tune, folders, tmp_path, monkeypatch):
    labels = LabelSet.custom(["background", "dress", "night bag"], task="things")
    model = Segmenter(BrightBags().eval(), labels, name="bright_bags", input_px=800)
    monkeypatch.setattr("hubmodels.commands.tune.load_chosen", lambda *_: model)
    monkeypatch.setattr("hubmodels.commands.tune.chosen_model", lambda _: ("bright_bags", None))
    monkeypatch.setattr("hubmodels.commands.tune.published_task", lambda *_: None)
    rows = {}
    for absent in ([], ["--absent", "night bag"]):
        status, out, _ = tune(*absent, "--report", tmp_path / "report.json")
        assert status == 0
        report = json.loads((tmp_path / "report.json").read_text())
        rows[bool(absent)] = report["iou"]["dress"][1], report.get("told_absent")
        assert ("--absent 'night bag'" in out) == bool(absent)  # in the command to go on with
        assert ("no photo shows night bag: not in mIoU" in out) == (not absent)
        assert "is on" not in out
    assert rows == {False: (0.0, None), True: (1.0, ["night bag"])}

    mask = np.array(Image.open(folders[1] / "p1.png"))
    mask[50:60] = 2
    save(folders[1], "p1.png", mask)
    assert "note: night bag is on 1 of the masks, though --absent says that none shows it" in tune(*absent)[1]


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
    assert (
        "photos without a mask, which are left out: 1" in err
        and "1 of 3 masks are as hubmodels wrote them" in err
        and "p3.png" in err
    )


def test_masks_that_say_they_show_other_labels_are_refused(tune, folders):
    _, masks = folders
    note = {"task": "fashion", "labels": json.dumps(["ground", "hat"]), "palette": '["#000000", "#ffffff"]'}
    made = Image.fromarray(np.asarray(Image.open(masks / "p0.png"))).convert("L")
    write_cutout(made, masks / "p0.png", note=json.dumps(note))  # sealed, as a mask of `hubmodels label` is
    status, _, err = tune()
    assert status == 2
    assert "p0.png says that it shows fashion (ground, hat), not" in err and "--task or --model that they are of" in err


def test_a_photo_under_two_names_is_judged_once(tune, folders):
    photos, masks = folders
    (photos / "again.png").symlink_to("p0.png")
    (masks / "again.png").write_bytes((masks / "p0.png").read_bytes())
    assert "4/4" in tune()[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "u2net_small_persn"], "u2net_small_person"),
        (["--model", "u2net_small_fashion"], r"labels fashion, not person"),
        (["--settings", "nowhere.json"], "nowhere.json"),
        (["--absent", "person"], r"absent leaves none of person to look for"),
        (["--report", "report.jpg"], r"report.jpg: expected a name that ends in .json, such as tuned.json"),
        (["--report", "."], r"expected a file to write; got a folder"),
        (["--out", "same.json", "--report", "./same.json"], r"--report must be another file than --out"),
    ],
)
def test_calls_that_make_no_sense_are_refused_before_the_work(tune, monkeypatch, arguments, message):
    monkeypatch.setattr("hubmodels.commands.tune.load_chosen", None)
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"task": "person", "min_region_px": 5}', "was tuned for person, but deeplabv3plus_fashion labels fashion"),
        ('{"person_threshold": 0.4}', "person_threshold is for two labels, but deeplabv3plus_fashion has 7; leave it"),
    ],
)
def test_settings_to_try_that_are_for_other_labels_are_named(folders, tmp_path, capsys, text, said):
    (tmp_path / "s.json").write_text(text)
    call = ["tune", str(folders[0]), "--masks", str(folders[1]), "--out", str(tmp_path / "out.json")]
    assert main([*call, "--settings", str(tmp_path / "s.json")]) == 2
    assert f"{tmp_path / 's.json'}" in (told := capsys.readouterr().err) and said in told
    assert not (tmp_path / "out.json").exists()
