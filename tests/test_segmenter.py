"""Photos in, segmentations out, with the shipped weights."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import hubmodels
from hubmodels import FASHION, LabelSet, Refinement, Segmenter, WeightsError
from hubmodels.refine import clean_regions, refine
from hubmodels.segmenter import working_size
from tests.golden.regenerate import GOLDEN


class Ramp(torch.nn.Module):
    """A network whose logits are known: label 1 grows from left to right, label 2 from top to bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        n, _, h, w = x.shape
        across = torch.linspace(0, 1, w).expand(n, h, w)
        down = torch.linspace(0, 1, h)[:, None].expand(n, h, w)
        return self.scale * torch.stack([torch.full((n, h, w), 0.5), across, down], 1)


THREE = LabelSet("ramp", ("none", "across", "down"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))


@pytest.fixture
def ramp() -> Segmenter:
    return Segmenter(Ramp(), THREE, name="ramp", input_px=64).eval()


class Answer(torch.nn.Module):
    """Answers whatever it is told to."""

    def __init__(self, answer: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.mark.parametrize(
    "answer, error, message",
    [
        (lambda x: {"out": x}, TypeError, r"a tensor \(1, 3, H, W\).*none, across, down; got dict: wrap it"),
        (lambda x: (x,), TypeError, "got tuple: wrap it in a module"),
        (lambda x: x[:, :2], ValueError, r"^own: .*each label of ramp.*got \(1, 2, 64, 64\): pass its own labels"),
        (lambda x: x[:, :, 0], ValueError, r"got \(1, 3, 64\)"),
        (lambda x: torch.cat([x, x]), ValueError, r"got \(2, 3, 64, 64\)"),
    ],
    ids=["dict", "tuple", "channels", "a row", "two photos"],
)
def test_answers_that_are_none_for_these_labels_are_named(answer, error, message):
    model = Segmenter(Answer(answer), THREE, name="own", input_px=64).eval()
    with pytest.raises(error, match=message):
        model.predict(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "input_px, error, message",
    [
        (0, ValueError, r"input_px must be in 32\.\.4096; got 0"),
        (-64, ValueError, "got -64"),
        (5000, ValueError, "got 5000"),
        (57.5, TypeError, r"whole number of pixels, such as 576; got 57\.5"),
        (True, TypeError, "got True"),
        (None, TypeError, "got None"),
        ("576", TypeError, "got '576'"),
    ],
)
def test_sizes_that_no_network_works_at_are_refused(input_px, error, message):
    with pytest.raises(error, match=message):
        Segmenter(Ramp(), THREE, name="ramp", input_px=input_px)
    model = Segmenter(Ramp(), THREE, name="ramp", input_px=64)
    with pytest.raises(error, match=message):
        model.input_px = input_px
    assert model.input_px == 64


def test_a_size_may_be_numpys():
    assert type(Segmenter(Ramp(), THREE, name="ramp", input_px=np.int64(64)).input_px) is int


def test_the_astronaut_is_labelled_as_the_golden_map_says(fashion, person, astronaut):
    """Other CPUs round differently, which moves a few boundary pixels; more would be another model."""
    for model in (fashion, person, hubmodels.load("u2net_small_person")):
        labels = model.predict(astronaut).labels
        golden = np.asarray(Image.open(GOLDEN / f"{model.name}.png"))
        assert (labels == golden).mean() > 0.998
        assert_array_equal(golden.shape, astronaut.shape[:2])


def test_the_astronaut_is_found(person, astronaut):
    mask = person.predict(astronaut).mask("person")
    assert mask[90:160, 195:260].mean() > 0.95  # her face, inside its outline
    assert mask[:60, 420:].mean() < 0.2 and mask[20:120, 330:380].mean() < 0.05  # the wall behind her


def test_size_dtype_and_range(fashion, astronaut):
    seg = fashion.predict(astronaut[:301, :207])
    assert seg.labels.shape == (301, 207) and seg.labels.dtype == np.uint8
    assert seg.probs.shape == (7, 301, 207) and seg.probs.dtype == np.float32
    assert_allclose(seg.probs.sum(0), 1, atol=1e-5)
    assert_array_equal(seg.labels, seg.probs.argmax(0))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (40, 20000), (20000, 40), (700, 33)])
def test_every_size_comes_back(ramp, size):
    seg = ramp.predict(np.zeros((*size, 3), np.uint8))
    assert seg.labels.shape == size and np.isfinite(seg.probs).all()


def test_a_tiny_photo_through_the_real_network(person):
    assert person.predict(np.full((1, 1, 3), 200, np.uint8)).labels.shape == (1, 1)


