"""The work behind the page, without Gradio: what is computed, how often, and what is remembered."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels
from hubmodels import FASHION, PERSON, ImageError, Refinement
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.studio import STAGES, Photo, Studio, fitted, models_at_hand, up_to
from hubmodels.entries import DEFAULTS, ENTRIES
from hubmodels.segmenter import Segmenter
from tests.page_examples import CLOTHES, PEOPLE, TUNED


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


def test_absent_labels_need_no_network_again(studio, small, network_runs):
    photo = Photo.of(small)
    first = studio.analyse(photo, CLOTHES, Refinement(), absent=["dress", "skin"])
    assert first.absent == ("skin", "dress") and "network" in first.seconds
    again = studio.analyse(photo, CLOTHES, Refinement(), absent=("skin",))
    assert "network" not in again.seconds and network_runs == [CLOTHES]
    assert_array_equal(again.final.labels, studio.model(CLOTHES).predict(small, absent=["skin"]).labels)
    assert studio.analyse(photo, CLOTHES, Refinement()).final.mask("skin").any()


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


def test_labels_that_post_processing_takes_most_of_are_found(studio, astronaut):
    photo = Photo.of(astronaut)
    assert studio.analyse(photo, CLOTHES, Refinement()).lost() == {}
    before = studio.analyse(photo, CLOTHES, Refinement()).final.areas()
    analysis = studio.analyse(photo, CLOTHES, Refinement(min_region_px=2000))
    lost, after = analysis.lost(), analysis.final.areas()
    assert lost == {name: (before[name], after[name]) for name in ("t-shirt", "dress")}
    for name in before:
        halved = 2 * after[name] < before[name]
        assert halved == (name in lost) or (halved and before[name] < 0.001), name
    assert 0 < before["shoes"] < 0.001 and not after["shoes"]  # a speck, which clean-up is for


def test_a_threshold_belongs_to_the_stage_of_the_crf():
    asked = Refinement(crf_iterations=2, person_threshold=0.3, superpixel_scale=60, min_region_px=50)
    assert up_to(asked, "crf") == Refinement(crf_iterations=2, person_threshold=0.3)
    assert up_to(asked, "superpixels") == dataclasses.replace(asked, min_region_px=0)


def test_what_a_model_cannot_do_is_left_out():
    asked = Refinement(person_threshold=0.3, vote="classifier")
    assert fitted(asked, ENTRIES[CLOTHES]) == Refinement(vote="classifier")
    assert fitted(asked, ENTRIES[PEOPLE]) == Refinement(person_threshold=0.3)


def test_a_photo_is_a_copy_that_nobody_changes(small):
    image = small.copy()
    photo = Photo.of(image)
    image[:] = 0
    assert_array_equal(photo.work, small)
    assert photo.is_whole and not photo.work.flags.writeable


def test_a_photo_of_working_size_is_taken_away_as_it_was_tuned(studio, tmp_path, small, network_runs):
    Image.fromarray(small).save(tmp_path / "photo.png")
    whole = studio.whole(tmp_path / "photo.png", PEOPLE, Refinement())
    again = studio.analyse(studio.open(tmp_path / "photo.png"), PEOPLE, Refinement())
    assert network_runs == [PEOPLE]
    assert_array_equal(whole.labels, again.final.labels)


def test_large_photos_are_taken_away_with_what_their_model_can_do(studio, tmp_path, monkeypatch):
    model = SimpleNamespace(predict=lambda image, **options: (image.shape, options))
    monkeypatch.setattr(studio, "model", lambda name: model)
    Image.new("RGB", (900, 8)).save(tmp_path / "wide.png")
    asked = Refinement(person_threshold=0.3, min_region_px=50)
    found = studio.whole(tmp_path / "wide.png", CLOTHES, asked, absent=["dress"])
    assert found == ((8, 900, 3), {"refinement": Refinement(min_region_px=50), "absent": ["dress"]})


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


def test_a_mask_is_read_for_its_labels_and_photo_until_it_changes(studio, tmp_path):
    path, wide = tmp_path / "mask.png", Photo.of(np.zeros((8, 1600, 3), np.uint8))
    Image.new("L", (1600, 8), 5).save(path)
    assert_array_equal(studio.truth(path, wide, FASHION), np.full((4, 800), 5))
    with pytest.raises(ImageError, match="is it for another task"):
        studio.truth(path, wide, PERSON)
    with pytest.raises(ImageError, match="the mask is 1600x8, the photo 4x2"):
        studio.truth(path, Photo.of(np.zeros((2, 4, 3), np.uint8)), FASHION)
    Image.new("L", (1600, 8), 1).save(path)
    assert_array_equal(studio.truth(path, wide, FASHION), np.ones((4, 800)))


def test_photos_masks_and_answers_are_forgotten_alike(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(studio, "model", lambda name: SimpleNamespace(tune=lambda image: None))
    Image.new("L", (4, 2)).save(tmp_path / "photo.png")
    photo = studio.open(tmp_path / "photo.png")
    studio.truth(tmp_path / "photo.png", photo, PERSON)
    studio.answer(photo, PEOPLE)
    assert studio.expire() == 0
    for memory in (studio._photos, studio._truths, studio._answers):
        monkeypatch.setattr(memory, "_clock", lambda: time.monotonic() + 1801)
    assert studio.expire() == 3 and studio.remembered == 0


@pytest.mark.parametrize(("name", "kept"), [(CLOTHES, 3), (PEOPLE, 6)], ids=["seven labels", "two labels"])
def test_answers_are_kept_as_far_as_their_pixels_and_labels_fit(monkeypatch, name, kept):
    studio = Studio([name])
    monkeypatch.setattr(studio, "model", lambda name: SimpleNamespace(tune=lambda image: None))
    for shade in range(8):
        studio.answer(Photo.of(np.full((800, 800, 3), shade, np.uint8)), name)
    assert studio.remembered == kept


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


def test_models_that_are_served_are_those_at_hand_once_each_and_the_defaults_first(monkeypatch):
    usual, other, clothes = DEFAULTS["person"], "deeplabv3_person", "u2net_fashion"
    studio = Studio([PEOPLE, clothes, other, usual, PEOPLE])
    assert studio.models == (PEOPLE, clothes, other, usual)
    assert studio.models_of() == [usual, other, PEOPLE, clothes]
    assert studio.models_of("person") == [usual, other, PEOPLE]
    assert (studio.default_model(), studio.default_model("person")) == (clothes, usual)  # of the first task
    monkeypatch.setattr("hubmodels.app.studio.find_weights", lambda entry: None if entry.name == PEOPLE else entry)
    assert set(models_at_hand()) == set(hubmodels.list_models()) - {PEOPLE}


def test_what_cannot_be_served_is_named_in_short():
    with pytest.raises(ValueError, match=r"runtime must be one of .*; got 'tpu'"):
        Studio([PEOPLE], runtime="tpu")
    with pytest.raises(hubmodels.ModelNotFoundError, match=rf"no model '{'x' * 80}' is served here"):
        Studio([PEOPLE]).model("x" * 500)
    assert Studio([PEOPLE], max_megapixels=0.5).max_pixels == 500_000


def test_the_time_of_a_network_is_measured_even_if_labels_are_left_out(studio, monkeypatch, small):
    def wait(image: np.ndarray) -> SimpleNamespace:
        time.sleep(0.01)
        return SimpleNamespace(without=lambda absent: None)

    monkeypatch.setattr(studio, "model", lambda name: SimpleNamespace(tune=wait, probabilities=wait))
    start = time.perf_counter()
    answer, ran = studio.answer(Photo.of(small), CLOTHES, ("skin",))
    studio.measure(CLOTHES, Photo.of(small))
    assert ran and studio.answer(Photo.of(small), CLOTHES, ("skin",)) == (answer, False)
    assert 0.01 <= min(answer.seconds, studio.speeds[CLOTHES])
    assert answer.seconds + studio.speeds[CLOTHES] <= time.perf_counter() - start


def test_results_cannot_be_changed_for_the_next_visitor(studio, small):
    analysis = studio.analyse(Photo.of(small), CLOTHES, Refinement())
    for array in (analysis.final.labels, analysis.final.probs, analysis.final.image):
        with pytest.raises(ValueError, match="read-only"):
            array[..., 0] = 0


def test_what_does_not_work_here_is_refused_with_what_does(small, tmp_path):
    studio = Studio([PEOPLE])
    studio.unavailable = {"merge": {"kmeans"}, "vote": {"probability"}}  # a default stays, whatever was found
    assert studio.choices("merge") == ["off", "cut", "hierarchical"] and "probability" in studio.choices("vote")
    Image.fromarray(small).save(tmp_path / "photo.png")
    asked = Refinement(superpixel_scale=60, merge="kmeans")
    for call in (
        lambda: studio.analyse(Photo.of(small), PEOPLE, asked),
        lambda: studio.whole(tmp_path / "photo.png", PEOPLE, asked),
    ):
        with pytest.raises(ValueError, match=r"merge 'kmeans' is not available on this server; choose one of \['off'"):
            call()
    assert studio.available(asked) == Refinement(superpixel_scale=60)
