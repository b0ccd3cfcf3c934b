"""Teachers' probabilities as labels: how they are made, kept, augmented and learnt from; and pasted garments."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import training.soft_labels
from hubmodels.labels import FASHION, PERSON, LabelSet
from hubmodels.metrics import IGNORE
from hubmodels.refine import Refinement
from hubmodels.segmenter import Segmenter
from tests.conftest import ROOT
from tests.drawn_data import draw_data
from tests.folders import names
from tests.tiny_runs import TINY
from training.data import Sample, load_ccp_unlabelled, load_sources
from training.errors import DataError
from training.losses import soft_cross_entropy
from training.recipe import Recipe, RecipeError, read_recipe
from training.segmenters import load_segmenter
from training.soft_labels import shrunk, soft_path, teach, with_soft_labels, write_soft_labels
from training.train import train
from training.transforms import Augment, View, augment, batch_views, paste


class Brightness(torch.nn.Module):
    """Calls bright pixels a person: logit `gain` times the mean colour minus a half."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.gain * (x.mean(1, keepdim=True) - 0.5)
        return torch.cat([-z, z], dim=1)


def teacher(gain: float) -> Segmenter:
    return Segmenter(Brightness(gain), PERSON, name=f"brightness {gain}").eval()


@pytest.fixture
def photo() -> np.ndarray:
    """(64, 32, 3): black above, white below."""
    image = np.zeros((64, 32, 3), np.uint8)
    image[32:] = 255
    return image


def test_teachers_are_averaged(photo):
    got = teach(photo, [teacher(1.0), teacher(3.0)], Refinement(), flip=True)
    white = np.mean([1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-3.0))])
    assert got.dtype == np.float32
    assert_allclose(got[1, 40:], white, atol=1e-5)
    assert_allclose(got[0, :24], white, atol=1e-5)


def test_half_the_size_is_the_mean_of_four_pixels():
    probs = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]], np.float32)
    assert_array_equal(shrunk(probs), np.array([[[128]], [[128]]], np.uint8))


def test_photos_that_are_done_are_skipped_and_the_rest_goes_on(photo, tmp_path):
    samples = [Sample(f"ccp/{n}", photo, {"person": np.zeros((64, 32), np.uint8)}) for n in range(3)]
    teachers = {"person": [teacher(8.0)]}
    assert write_soft_labels(samples[:1], teachers, tmp_path) == 1
    before = soft_path(tmp_path, samples[0]).read_bytes()
    assert write_soft_labels(samples, teachers, tmp_path) == 2
    assert soft_path(tmp_path, samples[0]).read_bytes() == before

    (learner, *_) = with_soft_labels(samples, tmp_path)
    assert learner.soft["person"].shape == (2, 32, 16) and learner.soft["person"].dtype == np.uint8
    assert (learner.labels["person"] == IGNORE).all(), "its own labels must not speak against the teacher"
    assert (learner.soft["person"].sum(0, dtype=int) >= 254).all()


def test_other_teachers_and_settings_need_another_folder(photo, tmp_path):
    samples = [Sample(f"{source}/1", photo, {"person": np.zeros((64, 32), np.uint8)}) for source in ("ccp", "web")]
    write_soft_labels(samples[:1], {"person": [teacher(8.0), teacher(1.0)]}, tmp_path, flip=True)
    noted = json.loads((tmp_path / "settings.json").read_text())
    digests = noted["ccp"]["person"].pop("networks_sha256")
    assert len(digests) == 2 and all(len(each) == 64 for each in digests)
    names = ["brightness 1.0", "brightness 8.0"]
    assert noted == {"ccp": {"person": {"teachers": names, "preset": "off", "flip": True}}}
    assert write_soft_labels(samples[:1], {"person": [teacher(1.0), teacher(8.0)]}, tmp_path, flip=True) == 0
    for teachers, options in (
        ([8.0], {"flip": True}),
        ([8.0, 1.0], {}),
        ([8.0, 1.0], {"flip": True, "preset": "gentle"}),
    ):
        with pytest.raises(DataError, match=r"settings\.json: person of ccp is by .*; got .*: use another folder"):
            write_soft_labels(samples, {"person": [teacher(gain) for gain in teachers]}, tmp_path, **options)
    assert write_soft_labels(samples[1:], {"person": [teacher(8.0)]}, tmp_path) == 1  # of another source


