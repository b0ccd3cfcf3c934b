"""Photos and masks of one's own: read with their mistakes named, and taken from the README's commands to a model."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels
from hubmodels.export import indexed_png, save_image
from hubmodels.labels import LabelSet
from hubmodels.metrics import IGNORE
from hubmodels.networks import build_network
from tests.conftest import ROOT
from training.checkpoint import load_checkpoint
from training.data import read_labels
from training.errors import DataError, RecipeError
from training.export import export_folder
from training.folder import LONG_SIDE_PX, load_folder, read_classes, split_photos
from training.recipe import Recipe, read_recipe

RECIPE = ROOT / "training" / "recipes" / "own_photos" / "finetune.toml"
CLASSES = ["background", "hat", "bag"]
VAL = "0004"  # of `photos`, the first for validation


@pytest.fixture
def photos(tmp_path):
    """Six photos of coloured squares on grey: 0001 to 0006."""
    folder = tmp_path / "my_photos"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, 7):
        ids = np.zeros((96, 64), np.uint8)
        for label in (1, 2):
            top, left = rng.integers(0, 60), rng.integers(0, 40)
            ids[top : top + 30, left : left + 22] = label
        colours = np.array([(90, 90, 90), (220, 40, 40), (40, 60, 220)], np.uint8)
        Image.fromarray(colours[ids]).save(folder / "images" / f"{number:04d}.jpg", quality=95)
        ids[:3] = IGNORE
        Image.fromarray(ids).save(folder / "masks" / f"{number:04d}.png")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    return folder


def test_a_fifth_of_the_photos_is_for_validation_unless_the_split_is_given(photos):
    assert read_classes(photos) == tuple(CLASSES)
    splits = {split: [path.stem for path in paths] for split, paths in split_photos(photos).items()}
    assert splits == {"train": ["0001", "0002", "0003", "0006"], "val": [VAL, "0005"]}
    (photos / "splits.json").write_text(json.dumps({"train": ["0001", "0003"], "val": ["0006"]}))
    assert [sample.name for sample in load_folder(photos, "train", "custom")] == ["my_photos/0001", "my_photos/0003"]
    sample = load_folder(photos, "val", "custom")[0]
    assert_array_equal(sample.labels["custom"], np.array(Image.open(photos / "masks" / "0006.png")))


def test_photos_in_no_split_are_said_once(photos, caplog):
    for split in ("train", "val"):
        load_folder(photos, split, "custom")
    assert not caplog.records
    (photos / "splits.json").write_text(json.dumps({"train": ["0001"], "val": ["0006"]}))
    for split in ("train", "val"):
        load_folder(photos, split, "custom")
    (record,) = caplog.records
    assert "splits.json: names 2 of 6 photos; unused: 0002, 0003, 0004 and 1 more: add them" in record.getMessage()


def test_files_that_begin_with_a_mark_are_read(photos):
    """As editors on Windows save them."""
    for name, value in (("classes.json", CLASSES), ("splits.json", {"train": ["0001"], "val": ["0006"]})):
        (photos / name).write_text(json.dumps(value), encoding="utf-8-sig")
    assert read_classes(photos) == tuple(CLASSES) and len(load_folder(photos, "val", "custom")) == 1


def test_photos_that_are_added_move_few(tmp_path):
    """One more leaves the val photos as they are, joins them, or takes the place of one."""
    (tmp_path / "images").mkdir()
    before: set[str] = set()
    for count in range(1, 41):
        (tmp_path / "images" / f"a{count}.jpg").touch()
        if count < 2:
            continue
        splits = {split: {path.stem for path in paths} for split, paths in split_photos(tmp_path).items()}
        assert len(splits["val"]) == (count + 4) // 5 and len(splits["train"]) == count - len(splits["val"])
        assert len(before - splits["val"]) <= 1
        before = splits["val"]


def test_what_macos_puts_beside_files_is_no_photo_and_no_mask(photos):
    before = split_photos(photos)
    (photos / "images" / "._0001.jpg").write_bytes(b"\0\5\x16\7 resource fork")
    (photos / "masks" / "._0001.png").write_bytes(b"\0\5\x16\7 resource fork")
    assert split_photos(photos) == before


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png", ".webp"])
def test_photos_of_every_kind_are_read(photos, suffix):
    """Names in capitals too, as cameras write them."""
    path = photos / "images" / f"{VAL}.jpg"
    with Image.open(path) as picture:
        expected = np.array(picture)
        picture.save(photos / "images" / f"{VAL}{suffix}", quality=95)
    path.unlink()
    sample = load_folder(photos, "val", "custom")[0]
    assert sample.name == f"my_photos/{VAL}"
    assert np.abs(sample.image.astype(int) - expected).mean() < 3


def test_a_limit_takes_the_first_photos_of_a_split(photos):
    assert [sample.name for sample in load_folder(photos, "train", "custom", limit=2)] == [
        "my_photos/0001",
        "my_photos/0002",
    ]


def indexed(ids: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    picture = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def test_indexed_masks_in_the_colours_of_our_own_are_read_by_colour(photos):
    """Editors give the colours of a palette any order; other palettes say nothing of ours, and 255 is undecided."""
    mask = photos / "masks" / f"{VAL}.png"
    ids = np.arange(96 * 64, dtype=np.uint8).reshape(96, 64) % 3
    undecided = np.where(np.arange(64) < 9, np.uint8(IGNORE), ids)
    background, hat, bag = LabelSet.custom(CLASSES).palette
    ours = indexed_png(ids, LabelSet.custom(CLASSES))
    moved = np.array([2, 0, 1], np.uint8)[ids]
    all_grey = [(90, 90, 90)] * 256
    for picture, expected in (
        (ours, ids),
        (indexed(moved, hat, bag, background), ids),
        (ours.convert("RGB").quantize(3), ids),
        (indexed_png(undecided, LabelSet.custom(CLASSES)), undecided),
        (indexed(ids, (255, 255, 255), (255, 0, 0), (0, 0, 255)), ids),
        (indexed(ids, hat, bag, (0, 0, 255)), ids),
        (indexed(undecided, *all_grey), undecided),
        (indexed(undecided, *[background] * 256), undecided),
    ):
        picture.save(mask)
        assert_array_equal(load_folder(photos, "val", "custom")[0].labels["custom"], expected)


@pytest.mark.parametrize("count", [2, 17, 255])
def test_our_own_masks_have_the_same_ids_by_colour(tmp_path, count):
    labels = LabelSet.custom(count)
    ids = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16) % count
    save_image(indexed_png(ids, labels), tmp_path / "mask.png")
    assert_array_equal(read_labels(tmp_path / "mask.png", (16, 16), labels), ids)
    assert_array_equal(read_labels(tmp_path / "mask.png", (16, 16)), ids)


def test_large_photos_are_narrowed_and_ids_never_mixed(photos):
    ids = np.zeros((1200, 300), np.uint8)
    ids[300:] = 2
    Image.fromarray(np.full((1200, 300, 3), 80, np.uint8)).save(photos / "images" / f"{VAL}.jpg")
    Image.fromarray(ids).save(photos / "masks" / f"{VAL}.png")
    sample = load_folder(photos, "val", "custom")[0]
    assert sample.image.shape == (LONG_SIDE_PX, 150, 3)
    assert_array_equal(sample.labels["custom"], np.repeat([[0], [2]], [150, 450], axis=0).repeat(150, 1))


def test_a_photo_that_is_nearly_a_line_keeps_a_pixel(photos):
    Image.new("RGB", (5000, 3)).save(photos / "images" / f"{VAL}.jpg")
    Image.new("L", (5000, 3), 1).save(photos / "masks" / f"{VAL}.png")
    sample = load_folder(photos, "val", "custom")[0]
    assert sample.image.shape == (1, LONG_SIDE_PX, 3) and (sample.labels["custom"] == 1).all()


def test_a_damaged_photo_is_named_once(photos):
    (photos / "images" / f"{VAL}.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError) as caught:
        load_folder(photos, "val", "custom")
    assert str(caught.value).count(f"{VAL}.jpg") == 1


def test_a_photo_turned_by_its_camera_meets_its_upright_mask(photos):
    picture = Image.open(photos / "images" / f"{VAL}.jpg")
    upright = np.array(picture)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(photos / "images" / f"{VAL}.jpg", exif=exif, quality=95)
    assert np.abs(load_folder(photos, "val", "custom")[0].image.astype(int) - upright).mean() < 3


def test_masks_may_end_in_capitals(photos):
    before = load_folder(photos, "val", "custom")[0].labels["custom"]
    (photos / "masks" / f"{VAL}.png").rename(photos / "masks" / f"{VAL}.PNG")
    np.testing.assert_array_equal(load_folder(photos, "val", "custom")[0].labels["custom"], before)
    (photos / "masks" / "9.PNG").touch()
    with pytest.raises(DataError, match=r"got none for 9\.PNG"):
        load_folder(photos, "val", "custom")


def spoiled(folder):
    """What is wrong, how it is made so, and what the message must say."""
    mask, photo = folder / "masks" / f"{VAL}.png", folder / "images" / f"{VAL}.jpg"
    yield lambda: mask.unlink(), "missing label file"
    yield lambda: Image.new("L", (64, 96), 3).save(mask), r"ids \[3\] are out of range; classes.json names 0\.\.2"
    yield lambda: Image.new("L", (96, 64)).save(mask), "labels are .* EXIF orientation, its mask must be upright too"
    yield lambda: Image.new("RGB", (64, 96)).save(mask), "expected an 8-bit PNG"
    yield lambda: mask.write_bytes(b"no picture"), "cannot be decoded"
    yield lambda: photo.write_bytes(b"no photo"), f"{VAL}.jpg"
    yield lambda: Image.new("RGB", (64, 96)).save(folder / "images" / "0001.png"), "one name, 0001.jpg and 0001.png"
    yield lambda: (folder / "classes.json").unlink(), "classes.json: missing"
    yield lambda: (folder / "classes.json").write_text("{"), "expected a JSON file"
    yield lambda: (folder / "classes.json").write_text('["a"]'), "2 to 255 different names"
    yield lambda: (folder / "classes.json").write_text('{"0": "a"}'), "expected a list of names"
    yield (
        lambda: (folder / "classes.json").write_text('["hat", "bag", "background"]'),
        "the background first, as id 0; got 'hat' there and background as id 2",
    )
    yield (
        lambda: (folder / "classes.json").write_text('["a", "hat\\n"]'),
        "a label must be 1 to 100 printable",
    )
    yield lambda: (folder / "classes.json").write_text(json.dumps(["a", 101 * "b", "c"])), "must be 1 to 100 printable"
    yield lambda: (folder / "splits.json").write_text('{"train": ["0001"]}'), "val is missing or empty"
    yield lambda: (folder / "splits.json").write_text('{"train": ["0002", "0001"], "val": ["0001"]}'), r"got \['0001'\]"
    yield lambda: (folder / "splits.json").write_text('{"train": ["0001"], "val": ["0002", "0002"]}'), r"got \['0002'\]"
    yield (
        lambda: [Image.new("L", (64, 96), 255).save(path) for path in mask.parent.iterdir()],
        "got none: there is nothi",
    )
    yield lambda: (folder / "splits.json").write_text('{"train": ["x"], "val": ["0001"]}'), r"train names \['x'\]"
    yield lambda: (folder / "splits.json").write_text('{"train": ["0002"], "val": [["0001"]]}'), r"val names \[\['0001'"
    yield lambda: (folder / "splits.json").write_text('{"train": [{}, "0002"], "val": [1]}'), r"train names \[\{\}\]"
    yield (
        lambda: (folder / "splits.json").write_text('{"train": ["0001.jpg"], "val": ["0002"]}'),
        r"splits\.json: expected names without suffix in train: '0001'; got '0001\.jpg'",
    )
    yield lambda: (folder / "splits.json").write_text('{"train": ["0001.png"], "val": ["2"]}'), r"train names \['0001\."
    yield lambda: (folder / "splits.json").mkdir(), "splits.json: expected a JSON file; it cannot be read"
    yield lambda: (folder / "splits.json").symlink_to("nowhere"), "splits.json: missing"
    yield lambda: replaced_by_folder(folder / "classes.json"), "classes.json: expected a JSON file; it cannot be read"
    yield lambda: replaced_by_link(photo), VAL + r"\.jpg: cannot be read \(No such file"
    yield lambda: photo.rename(photo.with_suffix(".tif")), r"masks: expected a photo .*; got none for 0004\.png: conv"
    yield lambda: [Image.new("L", (9, 9)).save(mask.with_name(f"{n}.png")) for n in range(5)], "2.png and 2 more: conve"


def test_masks_of_one_label_teach_nothing(photos):
    """0 and 255 are what other tools export for nothing and something."""
    for path in (photos / "masks").iterdir():
        Image.fromarray(np.where(np.array(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(DataError, match=r"got only 0 \(background\).*are the masks 0 and 255\?.* object must be 1"):
        load_folder(photos, "train", "custom")
    load_folder(photos, "val", "custom")


def replaced_by_folder(path):
    path.unlink()
    path.mkdir()


def replaced_by_link(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere.jpg"))


@pytest.mark.parametrize("case", range(29))
def test_what_is_wrong_with_a_folder_is_said_with_its_file(photos, case):
    spoil, message = list(spoiled(photos))[case]
    spoil()
    with pytest.raises(DataError, match=message):
        load_folder(photos, "val", "custom")


def test_recipes_of_a_folder_need_a_task_of_their_own(photos):
    values = read_recipe(RECIPE, folder=photos).to_dict()
    assert values["classes"] == tuple(CLASSES)
    for change, message in (
        ({"tasks": ["fashion"]}, "one name of your own"),
        ({"tasks": ["a", "b"]}, "one name of your own"),
        ({"tasks": ["my task"]}, "one name of your own"),
        ({"folder": ""}, "tasks must be among"),
        ({"classes": []}, "2 or more classes"),
        ({"soft_labels": "somewhere"}, "not for a folder"),
        (
            {"augment": {**values["augment"], "paste": 0.5}},
            r"paste_labels must be of \['hat', 'bag'\]; got",
        ),
    ):
        with pytest.raises(RecipeError, match=message):
            Recipe.from_dict({**values, **change})
    with pytest.raises(DataError, match=r"classes\.json: missing"):
        read_recipe(RECIPE, folder=photos / "none")
    own = photos.parent / "own.toml"
    for given, wrong in ((CLASSES, False), (["background", "bag", "hat"], True), (["background", "x"], True)):
        own.write_text(f"classes = {json.dumps(given)}\n{RECIPE.read_text()}")
        if wrong:
            with pytest.raises(RecipeError, match=r"classes are those of the folder's classes\.json, .*'bag'\]; got"):
                read_recipe(own, folder=photos)
        else:
            assert read_recipe(own, folder=photos).classes == tuple(CLASSES)
    pasted = Recipe.from_dict({**values, "augment": {**values["augment"], "paste": 0.5, "paste_labels": ["hat"]}})
    assert pasted.garments.task == "custom" and pasted.garments.id_of("hat") == 1


def tutorial() -> list[str]:
    """The README's commands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tutorial -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block
    return block[1].splitlines()


