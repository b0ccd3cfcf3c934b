"""The work behind the page, without Gradio: what is computed, remembered, drawn, scored, linked and taken away."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels
from hubmodels import FASHION, PERSON, ImageError, LabelSet, Refinement, Segmentation
from hubmodels.app import compare, downloads, links, snippets, texts, truth, views
from hubmodels.app.controls import CONTROLS, SECTIONS, settings_from
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.memory import BoundedMemory
from hubmodels.app.studio import STAGES, Photo, Studio, fitted, up_to
from hubmodels.app.views import View
from hubmodels.cli import main as cli
from hubmodels.entries import ENTRIES
from hubmodels.metrics import IGNORE
from hubmodels.refine import PRESETS, SETTINGS
from hubmodels.segmenter import Segmenter
from tests.conftest import BLOCK_NETWORK, ROOT, grid

CLOTHES, PEOPLE = "deeplabv3plus_fashion", "deeplabv3plus_person"
TUNED = Refinement(crf_iterations=2, superpixel_scale=60, keep_confident=0.9, min_region_px=200, keep_largest=True)


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def network_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models whose networks ran."""
    runs: list[str] = []
    real = Segmenter.probabilities

    def counted(self: Segmenter, image: np.ndarray, **options: object) -> np.ndarray:
        runs.append(self.name)
        return real(self, image, **options)

    monkeypatch.setattr(Segmenter, "probabilities", counted)
    return runs


@pytest.fixture
def small(astronaut: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(astronaut).resize((64, 96)))


@pytest.fixture
def photo_file(tmp_path: Path, astronaut: np.ndarray) -> Path:
    Image.fromarray(astronaut[:256, 100:356]).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


def drawn(labels: np.ndarray, label_set: LabelSet = FASHION) -> Segmentation:
    probs = np.full((len(label_set), *labels.shape), 0.0, np.float32)
    return Segmentation(np.full((*labels.shape, 3), 100, np.uint8), labels, probs, label_set)


# --- Analysis ---------------------------------------------------------------------------------------------------------


def test_the_page_answers_as_the_library_does(studio, astronaut, fashion):
    analysis = studio.analyse(Photo.of(astronaut), CLOTHES, TUNED)
    assert_array_equal(analysis.final.labels, fashion.predict(astronaut, refinement=TUNED).labels)
    assert analysis.final.image is not astronaut


def test_the_network_runs_once_per_photo_and_model(studio, small, network_runs):
    photo = Photo.of(small)
    first = studio.analyse(photo, CLOTHES, Refinement())
    assert "network" in first.seconds
    for iterations in (1, 2, 3):
        again = studio.analyse(Photo.of(small.copy()), CLOTHES, Refinement(crf_iterations=iterations))
        assert "network" not in again.seconds and "crf" in again.seconds
    assert network_runs == [CLOTHES]
    studio.analyse(photo, PEOPLE, Refinement())
    assert network_runs == [CLOTHES, PEOPLE]


def test_a_slider_computes_its_own_stage_alone(studio, small):
    photo = Photo.of(small)
    settings = Refinement(crf_iterations=1, superpixel_scale=50, min_region_px=50)
    studio.analyse(photo, CLOTHES, settings)
    for change, stages in (({"min_region_px": 60}, {"clean-up"}), ({"superpixel_scale": 70}, {"superpixels", "vote"})):
        settings = dataclasses.replace(settings, **change)
        assert stages <= set(studio.analyse(photo, CLOTHES, settings).seconds) <= {*stages, "clean-up"}
    assert studio.analyse(photo, CLOTHES, settings).seconds == {}


def test_photos_alike_are_not_mixed_up(studio, small):
    other = small.copy()
    other[0, 0, 0] ^= 1
    reshaped = small.reshape(64, 96, 3)  # the same bytes, another picture
    photos = [Photo.of(pixels) for pixels in (small, other, reshaped)]
    assert len({photo.key for photo in photos}) == 3
    for photo in photos:
        assert_array_equal(studio.analyse(photo, CLOTHES, Refinement()).final.image, photo.work)


