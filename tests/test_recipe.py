"""What a recipe cannot mean is refused when it is read, before any training."""

from __future__ import annotations

import dataclasses

import pytest

from tests.conftest import ROOT
from tests.tiny_runs import TINY
from training.errors import RecipeError
from training.recipe import Recipe, read_recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_weight": {"persons": 0.1}}, r"task_weight must be of \['fashion', 'person'\]; got \['persons'\]"),
        ({"repeat": {"fashonista": 5}}, r"repeat must be of \['fashionista', 'ccp'\]; got \['fashonista'\]"),
        ({"loss": {}}, "loss must name one or more of"),
        ({"warmup_share": 1.5}, r"warmup_share must be in 0\.\.1; got 1\.5"),
        ({"class_weight": {"person": [-1.0, 1.0]}}, r"class_weight\.person must be 0 or more; got \[-1\.0, 1\.0\]"),
        ({"class_weight": {"person": [float("nan"), 1.0]}}, r"class_weight\.person must be 0 or more"),
        ({"task_weight": {"person": -1}}, "task_weight must be 0 or more"),
        ({"loss": {"dice": -1}}, "loss must be 0 or more"),
        ({"soft_weight": -1}, r"soft_weight must be 0 or more; got \[-1\]"),
        ({"loss": {"dice": 0}}, r"loss must have a weight above 0; got \{'dice': 0\}"),
        ({"repeat": {"ccp": 0}}, r"repeat must be 1 or more; got \{'ccp': 0\}"),
        ({"sources": ["coco"]}, r"sources must be of \['fashionista', 'ccp', 'ccp_unlabelled'\]; got \['coco'\]"),
        ({"sources": []}, "sources must name one or more of"),
        ({"class_weight": {"person": [1, 2]}, "loss": {"dice": 1}}, "class_weight is for the loss cross_entropy alone"),
        ({"soft_confidence": 0.5}, "soft_confidence need soft_labels"),
        (
            {"crf": {"iterations": 1, "lr_factor": "fast"}},
            r"\[crf\]: lr_factor must be a number of 0 or more; got 'fast'",
        ),
        ({"crf": {"iterations": 1, "lr_factor": -1}}, r"\[crf\]: lr_factor must be a number of 0 or more; got -1"),
        ({"soft_weight": 0.5}, "soft_confidence need soft_labels"),
        ({"lr": 0}, "lr must be above 0 and finite; got 0"),
        ({"lr": float("inf")}, "lr must be above 0 and finite; got inf"),
        ({"backbone_lr_factor": -0.1}, r"backbone_lr_factor must be 0 or more; got -0\.1"),
        ({"weight_decay": float("nan")}, "weight_decay must be 0 or more; got nan"),
        ({"seed": -1}, r"seed must be in 0\.\..*; got -1"),
        ({"seed": 2**32}, r"seed must be in 0\.\..*; got 4294967296"),
        ({"ema_decay": 1}, r"ema_decay must be in \[0, 1\); got 1"),
        ({"soft_confidence": 1.0}, r"soft_confidence must be in \[0, 1\); got 1\.0"),
        ({"batch_size": 0}, "batch_size must be 1 or more; got 0"),
        ({"classes": ["background", "hat"]}, "classes are those of a folder; name it by the key folder"),
        ({"eval_long_side_px": 16}, r"eval_long_side_px must be in 32\.\.4096; got 16"),
        ({"name": "a/b"}, "name must be that of a folder under runs/, without its path; got 'a/b'"),
        ({"name": ".."}, r"without its path; got '\.\.'"),
        ({"arch": "deeplabv4"}, "arch must be one of deeplabv3, .*; got 'deeplabv4'"),
        ({"network": {"backbone": "resnet5"}}, "backbone must be in .*'resnet50'.*; got 'resnet5'"),
        ({"network": {"chanels": 8}}, r"deeplabv3plus has no options \['chanels'\]; it has \['backbone', "),
        ({"network": {"channels": True}}, r"channels must be in 1\.\.1024; got True"),
    ],
)
def test_what_would_be_ignored_or_do_harm_is_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**TINY.to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": "1e-3"}, "lr must be a number; got '1e-3'"),
        ({"lr": True}, "lr must be a number; got True"),
        ({"epochs": 2.0}, r"epochs must be a whole number; got 2\.0"),
        ({"epochs": True}, "epochs must be a whole number; got True"),
        ({"compile": 1}, "compile must be true or false; got 1"),
        ({"deep_supervision": "no"}, "deep_supervision must be true or false; got 'no'"),
        ({"arch": 3}, "arch must be a text; got 3"),
        ({"tasks": "person"}, "tasks must be a list, each a text; got 'person'"),
        ({"sources": ["ccp", 1]}, r"sources must be a list, each a text; got \('ccp', 1\)"),
        ({"loss": ["dice"]}, r"loss must be a table, each value a number; got \('dice',\)"),
        ({"repeat": {"ccp": 1.5}}, r"repeat must be a table, each value a whole number; got \{'ccp': 1\.5\}"),
        ({"class_weight": {"person": [1, "2"]}}, "class_weight must be a table, each value a list, each a number"),
        ({"class_weight": [1, 2]}, "class_weight must be a table"),
        ({"network": "wide"}, "network must be a table; got 'wide'"),
        ({"mixed_precision": 16}, "mixed_precision must be a text or nothing; got 16"),
        ({"augment": "x"}, "augment must be a table; got 'x'"),
    ],
)
def test_values_are_of_their_type(change, message):
    with pytest.raises(RecipeError, match=f"recipe 'tiny': {message}"):
        Recipe.from_dict({**TINY.to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_hw": [64]}, r"crop_hw must be a list of 2, each a whole number; got \(64,\)"),
        ({"crop_hw": [64.0, 48]}, "crop_hw must be a list of 2, each a whole number"),
        ({"crop_hw": [64, 16]}, r"crop_hw must be 32 or more, as networks want; got \[64, 16\]"),
        ({"crop_hw": [0, 64]}, "crop_hw must be 1 or more"),
        ({"scale": [0, 1]}, r"scale must rise within 0\.1\.\.10, such as .*; got \[0, 1\]"),
        ({"scale": [0.001, 0.002]}, r"scale must rise within 0\.1\.\.10"),
        ({"scale": [1.0, 11.0]}, r"scale must rise within 0\.1\.\.10"),
        ({"scale": [1.2, 0.6]}, r"scale must rise .*; got \[1\.2, 0\.6\]"),
        ({"scale": [0.5, float("inf")]}, "scale must rise"),
        ({"stretch": -0.1}, r"stretch must be 0 or more; got -0\.1"),
        ({"stretch": float("inf")}, "stretch must be 0 or more; got inf"),
        ({"colour": float("nan")}, "colour must be 0 or more; got nan"),
        ({"flip": 1.5}, r"flip must be a probability in 0\.\.1; got 1\.5"),
        ({"grey": -1}, r"grey must be a probability in 0\.\.1; got -1"),
        ({"paste_labels": "shoes"}, "paste_labels must be a list, each a text; got 'shoes'"),
    ],
)
def test_views_that_cannot_be_are_refused(change, message):
    values = TINY.to_dict()
    with pytest.raises(RecipeError, match=rf"recipe 'tiny': augment\.{message}"):
        Recipe.from_dict({**values, "augment": {**values["augment"], **change}})


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"name = '\xff'")
    for path, message in ((tmp_path / "x.toml", "x.toml: 'utf-8'"), (tmp_path, "expected a TOML file; it cannot be")):
        with pytest.raises(RecipeError, match=message):
            read_recipe(path)