def test_the_readmes_commands_make_a_model_that_labels(photos, tmp_path, monkeypatch):
    """As written, but for a recipe of two short epochs on small crops."""
    text = RECIPE.read_text()
    for key, value in (("epochs", "2"), ("crop_hw", "[64, 64]"), ("eval_long_side_px", "96")):
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1, key
    copy = tmp_path / RECIPE.relative_to(ROOT)
    copy.parent.mkdir(parents=True)
    copy.write_text(text)
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in tutorial()]
    assert [command[:3] for command in commands[:2]] == [
        ["python", "-m", f"training.{name}"] for name in ("train", "export")
    ]
    for _, _, module, *arguments in commands[:2]:
        importlib.import_module(module).main(arguments)
    assert commands[2][:2] == ["python", "-c"]
    exec(compile(commands[2][2], "README.md", "exec"), {})
    with Image.open("seen.jpg") as seen:
        assert seen.size == (64, 96)
    model = hubmodels.load("my_model")
    assert model.labels.names == tuple(CLASSES) and model.name == "finetune" and model.input_px == 96
    saved = load_checkpoint(tmp_path / "runs" / "finetune" / "best.pt")
    assert saved["recipe"]["epochs"] == 2
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, saved["ema"][key]), key
    card = ModelCard((tmp_path / "my_model" / "README.md").read_text(), ignore_metadata_errors=False)
    assert (
        "Trained on the photos and masks of my_photos, starting from deeplabv3plus_fashion (Apache-2.0)" in card.content
    )
    assert "Measured on: validation photos of my_photos, by which the epoch was chosen, 2 photos." in card.content
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results["mean IoU"] == pytest.approx(100 * saved["best"], abs=0.01)
    assert set(results) - {"mean IoU", "pixel accuracy"} <= {f"IoU of {name}" for name in CLASSES}