def test_stages_are_those_of_the_library(studio, small, fashion):
    analysis = studio.analyse(Photo.of(small), CLOTHES, TUNED)
    wanted = {
        "network": Refinement(),
        "crf": Refinement(crf_iterations=2),
        "superpixels": Refinement(crf_iterations=2, superpixel_scale=60, keep_confident=0.9),
        "final": TUNED,
    }
    assert tuple(wanted) == STAGES
    for stage, settings in wanted.items():
        assert_array_equal(analysis.stage(stage).labels, fashion.predict(small, refinement=settings).labels)
    with pytest.raises(ValueError, match="no stage"):
        up_to(TUNED, "middle")


def test_what_a_model_cannot_do_is_left_out():
    asked = Refinement(person_threshold=0.3, vote="classifier")
    assert fitted(asked, ENTRIES[CLOTHES]) == Refinement(vote="classifier")
    assert fitted(asked, ENTRIES[PEOPLE]) == Refinement(person_threshold=0.3)


def test_large_photos_are_tuned_small_and_taken_away_whole(studio, tmp_path, fashion, network_runs):
    Image.fromarray(EXAMPLES["astronaut"].pixels()).resize((1200, 600)).save(tmp_path / "large.png")
    photo = studio.open(tmp_path / "large.png")
    assert photo.size == (600, 1200) and photo.work.shape == (400, 800, 3) and not photo.is_whole
    assert studio.analyse(photo, CLOTHES, TUNED).final.labels.shape == (400, 800)
    whole = studio.whole(tmp_path / "large.png", CLOTHES, TUNED)
    assert_array_equal(whole.labels, fashion.predict(tmp_path / "large.png", refinement=TUNED).labels)
    assert studio.remembered == 1  # the large answer is not kept


def test_a_file_is_decoded_once_until_it_changes(studio, tmp_path, small):
    path = tmp_path / "photo.png"
    Image.fromarray(small).save(path)
    first = studio.open(path)
    assert studio.open(path) is first
    Image.fromarray(small[:50]).save(path)
    assert studio.open(path).size == (50, 64)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        studio.open(path)


def test_photos_with_too_many_pixels_are_refused(tmp_path, small):
    Image.fromarray(small).save(tmp_path / "photo.png")
    with pytest.raises(ImageError, match="megapixels"):
        Studio(max_megapixels=0.006).open(tmp_path / "photo.png")


def test_only_served_models_answer(small):
    studio = Studio([PEOPLE])
    assert (studio.tasks, studio.models_of(), studio.default_model()) == (["person"], [PEOPLE], PEOPLE)
    with pytest.raises(hubmodels.ModelNotFoundError, match=PEOPLE):
        studio.analyse(Photo.of(small), CLOTHES, Refinement())
    for wrong in ([], ["no_such_model"], ["regions_fashion"]):
        with pytest.raises(hubmodels.ModelNotFoundError):
            Studio(wrong)


def test_results_cannot_be_changed_for_the_next_visitor(studio, small):
    analysis = studio.analyse(Photo.of(small), CLOTHES, Refinement())
    for array in (analysis.final.labels, analysis.final.probs, analysis.final.image):
        with pytest.raises(ValueError, match="read-only"):
            array[..., 0] = 0


# --- Memory -----------------------------------------------------------------------------------------------------------


def fail() -> object:
    raise AssertionError("computed again")


def test_memory_forgets_what_was_used_longest_ago():
    memory: BoundedMemory[object] = BoundedMemory(max_items=3, max_cost=100, max_age_s=60)
    values = {key: object() for key in "abcde"}
    for key in "abc":
        memory.get(key, lambda key=key: values[key], cost=10)
    assert memory.get("a", fail) is values["a"]
    memory.get("d", lambda: values["d"], cost=10)  # the fourth: b goes, as a was used after it
    assert [memory.get(key, fail) for key in "cad"] == [values[key] for key in "cad"]
    with pytest.raises(AssertionError, match="computed again"):
        memory.get("b", fail)
    memory.get("e", lambda: values["e"], cost=1000)  # larger than all room: it stays alone
    assert memory.get("e", fail) is values["e"] and len(memory) == 1