def test_a_teacher_that_was_trained_anew_needs_another_folder(photo, tmp_path):
    samples = [Sample(f"ccp/{n}", photo, {"person": np.zeros((64, 32), np.uint8)}) for n in range(2)]

    def trained(gain: float) -> Segmenter:
        return Segmenter(Brightness(gain), PERSON, name="runs/x/best.pt").eval()

    write_soft_labels(samples[:1], {"person": [trained(0.0)]}, tmp_path)
    assert write_soft_labels(samples[:1], {"person": [trained(0.0)]}, tmp_path) == 0
    with pytest.raises(DataError, match="use another folder"):
        write_soft_labels(samples, {"person": [trained(1.0)]}, tmp_path)
    noted = json.loads((tmp_path / "settings.json").read_text())
    del noted["ccp"]["person"]["networks_sha256"]  # as before digests were noted
    (tmp_path / "settings.json").write_text(json.dumps(noted))
    assert write_soft_labels(samples, {"person": [trained(1.0)]}, tmp_path) == 1


def test_the_command_labels_what_is_not_there_yet(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.soft_labels, "load_segmenter", lambda name, task: teacher(float(name)))
    monkeypatch.setattr(training.soft_labels, "keep_freed_memory", lambda: None)
    out = tmp_path / "soft"
    for limit, said in ((1, "2 photos labelled, 0 were there"), (2, "2 photos labelled, 2 were there")):
        options = f"--person 1 3 --sources ccp fashionista --flip --preset gentle --limit {limit}"
        training.soft_labels.main([*options.split(), "--out", str(out), "--data", str(drawn)])
        assert capsys.readouterr().out == f"{out}: {said}\n"
    assert names(out) == [*(f"{s}/{n}.npz" for s in ("ccp", "fashionista") for n in ("0001", "0002")), "settings.json"]
    noted = json.loads((out / "settings.json").read_text())["fashionista"]
    assert list(noted) == ["person"] and noted["person"]["flip"] and noted["person"]["preset"] == "gentle"
    (sample,) = load_sources(drawn, ["ccp"], ["person"], limit=1)
    taught = with_soft_labels([sample], out)[0].soft["person"]
    gentle = Refinement.preset("gentle", task="person")
    assert_array_equal(taught, shrunk(teach(sample.image, [teacher(1.0), teacher(3.0)], gentle, flip=True)))


def test_the_command_wants_a_teacher(tmp_path, capsys):
    with pytest.raises(SystemExit):
        training.soft_labels.main(["--out", str(tmp_path)])
    assert "name at least one teacher, by --person or --fashion" in capsys.readouterr().err


def test_a_published_model_of_another_task_is_no_teacher():
    with pytest.raises(DataError, match="deeplabv3plus_person labels person; expected a model for fashion"):
        load_segmenter("deeplabv3plus_person", "fashion")


def test_a_folder_from_before_the_settings_is_taken_as_it_is(photo, tmp_path):
    samples = [Sample(f"ccp/{n}", photo, {"person": np.zeros((64, 32), np.uint8)}) for n in range(2)]
    write_soft_labels(samples[:1], {"person": [teacher(8.0)]}, tmp_path)
    (tmp_path / "settings.json").unlink()
    assert write_soft_labels(samples, {"person": [teacher(1.0)]}, tmp_path) == 1
    assert not (tmp_path / "settings.json").exists()


def test_a_second_task_is_added_to_the_first(photo, tmp_path):
    sample = Sample("ccp/1", photo, dict.fromkeys(("person", "fashion"), np.zeros((64, 32), np.uint8)))
    write_soft_labels([sample], {"person": [teacher(8.0)]}, tmp_path)
    before = with_soft_labels([sample], tmp_path)[0].soft["person"]
    with pytest.raises(DataError, match=r"none of 1 photos; run python -m training\.soft_labels for fashion"):
        with_soft_labels([dataclasses.replace(sample, labels={"fashion": sample.labels["fashion"]})], tmp_path)
    teachers = {"person": [teacher(8.0)], "fashion": [teacher(2.0)]}  # two labels are as good as seven here
    assert write_soft_labels([sample], teachers, tmp_path) == 1
    soft = with_soft_labels([sample], tmp_path)[0].soft
    assert_array_equal(soft["person"], before)
    assert soft["fashion"].shape == (2, 32, 16) and (soft["fashion"] != before).any()