def test_a_folder_says_no_scores_but_those_of_its_own_weights(tmp_path):
    recipe = read_recipe(ROOT / "training" / "recipes" / "deeplabv3_lite0.toml")
    values = {**recipe.to_dict(), "tasks": ("person",), "network": {**recipe.network, "channels": 8}}
    network = build_network(recipe.arch, num_classes=2, **values["network"])
    saved = {"recipe": {**values, "loss": {"cross_entropy": 1.0}, "task_weight": {}}, "ema": network.state_dict()}
    val = {"person": {"miou": 0.75, "images": 3, "data": "validation photos"}}
    crf = {"person.appearance_weight": torch.tensor(2.0)}
    for extra, is_told in (({}, False), ({"val": val, "crfs": {}}, True), ({"val": val, "crfs": crf}, False)):
        torch.save({**saved, **extra}, tmp_path / "best.pt")
        with pytest.warns(UserWarning, match="without the CRF") if extra.get("crfs") else nullcontext():
            export_folder(tmp_path / "best.pt", tmp_path / "out", license="mit")
        card = ModelCard((tmp_path / "out" / "README.md").read_text(), ignore_metadata_errors=False)
        assert card.data.license == "mit" and ("75.00" in card.content) == is_told
        assert ("Not measured." in card.content) != is_told


def test_a_model_is_not_written_among_the_photos(tmp_path, photos):
    recipe = read_recipe(ROOT / "training" / "recipes" / "deeplabv3_lite0.toml").to_dict()
    network = build_network(recipe["arch"], num_classes=2, **recipe["network"])
    torch.save({"recipe": {**recipe, "tasks": ("person",)}, "ema": network.state_dict()}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="holds photos to train on; expected a folder for the model alone"):
        export_folder(tmp_path / "best.pt", photos)
    assert not (photos / "config.json").exists()


def test_photos_in_folders_below_are_not_left_out_in_silence(photos):
    below = photos / "images" / "more" / "deep"
    below.mkdir(parents=True)
    (below / "._0007.jpg").touch()  # of macOS
    assert len(load_folder(photos, "train", "custom")) == 4
    (photos / "images" / "0001.jpg").rename(below / "0001.jpg")
    (photos / "masks" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"all photos in this folder; got 1 below it, such as .*deep/0001\.jpg"):
        load_folder(photos, "train", "custom")


def test_a_folder_is_for_one_task(tmp_path):
    torch.save({"recipe": {"tasks": ("fashion", "person")}, "ema": {}}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="one task"):
        export_folder(tmp_path / "best.pt", tmp_path / "out")