def test_logits_are_resized_never_ids(ramp):
    """At 16 times the working size, the boundary of two smooth ramps is a straight line, without blocks or new ids."""
    seg = ramp.predict(np.zeros((1024, 1024, 3), np.uint8))
    y, x = np.mgrid[:1024, :1024]
    clear = (np.abs(x - y) > 3) & (np.maximum(x, y) > 520)  # 1 % from every tie
    clear[-16:] = clear[:, -16:] = False  # beyond the last logit's centre all stay what it is
    assert_array_equal(seg.labels[clear], np.where(x > y, 1, 2)[clear])
    between = ramp.predict(np.zeros((64, 1024, 3), np.uint8)).probs[1, 30]
    assert np.all(np.diff(between) >= -1e-6) and len(np.unique(between)) > 400


def test_exif_orientation_is_undone_before_the_network(person, astronaut):
    stored, exif = Image.fromarray(np.rot90(astronaut[:, :400])), Image.Exif()
    exif[274] = 6  # stored lying on its side
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)
    seg = person.predict(buffer.getvalue())
    assert seg.labels.shape == (512, 400)
    assert_array_equal(seg.labels, person.predict(astronaut[:, :400]).labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_in_another_precision_labels_alike(person, astronaut, dtype):
    photo = astronaut[:256, 100:356]
    wanted = person.predict(photo)
    got = copy.deepcopy(person).to(dtype).predict(photo)
    assert got.probs.dtype == np.float32 and (got.labels == wanted.labels).mean() > 0.98
    assert_allclose(got.probs.sum(0), 1, rtol=1e-5)
    assert (got.probs != wanted.probs).any()  # it did compute otherwise


def test_the_first_photo_under_autocast_leaves_a_folded_copy():
    """Rounded to half precision, a trial of U-2-Net would look as if it could not be folded."""
    model = hubmodels.load("u2net_small_person")
    with torch.autocast("cpu", torch.bfloat16):
        model.predict(np.zeros((64, 64, 3), np.uint8))
    assert model._folded.of(model.network) is not model.network


def test_autocast_around_predict(person, astronaut):
    photo = astronaut[:256, 100:356]
    wanted = person.predict(photo)
    with torch.autocast("cpu", torch.bfloat16):
        got = person.predict(photo)
    assert got.probs.dtype == np.float32 and (got.labels == wanted.labels).mean() > 0.98


def test_refinement_acts_on_the_result(ramp, rng):
    photo = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    plain = ramp.predict(photo)
    settings = Refinement(min_region_px=40_000)
    assert_array_equal(ramp.predict(photo, refinement=settings).labels, clean_regions(plain.labels, min_region_px=600))


def test_averaging_with_the_mirror_makes_mirrored_photos_mirrored_answers(fashion, astronaut):
    photo = astronaut[:200, 100:300]
    plain, flipped = fashion.probabilities(photo), fashion.probabilities(photo, flip=True)
    mirrored = fashion.probabilities(photo[:, ::-1])[..., ::-1]
    assert np.abs(plain - mirrored).max() > 1e-2  # without it they differ
    assert_allclose(flipped, (plain + mirrored) / 2, atol=1e-6)
    assert_allclose(fashion.probabilities(photo[:, ::-1], flip=True)[..., ::-1], flipped, atol=1e-5)


def test_scales_are_averaged_and_small_photos_are_enlarged_for_them(ramp, monkeypatch):
    sizes = []
    real = ramp.network.forward
    monkeypatch.setattr(ramp.network, "forward", lambda x: sizes.append(tuple(x.shape[2:])) or real(x))
    photo = np.zeros((ramp.input_px, ramp.input_px, 3), np.uint8)
    passes = [ramp.probabilities(photo, scales=(scale,)) for scale in (0.5, 1.0, 2.0)]
    assert sizes == [(ramp.input_px * n // 4,) * 2 for n in (2, 4, 8)]
    together = ramp.predict(photo, scales=(0.5, 1.0, 2.0)).probs
    assert_allclose(together, np.mean(passes, 0), atol=1e-6)
    assert_array_equal(ramp.tune(photo, scales=(0.5, 1.0, 2.0)).refine(Refinement()).probs, together)


def test_scales_of_a_small_photo_are_multiples_of_its_own_size(ramp, monkeypatch):
    sizes = []
    real = ramp.network.forward
    monkeypatch.setattr(ramp.network, "forward", lambda x: sizes.append(tuple(x.shape[2:])) or real(x))
    ramp.input_px = 256
    ramp.probabilities(np.zeros((128, 64, 3), np.uint8), scales=(0.5, 1.0, 1.5, 2.0))
    assert sizes == [(64, 32), (128, 64), (192, 96), (256, 128)]


@pytest.mark.parametrize("entry", ["deeplabv3plus_person", "u2net_small_person"])
def test_a_network_that_diverged_is_an_error_not_background(entry):
    model = hubmodels.load(entry)
    weight = next(parameter for name, parameter in model.named_parameters() if name.endswith("weight"))
    with torch.no_grad():
        weight[0] = float("nan")
    with pytest.raises(WeightsError, match=f"{entry}: the network answers with values that are not finite"):
        model.predict(np.zeros((64, 64, 3), np.uint8))


def test_arrays_are_for_predict(fashion, astronaut):
    with pytest.raises(TypeError, match=r"got ndarray: photos go to predict\(\)"):
        fashion(astronaut)


def test_networks_in_float64_take_float64(ramp):
    assert ramp.double()(torch.rand(1, 3, 40, 40).double()).shape == (1, 3, 40, 40)


@pytest.mark.parametrize("part", ["", "aspp"])
def test_a_network_in_training_mode_predicts_nothing_and_stays_as_it_is(person, astronaut, part):
    model = copy.deepcopy(person)
    model.network.get_submodule(part).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"deeplabv3plus_person is in training mode: call eval\(\)"):
        model.predict(astronaut)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"crf_iterations": 5}, r"got dict: use Refinement\.from_dict\(values\)"),
        ({}, "got dict"),
        ("gentle", r"got str: use Refinement\.preset\(name, task=\.\.\.\)"),
        (5, "expected a Refinement; got int$"),
    ],
)
def test_what_is_no_refinement_is_refused_before_the_network_runs(ramp, monkeypatch, settings, message):
    monkeypatch.setattr(ramp.network, "forward", lambda _: pytest.fail("the network ran"))
    with pytest.raises(TypeError, match=message):
        ramp.predict(np.zeros((64, 64, 3), np.uint8), refinement=settings)
    monkeypatch.undo()
    tuner = ramp.tune(np.zeros((64, 64, 3), np.uint8))
    for call in (tuner.refine, tuner.superpixels):
        with pytest.raises(TypeError, match=message):
            call(settings)
    with pytest.raises(TypeError, match=message):
        refine(np.ones((1, 4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), settings)


def test_a_photo_whose_array_is_used_anew_stays_what_it_was(ramp, rng):
    frame = rng.integers(0, 256, (64, 64, 3), np.uint8)
    settings = [Refinement(crf_iterations=2, crf_appearance_sigma_px=px) for px in (80, 81)]
    expected = [ramp.predict(frame.copy(), refinement=each) for each in settings]
    tuner = ramp.tune(frame)
    first = tuner.refine(settings[0])
    frame[:] = 0  # the next frame of a camera
    assert_array_equal(first.image, expected[0].image)
    assert_array_equal(tuner.refine(settings[1]).probs, expected[1].probs)
    frame[0, 0] = 1  # still the caller's to write to


@pytest.mark.parametrize("turned", [np.s_[:, ::-1], np.s_[::-1]], ids=["mirrored", "upside down"])
@pytest.mark.parametrize("size", [(50, 1), (1, 50)], ids=str)
def test_views_of_photos_one_pixel_wide_are_read(ramp, rng, size, turned):
    photo = rng.integers(0, 256, (*size, 3), np.uint8)[turned]
    settings = Refinement(crf_iterations=1)
    seen = ramp.predict(photo, refinement=settings, flip=True)
    assert_array_equal(seen.labels, ramp.predict(photo.copy(), refinement=settings, flip=True).labels)


def test_one_scale_is_not_a_sequence(ramp):
    for scales in (1.5, None):
        with pytest.raises(TypeError, match=rf"a sequence of numbers, such as \(1\.0,\); got {scales}"):
            ramp.predict(np.zeros((64, 64, 3), np.uint8), scales=scales)


def test_scales_may_come_one_by_one(ramp):
    photo = np.zeros((64, 64, 3), np.uint8)
    assert_array_equal(ramp.probabilities(photo, scales=iter([0.5, 1.0])), ramp.probabilities(photo, scales=(0.5, 1.0)))


@pytest.mark.parametrize(
    "photo, error, message",
    [
        ("photo.jpg", TypeError, r"an \(H, W, 3\) uint8 array; got str"),
        (np.zeros((64, 64, 3)), ValueError, r"must be uint8; got float64; for values in 0\.\.1 pass"),
        (np.zeros((64, 64), np.uint8), ValueError, r"must be \(H, W, 3\); got \(64, 64\)"),
        (np.zeros((64, 64, 4), np.uint8), ValueError, r"got \(64, 64, 4\)"),
    ],
)
def test_probabilities_are_those_of_a_photo_alone(ramp, photo, error, message):
    with pytest.raises(error, match=message):
        ramp.probabilities(photo)


@pytest.mark.parametrize("flip", ["no", 1, None])
def test_flip_is_yes_or_no(ramp, flip):
    with pytest.raises(TypeError, match=f"flip must be True or False; got {flip!r}"):
        ramp.predict(np.zeros((64, 64, 3), np.uint8), flip=flip)


def test_settings_for_other_labels_are_refused_before_the_network_runs(ramp, monkeypatch):
    monkeypatch.setattr(ramp.network, "forward", lambda _: pytest.fail("the network ran"))
    with pytest.raises(ValueError, match="person_threshold is for two labels, but ramp has 3"):
        ramp.predict(np.zeros((64, 64, 3), np.uint8), refinement=Refinement(person_threshold=0.3))
    with pytest.raises(ValueError, match="needs a model with a region classifier; ramp has none: choose another vote"):
        ramp.predict(np.zeros((64, 64, 3), np.uint8), refinement=Refinement(superpixel_scale=60, vote="classifier"))
    monkeypatch.undo()
    ramp.predict(np.zeros((64, 64, 3), np.uint8), refinement=Refinement(vote="classifier"))  # no superpixels, no vote


@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_lie_label_by_label(person, small, flip):
    """Whatever the layout of the network's answer: planes are read as a whole, and copies of large photos take long."""
    assert person.probabilities(small, flip=flip).flags.c_contiguous


@pytest.mark.parametrize("scales", [(), (0.1,), (1.0, 3.0), (float("nan"),), "1.0", ("1",), (True,)])
def test_scales_out_of_range_are_refused(ramp, scales):
    with pytest.raises(ValueError, match=r"scales must be one or more numbers in 0.25..2; got \("):
        ramp.probabilities(np.zeros((64, 64, 3), np.uint8), scales=scales)


def test_the_tuner_runs_the_network_once(ramp, monkeypatch):
    calls = []
    real = ramp.network.forward
    monkeypatch.setattr(ramp.network, "forward", lambda x: calls.append(1) or real(x))
    tuner = ramp.tune(np.zeros((64, 64, 3), np.uint8))
    results = [tuner.refine(Refinement(min_region_px=size)) for size in (0, 100_000, 0)]
    assert len(calls) == 1
    assert_array_equal(results[0].labels, results[2].labels)
    assert (results[0].labels != results[1].labels).any()


def test_nothing_is_kept_and_weights_are_untouched(fashion, astronaut):
    before = {name: value.clone() for name, value in fashion.state_dict().items()}
    first, second = fashion.predict(astronaut[:200]).probs, fashion.predict(astronaut[:200]).probs
    assert_array_equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in fashion.state_dict().items())


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.rand(3, 40, 40), r"x\[None\]"),
        (torch.rand(1, 4, 40, 40), "N, 3, H, W"),
        (torch.zeros(1, 3, 40, 40, dtype=torch.uint8), "divide by 255"),
        (torch.rand(1, 3, 31, 40), "at least 32"),
        (torch.rand(1, 3, 40, 40).double(), r"got float64, NumPy's default: call x\.float\(\)"),
    ],
)
def test_wrong_tensors_are_refused(fashion, x, message):
    with pytest.raises(ValueError, match=message):
        fashion(x)


@pytest.mark.parametrize(
    "photo, expected",
    [
        ((1200, 800), (576, 384)),
        ((600, 400), (576, 384)),
        ((512, 512), (512, 512)),  # not magnified
        ((100, 50), (96, 64)),
        ((20000, 40), (576, 32)),
        ((1, 1), (32, 32)),
    ],
)
def test_photos_go_through_the_network_at_multiples_of_its_deepest_stride(photo, expected):
    assert working_size(*photo, 576) == expected


def test_labels_of_the_model_are_its_tasks(fashion):
    assert fashion.labels == FASHION


def test_a_network_in_half_precision_takes_float32(person):
    half = copy.deepcopy(person).to(torch.bfloat16)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(half(x), half(x.to(torch.bfloat16)))


@pytest.mark.parametrize("of_network", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("of_input", [torch.float16, torch.bfloat16, torch.float32])
def test_networks_get_their_own_precision(of_network, of_input):
    network = torch.nn.Conv2d(3, 3, 1).to(of_network)
    model = Segmenter(network, THREE, name="own").eval()
    x = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)).to(of_input)
    with torch.no_grad():
        assert torch.equal(model(x), network(x.to(of_network)))