def test_memory_forgets_by_age():
    now = 0.0
    memory: BoundedMemory[str] = BoundedMemory(max_items=9, max_cost=9, max_age_s=60, clock=lambda: now)
    memory.get("a", lambda: "a")
    memory.get("b", lambda: "b")
    now = 50.0
    memory.get("b", lambda: "new")
    now = 70.0
    assert memory.expire() == 1 and memory.get("b", fail) == "b"
    assert memory.get("a", lambda: "again") == "again"
    now = 1000.0
    assert memory.expire() == 2 and len(memory) == 0


# --- Controls and links -----------------------------------------------------------------------------------------------


def test_every_setting_has_a_control_that_says_what_it_does():
    assert set(CONTROLS) == set(SETTINGS)
    for control in CONTROLS.values():
        assert control.section in SECTIONS and control.label and control.info.endswith(".")
        if not control.choices:
            assert "usual" in control.info, control.name  # a typical range
            Refinement(**{control.name: control.minimum}), Refinement(**{control.name: control.maximum})
            assert control.clamp(control.default) == control.default  # the default is on the slider's grid


def test_presets_can_be_shown_by_the_sliders():
    for preset in PRESETS:
        for task in PRESETS[preset]:
            settings = Refinement.preset(preset, task=task)
            assert settings_from(settings.to_dict()) == settings


@pytest.mark.parametrize("name", list(CONTROLS))
def test_values_are_brought_into_range(name):
    control = CONTROLS[name]
    for value in ("", "abc", None, "nan", "inf", [1], "<script>"):
        assert control.clamp(value) == control.default
    if control.choices:
        assert [control.clamp(str(choice)) for choice in control.choices] == list(control.choices)
    else:
        assert (control.clamp(-1e9), control.clamp("1e9")) == (control.minimum, control.maximum)


def restored(query: str) -> links.Shared | None:
    from urllib.parse import parse_qsl

    models = {CLOTHES: "fashion", PEOPLE: "person"}
    return links.from_query(dict(parse_qsl(query, keep_blank_values=True)), models=models, default=CLOTHES)


def test_a_link_restores_all_it_carries():
    values = {name: c.choices[-1] if c.choices else c.maximum for name, c in CONTROLS.items()}
    view = View("crf", "other", "cutout", "two-up", 30, "dress", "colour", "#12ab34", PEOPLE)
    for settings in (Refinement(), TUNED, Refinement(**values)):
        shared = links.Shared(CLOTHES, settings, view, "astronaut")
        assert restored(links.to_query(shared, "fashion")) == shared
    assert len(links.to_query(links.Shared(CLOTHES, Refinement(**values), view), "fashion")) < 1500


def test_a_link_is_clamped_and_cannot_break_the_page():
    assert restored("") is None and restored("__theme=dark&utm=x") is None
    shared = restored(
        "model=../../etc/passwd&task=person&example=%2Fetc%2Fpasswd&crf_iterations=9999&min_region_px=-3"
        "&vote=%3Cscript%3E&opacity=1e999&left=nowhere&colour=red&superpixel_scale=" + "9" * 1000
    )
    assert shared == links.Shared(PEOPLE, Refinement(crf_iterations=20), View())


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({"host": "127.0.0.1:7860"}, "http://127.0.0.1:7860"),
        ({"host": "x", "x-forwarded-host": "me.hf.space", "x-forwarded-proto": "https"}, "https://me.hf.space"),
        ({"host": "x", "x-forwarded-proto": "https,http"}, "https://x"),
        ({"host": "x'; rm -rf /; '"}, "http://127.0.0.1:7860"),
        ({}, "http://127.0.0.1:7860"),
    ],
    ids=["plain", "proxy", "proxies", "hostile", "none"],
)
def test_the_address_of_the_page_comes_from_the_request(headers, url):
    assert links.base_url(headers) == url


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_every_style_is_a_picture_of_the_photo_s_size(studio, small):
    analysis = studio.analyse(Photo.of(small), CLOTHES, TUNED)
    for style in views.STYLES:
        for ground in views.GROUNDS if style == "cutout" else ("transparent",):
            picture = views.draw(analysis.final, View(style=style, ground=ground), analysis.tuner.superpixels(TUNED))
            assert picture.size == (64, 96) and not picture.info.get("exif")