def test_recipes_of_one_folder_name_one_set_of_teachers():
    """Whoever follows the comments of two recipes must not meet the refusal, nor learn from the other's teachers."""
    made: dict[str, set[str]] = {}
    for path in sorted((ROOT / "training" / "recipes").glob("*.toml")):
        text = path.read_text().replace("\\\n#", "")
        for words in re.findall(r"training\.soft_labels (.*) --out (\S+)", text):
            made.setdefault(words[1], set()).add(path.name)
            assert read_recipe(path).soft_labels == words[1], path.name
    assert made and all(len(names) == 1 for names in made.values()), made
    used = {read_recipe(path).soft_labels for path in (ROOT / "training" / "recipes").glob("*.toml")}
    assert used - {""} == set(made)


def test_unsure_pixels_teach_nothing(photo, tmp_path):
    sample = Sample("ccp/1", photo, {"person": np.zeros((64, 32), np.uint8)})
    write_soft_labels([sample], {"person": [teacher(2.0)]}, tmp_path)  # 0.88 sure of black and of white
    (kept,) = with_soft_labels([sample], tmp_path, confidence=0.8)
    (dropped,) = with_soft_labels([sample], tmp_path, confidence=0.95)
    assert kept.soft["person"][:, :14].any() and not dropped.soft["person"].any()


def test_a_pixel_that_is_just_sure_enough_teaches(tmp_path):
    """204 of 255 is 0.8; a step less is not."""
    ids = np.zeros((2, 4), np.uint8)
    sample = Sample("ccp/1", np.zeros((2, 4, 3), np.uint8), {"person": ids})
    soft_path(tmp_path, sample).parent.mkdir()
    np.savez(soft_path(tmp_path, sample), person=np.array([[[204, 203]], [[51, 52]]], np.uint8))
    (got,) = with_soft_labels([sample], tmp_path, confidence=0.8)
    assert_array_equal(got.soft["person"], [[[204, 0]], [[51, 0]]])


def test_photos_without_labels_that_no_teacher_saw_are_left_out(photo, tmp_path):
    nothing = {"person": np.full((64, 32), IGNORE, np.uint8)}
    samples = [Sample(f"ccp_unlabelled/{n}", photo, nothing) for n in range(3)]
    samples.append(Sample("ccp/1", photo, {"person": np.zeros((64, 32), np.uint8)}))
    write_soft_labels(samples[:2], {"person": [teacher(8.0)]}, tmp_path)
    assert [each.name for each in with_soft_labels(samples, tmp_path)] == [samples[n].name for n in (0, 1, 3)]


def test_a_folder_without_any_of_the_photos_is_refused(photo, tmp_path):
    with pytest.raises(DataError, match=r"soft labels for none of 1 photos; run python -m training.soft_labels"):
        with_soft_labels([Sample("ccp/1", photo, {})], tmp_path)