def test_the_bounds_themselves_are_fine():
    weights = {"task_weight": {"person": 0.0}, "class_weight": {"person": [0.0, 1.0]}, "repeat": {"ccp": 2}}
    for share in (0.0, 1.0):
        Recipe.from_dict({**TINY.to_dict(), **weights, "warmup_share": share})
    none = dict.fromkeys(("backbone_lr_factor", "weight_decay", "ema_decay"), 0)
    one = dict.fromkeys(("epochs", "batch_size", "plateau_epochs"), 1)
    views = {"crop_hw": (32, 32), "scale": (1.0, 1.0), "stretch": 0, "colour": 0, "flip": 0, "grey": 1}
    still = {"crf": {"iterations": 1, "lr_factor": 0}, "augment": views}
    for seed, size in ((0, 32), (2**32 - 1, 4096)):
        Recipe.from_dict({**TINY.to_dict(), **none, **one, **still, "seed": seed, "eval_long_side_px": size})


def test_every_recipe_can_be_read():
    recipes = sorted((ROOT / "training" / "recipes").glob("*.toml"))
    assert len(recipes) >= 3
    for path in recipes:
        assert read_recipe(path).name == path.stem


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epoch": 3}, "unknown keys \\['epoch'\\]"),
        ({"tasks": ["pets"]}, "tasks must be among"),
        ({"epochs": 0}, "1 or more"),
        ({"schedule": "step"}, "one_cycle, poly, plateau"),
        ({"optimizer": "lion"}, r"\['adamw', 'adam', 'sgd'\]; got 'lion'"),
        ({"plateau_epochs": 0}, "plateau_epochs must be 1"),
        ({"loss": {"focal": 1}}, "focal"),
        ({"class_weight": {"person": [1]}}, "needs 2 values"),
        ({"augment": {"crop_hw": [64, 48]}}, r"\[augment\]: expected the keys scale too"),
        ({"augment": {"crop_hw": [64, 48], "scale": [1, 1], "zoom": 2}}, r"\[augment\]: unknown keys \['zoom'\]"),
    ],
)
def test_a_wrong_recipe_names_the_key(change, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**TINY.to_dict(), **change})


def test_a_recipe_that_lacks_keys_names_them():
    with pytest.raises(RecipeError, match="recipe 'mine': expected the keys tasks, arch, augment, epochs too"):
        Recipe.from_dict({"name": "mine"})


def test_recipe_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_text("epochs = ")
    with pytest.raises(RecipeError, match=r"x\.toml"):
        read_recipe(tmp_path / "x.toml")


def test_a_wrong_crf_table_is_refused():
    with pytest.raises(RecipeError, match=r"\[crf\].*appearance_sigma_px must be finite and above 0"):
        dataclasses.replace(TINY, crf={"appearance_sigma_px": 0})
    with pytest.raises(RecipeError, match=r"\[crf\].*sharpness"):
        dataclasses.replace(TINY, crf={"sharpness": 1})