def test_labels_stay_exact_on_their_way_to_the_browser():
    seg = drawn(grid("0123", "4560"))
    url = compare.data_url(views.draw(seg, View(style="labels")))
    import base64

    kind, _, data = url.partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert kind == "data:image/png;base64"
        assert_array_equal(np.asarray(picture), seg.labels)


def test_a_cut_out_shows_the_label_and_its_ground():
    seg = drawn(grid("0011", "0022"))
    rgba = np.asarray(views.cutout(seg, View(label="skin")))
    assert_array_equal(rgba[..., 3], [[0, 0, 255, 255], [0, 0, 0, 0]])
    assert_array_equal(np.asarray(views.cutout(seg, View()))[..., 3], [[0, 0, 255, 255]] * 2)
    red = np.asarray(views.cutout(seg, View(label="skin", ground="colour", colour="#ff0000")))
    assert red.shape == (2, 4, 3) and red[0, 0].tolist() == [255, 0, 0] and red[0, 2].tolist() == [100] * 3


def test_superpixels_take_their_mean_colour():
    image = np.zeros((1, 4, 3), np.uint8)
    image[0, :, 0] = (10, 20, 30, 50)
    assert np.asarray(views.mean_colours(image, np.array([[0, 0, 1, 1]])))[0, :, 0].tolist() == [15, 15, 40, 40]


def test_confidence_runs_from_undecided_to_sure():
    probs = np.array([[[0.5, 0.75, 1.0]], [[0.5, 0.25, 0.0]]], np.float32)
    shown = np.asarray(views.confidence(probs))[0].astype(int)
    assert shown[0].tolist() == [0, 32, 77] and shown[2].tolist() == [255, 234, 70]
    assert shown[0].sum() < shown[1].sum() < shown[2].sum()


def test_boundaries_are_drawn_where_labels_meet():
    seg = drawn(np.repeat(grid("0" * 10 + "1" * 10), 20, axis=0))
    row = np.asarray(views.draw(seg, View(style="boundaries")))[10, :, 0]
    assert row[9] == 255 and row[7] == 0 and row[0] == row[19] == 100


def test_labels_are_told_apart_by_colour_blind_readers():
    """Palette colours differ by a clear step for each common kind of colour vision (Machado et al. 2009, full)."""
    kinds = {
        "usual": np.eye(3),
        "protanopia": np.array(
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
        ),
        "deuteranopia": np.array(
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
        ),
    }
    from skimage.color import rgb2lab

    for name, matrix in kinds.items():
        linear = (np.array(FASHION.palette) / 255) ** 2.2
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        lab = rgb2lab(seen[None])[0]
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(len(lab))
        assert distance.min() > 12, (name, distance.round(1))  # about 2 is just seen


def test_pictures_have_text_and_a_handle_for_keys():
    sides = [compare.Side(Image.new("RGB", (8, 4)), f"cap <{x}>", f'alt "{x}"') for x in "ab"]
    page = compare.compare_html(*sides, layout="slider")
    assert page.count("alt &quot;") == page.count('alt="') == 2 and "<a>" not in page and "--ratio:2.0000" in page
    assert 'type="range"' in page and 'type="range"' not in compare.compare_html(*sides, layout="two-up")


# --- Ground truth -----------------------------------------------------------------------------------------------------


def saved(folder: Path, picture: Image.Image, kind: str = "PNG") -> Path:
    picture.save(folder / "mask.png", kind)
    return folder / "mask.png"


def read(path: Path, labels: LabelSet = FASHION, size: tuple[int, int] = (2, 4)) -> np.ndarray:
    return truth.read_truth(path, labels, size, max_pixels=1000)