def test_soft_labels_get_the_geometry_of_the_photo():
    """The photo's brightness is its probability, so every view can be checked against itself."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 60)[:, None] * np.ones(40)
    image = np.repeat(ramp[..., None], 3, -1).astype(np.uint8)
    soft = shrunk(np.stack([255 - ramp, ramp]).astype(np.float32) / 255)
    sample = Sample("drawn", image, {"person": np.full((60, 40), IGNORE, np.uint8)}, {"person": soft})
    for _ in range(20):
        view = augment(sample, Augment((48, 32), (0.5, 1.5), colour=0, grey=0), rng)
        inside = view.soft["person"].sum(0) > 0.5
        # At the photo's edge the image is blended with the grey around it.
        inside = 1 - torch.nn.functional.max_pool2d(1 - inside[None].float(), 5, 1, 2)[0] > 0
        assert inside.any()
        difference = (view.soft["person"][1] - view.image[0]).abs()[inside]
        assert difference.mean() < 0.01 and difference.max() < 0.03


@pytest.mark.parametrize("size", [(61, 41), (60, 41), (61, 40)])
@pytest.mark.parametrize("axis", [0, 1])
def test_soft_labels_of_odd_photos_are_not_shifted(size, axis):
    """A ramp is what it was before it was shrunk, but at the edges; its steps are larger than the tolerance."""
    ramp = np.broadcast_to(np.expand_dims(np.arange(size[axis]) / size[axis], 1 - axis), size).astype(np.float32)
    nothing = {"person": np.full(size, IGNORE, np.uint8)}
    sample = Sample("drawn", np.zeros((*size, 3), np.uint8), nothing, {"person": shrunk(np.stack([1 - ramp, ramp]))})
    still = Augment(size, (1.0, 1.0), 0, 0, 0, 0)
    soft = augment(sample, still, np.random.default_rng(0)).soft["person"]
    assert (soft.sum(0) > 0.9).all(), "the last rows and columns are of the photo"
    assert_allclose(soft[1][2:-2, 2:-2], ramp[2:-2, 2:-2], atol=0.25 / size[axis] + 1 / 255)


def test_a_map_of_the_photos_own_size_covers_the_photo():
    rng = np.random.default_rng(0)
    probs = rng.integers(0, 256, (2, 41, 27), np.uint8)
    nothing = {"person": np.full((41, 27), IGNORE, np.uint8)}
    sample = Sample("drawn", np.zeros((41, 27, 3), np.uint8), nothing, {"person": probs})
    soft = augment(sample, Augment((41, 27), (1.0, 1.0), 0, 0, 0, 0), rng).soft["person"]
    assert_allclose(soft, probs / 255, atol=1e-3)


def test_soft_cross_entropy_by_hand():
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    target = torch.tensor([[0.75, 0.0], [0.25, 0.0]]).view(1, 2, 1, 2)  # the second pixel is not covered
    log_sum = np.log(np.exp(2) + 1)
    assert soft_cross_entropy(logits, target).item() == pytest.approx(log_sum - 0.75 * 2, abs=1e-6)
    assert soft_cross_entropy(logits, torch.zeros(1, 2, 1, 2)).item() == 0


def view_of(fashion: np.ndarray, brightness: float, *, soft: bool = False) -> View:
    ids = torch.from_numpy(fashion).long()
    image = torch.full((3, *ids.shape), brightness)
    probs = {"fashion": torch.full((7, *ids.shape), 1 / 7)} if soft else {}
    return View(image, {"fashion": ids, "person": (ids > 0).long()}, probs)


def test_a_garment_is_pasted_with_its_pixels_and_labels():
    below = view_of(np.zeros((4, 4), np.int64), 0.2, soft=True)
    worn = np.zeros((4, 4), np.int64)
    worn[2:, :2] = FASHION.id_of("shoes")
    worn[:2, :2] = FASHION.id_of("skin")
    got = paste(below, view_of(worn, 0.9), ("shoes",), np.random.default_rng(0))
    shoes = torch.from_numpy(worn == FASHION.id_of("shoes"))
    assert torch.equal(got.image[0] == 0.9, shoes) and torch.equal(got.labels["person"] == 1, shoes)
    assert torch.equal(got.labels["fashion"] == FASHION.id_of("shoes"), shoes)
    assert (got.soft["fashion"][FASHION.id_of("shoes")][shoes] == 1).all()
    assert_allclose(got.soft["fashion"][:, ~shoes], 1 / 7)
    assert paste(below, view_of(worn, 0.9), ("dress",), np.random.default_rng(0)) is below
    pasted = [paste(below, view_of(worn, 0.9), ("dress", "skin", "shoes"), np.random.default_rng(n)) for n in range(8)]
    assert {int(each.labels["fashion"].max()) for each in pasted} == {FASHION.id_of("skin"), FASHION.id_of("shoes")}


def test_one_garment_is_pasted_whatever_else_the_donor_wears():
    worn = np.zeros((4, 4), np.int64)
    worn[:2], worn[2:] = FASHION.id_of("skin"), FASHION.id_of("shoes")
    below = view_of(np.zeros((4, 4), np.int64), 0.2)
    for seed in range(8):
        got = paste(below, view_of(worn, 0.9), ("skin", "shoes"), np.random.default_rng(seed))
        ids, counts = got.labels["fashion"].unique(return_counts=True)
        assert counts.tolist() == [8, 8] and ids[0] == 0
        assert torch.equal(got.image[0] == 0.9, got.labels["fashion"] > 0)


def test_who_wears_a_pasted_garment_is_surely_a_person():
    """Whatever a teacher said of the place, and whichever id the garment has."""
    worn = np.zeros((4, 4), np.int64)
    worn[2:] = FASHION.id_of("dress")
    unsure = torch.full((2, 4, 4), 0.5)
    below = view_of(np.zeros((4, 4), np.int64), 0.2)._replace(soft={"person": unsure})
    soft = paste(below, view_of(worn, 0.9), ("dress",), np.random.default_rng(0)).soft["person"]
    assert torch.equal(soft[:, 2:], torch.tensor([0.0, 1.0])[:, None, None].expand(2, 2, 4))
    assert torch.equal(soft[:, :2], unsure[:, :2])


def test_pasting_is_off_unless_asked_and_repeats_with_the_seed():
    worn = np.zeros((40, 40), np.uint8)
    worn[10:30, 10:30] = FASHION.id_of("dress")
    samples = [
        Sample(f"drawn/{n}", np.full((40, 40, 3), 60 * n, np.uint8), {"fashion": worn if n else worn * 0})
        for n in range(3)
    ]
    still = Augment((40, 40), (1.0, 1.0), 0, 0, 0, 0)
    plain, pasted, again = (
        batch_views(samples, np.array([0]), dataclasses.replace(still, paste=p), seed=1, epoch=0)[1]["fashion"]
        for p in (0.0, 1.0, 1.0)
    )
    assert not plain.any() and torch.equal(pasted, again)

    def times(probability: float) -> int:
        config = dataclasses.replace(still, paste=probability)
        views = [batch_views(samples, np.array([0]), config, seed=seed, epoch=0)[1]["fashion"] for seed in range(24)]
        return sum(bool(ids.any()) for ids in views)

    assert 0 < times(0.5) < times(1.0) < 24  # a third of the donors wears nothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paste": 2.0}, "probability in 0..1"),
        ({"paste_labels": ["boots"]}, r"must be of .*; got \['boots'\]"),
        ({"paste_labels": ["background"]}, r"must be of \['skin', .*; got \['background'\]"),
    ],
)
def test_a_wrong_paste_is_a_recipe_error(change, message):
    values = {"name": "x", "tasks": ["fashion"], "arch": "deeplabv3plus", "epochs": 1}
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**values, "augment": {"crop_hw": [64, 48], "scale": [1.0, 1.0], **change}})


def test_labels_of_a_folder_are_pasted_too():
    worn = np.zeros((40, 40), np.uint8)
    worn[10:30, 10:30] = 2
    samples = [Sample(f"mine/{n}", np.full((40, 40, 3), 60, np.uint8), {"custom": worn * n}) for n in range(2)]
    config = Augment((40, 40), (1.0, 1.0), 0, 0, 0, 0, paste=1.0, paste_labels=("bag",))
    mine = LabelSet.custom(["background", "hat", "bag"])
    seen = [batch_views(samples, np.array([0]), config, seed=s, epoch=0, garments=mine)[1]["custom"] for s in range(8)]
    assert any((ids == 2).any() for ids in seen)


def test_persons_alone_have_no_garments_to_paste():
    values = {"name": "x", "tasks": ["person"], "arch": "deeplabv3plus", "epochs": 1}
    with pytest.raises(
        RecipeError, match=r"paste needs the task fashion, or a folder; got \['person'\]: set paste to 0"
    ):
        Recipe.from_dict({**values, "augment": {"crop_hw": [64, 48], "scale": [1.0, 1.0], "paste": 0.5}})


def test_unlabelled_photos_have_no_decided_pixel(tmp_path):
    from PIL import Image

    folder = tmp_path / "ccp" / "unlabelled"
    folder.mkdir(parents=True)
    Image.new("RGB", (55, 82), (9, 99, 199)).save(folder / "1.jpg")
    (sample,) = load_ccp_unlabelled(tmp_path, ["person"], width_px=40)
    assert sample.name == "ccp_unlabelled/1" and sample.image.shape == (60, 40, 3)
    assert (sample.labels["person"] == IGNORE).all()
    with pytest.raises(DataError, match="no photos"):
        load_ccp_unlabelled(tmp_path / "elsewhere", ["person"])


def test_a_run_learns_what_its_teacher_says_without_any_label(tmp_path):
    """To the teacher the upper half of every photo is a person; the photos have no labels of their own."""
    data = draw_data(tmp_path / "data", np.random.default_rng(0), count=4)
    says = np.zeros((2, 40, 26), np.uint8)
    says[1, :20], says[0, 20:] = 255, 255
    for sample in load_sources(data, ["fashionista"], ["person"]):
        path = soft_path(tmp_path / "soft", sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, person=says)
    recipe = dataclasses.replace(
        TINY,
        tasks=("person",),
        sources=("fashionista",),
        soft_labels=str(tmp_path / "soft"),
        epochs=25,
        lr=1e-2,
        ema_decay=0.0,
        augment=Augment((64, 48), (0.75, 0.75), 0, 0, 0, 0),
    )
    run = train(recipe, folder=tmp_path / "run", data=data)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    learners = with_soft_labels(load_sources(data, ["fashionista"], ["person"]), tmp_path / "soft")
    images, labels, soft = batch_views(learners, np.arange(3), recipe.augment, seed=0, epoch=0)
    assert (labels["person"] == IGNORE).all()
    with torch.no_grad():
        probs = run.net.train()(images).softmax(1)
    for half in (0, 1):
        assert probs[:, half][soft["person"][:, half] == 1].mean() > 0.7
