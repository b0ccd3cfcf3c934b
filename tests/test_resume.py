"""Runs that go on: only their own run, whole or damaged, and never over another one."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from hubmodels.errors import OutputError
from tests.tiny_runs import TINY
from training.checkpoint import load_checkpoint, save_checkpoint
from training.engine import network_for
from training.errors import DataError, RecipeError, run_command
from training.photos import check_same_photos, warn_of_seen
from training.recipe import Recipe
from training.train import Run, main, train

RECIPES = Path(__file__).parent.parent / "training" / "recipes"
SHORT = dataclasses.replace(TINY, epochs=1, sources=("fashionista",))


@pytest.fixture
def saved(tmp_path):
    """The folder of a run that was stopped before its first step."""
    Run(TINY, tmp_path).save()
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, r"optimizer \('adamw' there, 'sgd' here\)"),
        ({"backbone_lr_factor": 0.0}, r"backbone_lr_factor \(0\.5 there, 0\.0 here\)"),
        ({"lr": 0.1, "weight_decay": 0.5}, r"lr \(0\.001 there, 0\.1 here\), weight_decay \(0\.01 there, 0\.5 here\)"),
        ({"augment": dataclasses.replace(TINY.augment, flip=0.0)}, r"augment\.flip \(0\.5 there, 0\.0 here\)"),
        ({"soft_labels": "runs/soft"}, r"soft_labels \(False there, True here\)"),
    ],
    ids=["optimizer", "factor", "two keys", "augment", "soft labels"],
)
def test_a_run_with_other_settings_is_not_gone_on_with(saved, change, message):
    with pytest.raises(RecipeError, match=rf"last\.pt is of a run with other settings: {message}"):
        Run(dataclasses.replace(TINY, **change), saved).resume()


def test_a_longer_schedule_and_another_name_go_on(saved):
    run = Run(dataclasses.replace(TINY, name="other", epochs=9, mixed_precision="no"), saved)
    run.resume()
    assert run.epoch == 0


def test_a_folder_of_soft_labels_may_move():
    old = dataclasses.replace(TINY, soft_labels="runs/soft").to_dict()
    assert not dataclasses.replace(TINY, soft_labels="elsewhere").differences(old)


def test_what_an_older_checkpoint_does_not_say_is_the_default():
    old = {key: value for key, value in TINY.to_dict().items() if key not in ("crf", "optimizer", "schedule")}
    old["augment"] = {"crop_hw": [64, 48], "scale": [0.9, 1.1]}  # lists, and no key that came later
    assert not TINY.differences(old)
    assert set(Recipe.from_dict({**TINY.to_dict(), "schedule": "poly"}).differences(old)) == {"schedule"}


def test_a_run_is_not_started_over_another(saved):
    with pytest.raises(RecipeError, match=rf"last\.pt: go on with it by --resume, or remove {saved} to start again"):
        train(TINY, folder=saved, data=saved)
    assert load_checkpoint(saved / "last.pt")["epoch"] == 0


def test_rows_of_a_run_that_saved_nothing_go(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n')
    with pytest.raises(DataError, match="missing"):  # no data; the run itself was made
        train(TINY, folder=tmp_path, data=tmp_path)
    assert (tmp_path / "log.jsonl").read_text() == ""


@pytest.mark.parametrize("tail", ['{"epoch": 2, "lo', '{"epoch": 2}\n{"ep', "", '{"epoch": 2}'])
def test_a_row_that_a_kill_cut_is_dropped(tmp_path, tail):
    run = Run(TINY, tmp_path)
    run.epoch = 1
    run.save()
    (tmp_path / "log.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n' + tail)
    again = Run(TINY, tmp_path)
    again.resume()
    again.log_row({"epoch": 2})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_a_row_without_its_end_of_line_gets_one(tmp_path):
    run = Run(TINY, tmp_path)
    run.epoch = 1
    run.save()
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}')
    run.resume()
    run.log_row({"epoch": 2})
    assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2}\n'


def test_a_damaged_checkpoint_is_said_with_its_file(saved):
    run = Run(TINY, saved)
    whole = (saved / "last.pt").read_bytes()
    for content in (b"", b"x" * 100, whole[: len(whole) // 2]):
        (saved / "last.pt").write_bytes(content)
        with pytest.raises(DataError, match=r"last\.pt: expected a checkpoint of training\.train.*torch refuses"):
            run.resume()


def test_a_checkpoint_for_export_cannot_be_gone_on_with(saved):
    run = Run(TINY, saved)
    run.save("best.pt")
    save_checkpoint(load_checkpoint(saved / "best.pt"), saved / "last.pt")
    with pytest.raises(DataError, match=r"expected the last\.pt of a run; got a file without net, optimizer, step_"):
        run.resume()


@pytest.fixture
def ended(drawn, tmp_path):
    """The folder of a run of one epoch on `drawn`."""
    train(SHORT, folder=tmp_path / "run", data=drawn)
    return tmp_path / "run"


def test_resume_before_the_first_checkpoint_starts_the_run_and_says_so(drawn, tmp_path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n')  # of one that was killed while saving
    run = train(SHORT, folder=folder, data=drawn, resume=True)
    assert re.search(r"run/last\.pt: no checkpoint to go on from: started from the beginning", caplog.text)
    assert run.epoch == 1 and len((folder / "log.jsonl").read_text().splitlines()) == 1
    caplog.clear()
    train(SHORT, folder=folder, data=drawn, resume=True)
    assert "no checkpoint" not in caplog.text


def test_checkpoints_name_the_photos_of_their_run(ended):
    train_names = [f"fashionista/{number:04d}" for number in (1, 2, 3)]
    for name in ("last.pt", "best.pt", "best_person.pt"):
        photos = load_checkpoint(ended / name)["photos"]
        digests = [*photos.pop("train_sha256"), *photos.pop("val_sha256")]
        assert photos == {"train": train_names, "val": ["fashionista/0004"], "seen": train_names}
        assert len(set(digests)) == 4 and all(len(each) == 16 for each in digests)


@pytest.mark.parametrize(("part", "number"), [("images", 2), ("labels_fashion", 3), ("images", 4)])
def test_a_run_is_not_gone_on_with_on_photos_or_masks_that_changed(ended, drawn, part, number):
    (path,) = (drawn / "fashionista" / part).glob(f"{number:04d}.*")
    turned = Image.open(path).transpose(Image.Transpose.ROTATE_180)
    turned.save(path)
    split = "val" if number == 4 else "train"
    message = rf"the {split} photos and labels as the run had them; 1 changed since \(fashionista/{number:04d}\): put"
    with pytest.raises(DataError, match=message):
        train(dataclasses.replace(SHORT, epochs=2), folder=ended, data=drawn, resume=True)


def test_a_checkpoint_that_does_not_say_what_photos_held_goes_on(ended, drawn):
    state = load_checkpoint(ended / "last.pt")
    for key in ("train_sha256", "val_sha256"):
        del state["photos"][key]
    save_checkpoint(state, ended / "last.pt")
    assert train(dataclasses.replace(SHORT, epochs=2), folder=ended, data=drawn, resume=True).epoch == 2


@pytest.mark.parametrize("resume", [False, True])
def test_the_best_of_a_run_whose_last_checkpoint_is_gone_is_not_replaced(ended, drawn, resume):
    (ended / "last.pt").unlink()
    state = load_checkpoint(ended / "best.pt")
    save_checkpoint({**state, "epoch": 7}, ended / "best.pt")
    before = (ended / "best.pt").read_bytes()
    with pytest.raises(RecipeError, match=r"best\.pt, whose last\.pt is gone: it cannot go on, and is not replaced"):
        train(SHORT, folder=ended, data=drawn, resume=resume)
    assert (ended / "best.pt").read_bytes() == before


def test_a_kill_between_the_first_two_checkpoints_is_no_end(ended, drawn):
    (ended / "last.pt").unlink()
    with pytest.raises(RecipeError, match="is not replaced"):
        train(SHORT, folder=ended, data=drawn)
    assert train(SHORT, folder=ended, data=drawn, resume=True).epoch == 1


def test_a_folder_that_cannot_be_written_is_said(drawn, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a folder to write into"):
        train(SHORT, folder=tmp_path / "file" / "run", data=drawn)


def test_ctrl_c_ends_a_command_in_one_line(capsys):
    def stopped() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_command(stopped)
    assert ended.value.code == 130 and capsys.readouterr().err.strip().startswith("stopped; a training goes on")


def test_the_log_is_json_to_strict_readers(ended):
    def refuse(word: str) -> None:
        raise AssertionError(word)

    rows = [json.loads(row, parse_constant=refuse) for row in (ended / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("splits", "limit", "message"),
    [
        (
            {"train": [1, 2], "val": [4]},
            None,
            r"the train photos that the run had; got 1 gone \(fashionista/0003\): go on",
        ),
        ({"train": [1, 2, 4], "val": [3]}, None, r"got 1 new \(fashionista/0004\) and 1 gone \(fashionista/0003\)"),
        ({"train": [1, 2, 3], "val": [4, 2]}, None, r"the val photos that the run had; got 1 new \(fashionista/0002\)"),
        ({"train": [3, 1, 2], "val": [4]}, None, "got them in another order"),
        (
            {"train": [1, 2, 3], "val": [4]},
            1,
            r"got 2 gone \(fashionista/0002, fashionista/0003\).*is --limit the same",
        ),
    ],
    ids=["fewer", "others", "val", "order", "limit"],
)
def test_a_run_is_not_gone_on_with_on_other_photos(ended, drawn, splits, limit, message):
    (drawn / "fashionista" / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(DataError, match=message):
        train(dataclasses.replace(SHORT, epochs=2), folder=ended, data=drawn, resume=True, limit=limit)
    assert load_checkpoint(ended / "last.pt")["epoch"] == 1


def test_an_older_checkpoint_that_names_no_photos_goes_on(ended, drawn):
    state = load_checkpoint(ended / "last.pt")
    photos = state.pop("photos")
    save_checkpoint(state, ended / "last.pt")
    train(dataclasses.replace(SHORT, epochs=2), folder=ended, data=drawn, resume=True)
    assert load_checkpoint(ended / "last.pt")["photos"] == photos


U2NET = dataclasses.replace(
    SHORT, tasks=("person",), arch="u2net_small", network={}, freeze_batch_norm=True, epochs=2, batch_size=3
)


@pytest.mark.parametrize("recipe", [SHORT, U2NET], ids=lambda recipe: recipe.arch)
def test_a_run_goes_on_without_what_it_started_from(drawn, tmp_path, monkeypatch, recipe):
    """And ends with the same bits as one that was not stopped; norms of U-2-Net are folded in both."""
    start = tmp_path / "start.pt"
    torch.manual_seed(9)
    state = {"recipe": recipe.to_dict(), "ema": network_for(recipe).state_dict(), "provenance": "a set"}
    save_checkpoint(state, start)
    recipe = dataclasses.replace(recipe, init=str(start), epochs=2)
    train(recipe, folder=tmp_path / "whole", data=drawn)

    real = Run.save

    def stopping(run, name="last.pt"):
        real(run, name)
        if name == "last.pt" and run.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "save", stopping)
        train(recipe, folder=tmp_path / "parts", data=drawn)
    start.unlink()
    train(recipe, folder=tmp_path / "parts", data=drawn, resume=True)
    whole, parts = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert parts["provenance"] == whole["provenance"] and "a set" in whole["provenance"]
    for key in ("net", "ema"):
        assert whole[key].keys() == parts[key].keys()
        assert all(torch.equal(value, parts[key][name]) for name, value in whole[key].items())
    with pytest.raises(DataError, match=r"start\.pt: no checkpoint there"):
        train(recipe, folder=tmp_path / "new", data=drawn)


def test_a_folder_may_move_and_have_another_name():
    recipe = SimpleNamespace(folder="elsewhere/new", name="mine")
    held = {"train_sha256": ["1"], "val_sha256": ["2"]}
    now, before = ({"train": [f"{name}/0001"], "val": [f"{name}/0002"], **held} for name in ("new", "old"))
    check_same_photos(now, before, recipe)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (
            ["mine/0001", "mine/0002"],
            "1 of 2 val photos were trained on before, or photos of the same name, in start.pt",
        ),
        (["mine_copy/0002", "mine_copy/0003"], "2 of 2 val photos were trained on before, or photos of the same name"),
        (["fashionista/0002", "ccp/0003", "ccp_unlabelled/0003"], ""),  # which are other photos
        (["mine/0001"], ""),
    ],
)
def test_photos_of_a_folder_are_known_in_a_copy_of_it(caplog, seen, said):
    recipe = SimpleNamespace(folder="elsewhere/mine_copy", init="start.pt")
    if "mine/0002" in seen:
        recipe.folder = "elsewhere/mine"
    warn_of_seen([f"{Path(recipe.folder).name}/{number}" for number in ("0002", "0003")], seen, recipe)
    assert bool(caplog.records) == bool(said) and said in caplog.text


def test_photos_of_our_own_sources_are_never_mistaken_for_those_of_a_folder(caplog):
    warn_of_seen(["fashionista/0002"], ["mine/0002"], SimpleNamespace(folder="", init="start.pt"))
    assert not caplog.records


def test_a_start_from_a_run_that_has_seen_val_photos_says_so(ended, drawn, tmp_path, caplog):
    said = "1 of 2 val photos were trained on before, in .*t.pt or what it started from: .*too good.*splits.json"
    (drawn / "fashionista" / "splits.json").write_text('{"train": [1, 2], "val": [3, 4]}')
    second = dataclasses.replace(SHORT, init=str(ended / "best.pt"))
    train(second, folder=tmp_path / "second", data=drawn)
    assert re.search(said, caplog.text)
    seen = [f"fashionista/{number:04d}" for number in (1, 2, 3)]
    assert load_checkpoint(tmp_path / "second" / "last.pt")["photos"]["seen"] == seen
    caplog.clear()
    train(dataclasses.replace(SHORT, init=str(tmp_path / "second" / "last.pt")), folder=tmp_path / "third", data=drawn)
    assert re.search(said, caplog.text)  # what the first run saw is known to the third
    caplog.clear()
    (drawn / "fashionista" / "splits.json").write_text('{"train": [1, 2], "val": [4]}')
    train(second, folder=tmp_path / "fourth", data=drawn)
    assert "trained on before" not in caplog.text


def test_a_stage_may_start_from_the_earlier_one_of_its_seed(tmp_path):
    with pytest.raises(DataError, match=r"earlier\.pt"):
        main([str(RECIPES / "deeplabv3plus_last.toml"), "--runs", str(tmp_path), "--seed", "3", "--init", "earlier.pt"])
    assert [path.name for path in tmp_path.iterdir()] == ["deeplabv3plus_last_seed3"]