def test_masks_of_every_kind_are_read(tmp_path):
    ids = grid("0123", "4560")
    indexed = hubmodels.export.indexed_png(ids, FASHION)
    reordered = Image.fromarray(np.array(FASHION.palette, np.uint8)[ids]).quantize(7)  # ids of its own, same colours
    for picture in (indexed, Image.fromarray(ids), indexed.convert("RGB"), indexed.convert("RGBA"), reordered):
        assert_array_equal(read(saved(tmp_path, picture)), ids)
    undecided = ids.copy()
    undecided[0, 0] = IGNORE
    assert_array_equal(read(saved(tmp_path, Image.fromarray(undecided))), undecided)
    black_and_white = Image.fromarray(grid("0101", "1100") * 255)
    for picture in (black_and_white, black_and_white.convert("1")):
        assert_array_equal(read(saved(tmp_path, picture), PERSON), grid("0101", "1100"))


@pytest.mark.parametrize(
    ("picture", "labels", "message"),
    [
        (Image.new("L", (4, 2), 9), FASHION, "holds id 9, but fashion has ids 0..6"),
        (Image.new("L", (4, 2), 5), PERSON, "another task"),
        (Image.new("RGB", (4, 2), (1, 2, 99)), FASHION, "#010263"),
        (Image.new("L", (5, 2)), FASHION, "5x2, the photo 4x2"),
        (Image.new("I;16", (4, 2)), FASHION, "kind I;16"),
    ],
    ids=["id", "task", "colour", "size", "depth"],
)
def test_masks_that_cannot_be_used_are_explained(tmp_path, picture, labels, message):
    with pytest.raises(ImageError, match=message):
        read(saved(tmp_path, picture), labels)


def test_masks_that_are_no_masks_are_explained(tmp_path, astronaut):
    with pytest.raises(ImageError, match="is no PNG"):
        read(saved(tmp_path, Image.new("L", (4, 2)), "JPEG"))
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="is no PNG"):
        read(tmp_path / "mask.png")
    with pytest.raises(ImageError, match="256 colours"):
        read(saved(tmp_path, Image.fromarray(astronaut[:30, :30])), size=(30, 30))
    with pytest.raises(ImageError, match="megapixels"):
        read(saved(tmp_path, Image.new("L", (50, 50))), size=(50, 50))


def test_scores_are_those_of_the_evaluation():
    labels, ids = grid("0011", "0011"), grid("0111", "0111")
    scores = truth.score(ids, labels, FASHION)
    assert scores.iou == {"background": 0.5, "skin": pytest.approx(2 / 3)}
    assert scores.miou == pytest.approx((1 / 2 + 2 / 3) / 2) and scores.boundary_f == 1
    undecided = np.full((2, 4), IGNORE, np.uint8)
    assert np.isnan(truth.score(undecided, labels, FASHION).miou)
    page = texts.scores_html(scores, truth.score(ids, ids, FASHION))
    assert "58.33" in page and "-41.67" in page and 'class="down"' in page


# --- Texts ------------------------------------------------------------------------------------------------------------


def test_the_legend_names_every_label_with_its_share(studio, small):
    analysis = studio.analyse(Photo.of(small), CLOTHES, Refinement())
    labels = LabelSet("demo", ("ground", "<b>&hat", "shoe"), ((0, 0, 0), (1, 2, 3), (4, 5, 6)))
    analysis = dataclasses.replace(analysis, final=drawn(grid("0001"), labels))
    page = texts.details_html(analysis, {"network": 0.5, "pictures": 0.01}, ["<i>note"])
    assert "<b>" not in page and page.count("&lt;b&gt;&amp;hat") == 2 and "&lt;i&gt;note" in page
    assert page.count("<li") == 3 and page.count("background:rgb(1, 2, 3)") == 2
    assert "Found &lt;b&gt;&amp;hat (25.0\u00a0%); 75.0\u00a0% is ground." in page
    assert 'class="absent"' in page and "510 ms (network 500 ms, pictures 10 ms)" in page


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0"), (1e-9, "<0.1"), (0.0005, "0.1"), (0.25, "25.0"), (1, "100.0")], ids=str
)
def test_shares_read_well(share, text):
    assert texts.percent(share) == f"{text}\u00a0%"


def test_nothing_found_is_said():
    assert texts.summary({"background": 1.0, "person": 0.0}) == "Nothing found: all of the photo is background."


def test_the_menu_shows_score_size_and_speed(monkeypatch):
    entry = dataclasses.replace(ENTRIES[CLOTHES])
    measured = {"metrics": {"miou": 0.6123}, "size_bytes": 6_730_000}
    object.__setattr__(entry, "measured", MappingProxyType(measured))
    monkeypatch.setattr(texts, "find_entry", lambda name: entry)
    assert texts.model_choice(CLOTHES, {CLOTHES: 0.123}) == f"{CLOTHES} · 61.2 mIoU · 6.7 MB · 0.12 s"
    measured["metrics"] = {}
    object.__setattr__(entry, "measured", MappingProxyType(measured))
    assert texts.model_choice(CLOTHES, {}) == f"{CLOTHES} · 6.7 MB"


def test_notices_escape_what_they_say():
    assert "<script>" not in texts.notice_html("<script>", error=True)


# --- Code and files to take away --------------------------------------------------------------------------------------


def test_the_copied_python_gives_the_same_labels(studio, photo_file, tmp_path):
    code = snippets.python(CLOTHES, TUNED, opacity=30)
    call = [sys.executable, "-c", BLOCK_NETWORK + code]
    done = subprocess.run(call, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "labels.png") as picture:
        assert_array_equal(np.asarray(picture), studio.whole(photo_file, CLOTHES, TUNED).labels)
    assert (tmp_path / "overlay.jpg").is_file()


def test_the_copied_command_gives_the_same_labels(studio, photo_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = dataclasses.replace(TUNED, person_threshold=0.3, connectivity=8)
    program, *arguments = snippets.command(PEOPLE, settings).split()
    assert program == "hubmodels" and cli(arguments) == 0
    with Image.open(tmp_path / "out" / "photo_mask.png") as picture:
        assert_array_equal(np.asarray(picture), studio.whole(photo_file, PEOPLE, settings).labels)


def test_copied_code_names_every_changed_setting():
    values = {name: c.choices[-1] if c.choices else c.maximum for name, c in CONTROLS.items()}
    changed = {name for name, value in values.items() if value != getattr(Refinement(), name)}
    scope: dict[str, object] = {}
    code = snippets.python(CLOTHES, Refinement(**values))
    exec(code[: code.index("seg =")].replace("hubmodels.load", "str"), scope)
    assert scope["settings"] == Refinement(**values)
    for text in (snippets.client("http://x", CLOTHES, Refinement(**values)), code):
        assert all(f"{name}=" in text for name in changed)
    assert "Refinement()" in snippets.python(CLOTHES, Refinement())


def test_files_hold_what_they_promise(studio, small):
    analysis = studio.analyse(Photo.of(small), CLOTHES, TUNED)
    seg = analysis.final
    name, content = downloads.labels_file(seg)
    with Image.open(io.BytesIO(content)) as picture:
        assert (name, picture.mode) == ("labels.png", "P") and picture.getpalette()[3:6] == list(FASHION.palette[1])
        assert_array_equal(np.asarray(picture), seg.labels)
    name, content = downloads.cutout_file(seg, View(label="hair"))
    with Image.open(io.BytesIO(content)) as picture:
        assert (name, picture.mode) == ("hair.png", "RGBA")
        assert_array_equal(np.asarray(picture)[..., 3] > 0, seg.mask("hair"))
    name, content = downloads.probabilities_file(seg)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == list(FASHION.names)
        assert_array_equal(arrays["labels"], seg.labels)
        assert np.abs(arrays["probs"].astype(float) - seg.probs).max() < 1e-3  # float16
    name, content = downloads.settings_file(TUNED)
    assert Refinement.from_dict(json.loads(content)) == TUNED
    name, content = downloads.overlay_file(seg, View())
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (64, 96) and not picture.getexif()
