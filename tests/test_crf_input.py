"""What the CRF refuses, and what it says then."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hubmodels.refine import DenseCRF
from hubmodels.refine.crf import log_probabilities
from tests.crf_scene import scene

GOOD_LOGITS, GOOD_IMAGE = scene(6, 5)


@pytest.mark.parametrize(
    ("logits", "image", "error", "words"),
    [
        (GOOD_LOGITS * float("nan"), GOOD_IMAGE, ValueError, "finite"),
        (GOOD_LOGITS / 0.0, GOOD_IMAGE, ValueError, "finite.*clamp"),
        (GOOD_LOGITS[0], GOOD_IMAGE, ValueError, r"\(N, C, H, W\)"),
        (GOOD_LOGITS.long(), GOOD_IMAGE, TypeError, "float tensor"),
        (GOOD_LOGITS.numpy(), GOOD_IMAGE, TypeError, "float tensor"),
        (GOOD_LOGITS[:, :0], GOOD_IMAGE, ValueError, "none of them 0"),
        (GOOD_LOGITS, GOOD_IMAGE[:, :, :5], ValueError, r"\(3, 6, 5\) or \(6, 5, 3\)"),
        (GOOD_LOGITS, GOOD_IMAGE.transpose(2, 3), ValueError, r"got \(3, 5, 6\)"),
        (GOOD_LOGITS, GOOD_IMAGE[:, :1], ValueError, r"\(3, 6, 5\)"),
        (GOOD_LOGITS, GOOD_IMAGE[0], ValueError, r"image\[None\]"),
        (GOOD_LOGITS, GOOD_IMAGE.repeat(2, 1, 1, 1), ValueError, r"must be \(1, 3, 6, 5\)"),
        (GOOD_LOGITS, GOOD_IMAGE.int(), TypeError, "uint8"),
        (GOOD_LOGITS, GOOD_IMAGE / 255.0, ValueError, "multiply by 255"),
        (GOOD_LOGITS, GOOD_IMAGE / 100.0 - 1, ValueError, "before normalisation"),
        (GOOD_LOGITS, GOOD_IMAGE * 2.0, ValueError, r"in 0\.\.255"),
        (GOOD_LOGITS, GOOD_IMAGE * float("nan"), ValueError, r"in 0\.\.255"),
        (GOOD_LOGITS, "photo.jpg", TypeError, "numpy.asarray"),
    ],
)  # fmt: skip
def test_refuses_inputs(logits: object, image: object, error: type[Exception], words: str) -> None:
    for iterations in (0, 2):  # off or on, the same mistakes are reported
        with pytest.raises(error, match=words):
            DenseCRF(iterations)(logits, image)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"iterations": -1}, ValueError, "at least 0"),
        ({"iterations": 2.5}, TypeError, "whole number"),
        ({"iterations": True}, TypeError, "whole number"),
        ({"iterations": float("inf")}, TypeError, "whole number"),
        ({"iterations": "5"}, TypeError, "whole number; got '5'"),
        ({"num_classes": 0}, ValueError, "num_classes must be a whole number of 1 or more; got 0"),
        ({"num_classes": 2.5}, ValueError, "num_classes must be a whole number of 1 or more; got 2.5"),
        ({"num_classes": -1}, ValueError, "1 or more"),
        ({"appearance_sigma_px": -3}, ValueError, "appearance_sigma_px must be finite and above 0; got -3"),
        ({"appearance_sigma_colour": 0}, ValueError, "set its weight to 0"),
        ({"smoothness_sigma_px": float("nan")}, ValueError, "smoothness_sigma_px"),
        ({"appearance_weight": -1}, ValueError, "at least 0"),
        ({"smoothness_weight": float("inf")}, ValueError, "finite"),
        ({"smoothness_weight": 1e39}, ValueError, "smoothness_weight must be at most 1e.30.*; got 1e.39"),
        ({"appearance_weight": 3e38}, ValueError, "appearance_weight must be at most 1e"),
        ({"compatibility": [[1.0, 2.0]]}, ValueError, r"\(C, C\)"),
        ({"compatibility": [[-1.0, 0.0], [0.0, float("nan")]]}, ValueError, "finite"),
        ({"compatibility": [[-1.0, 0.0], [0.0, -1.0]], "num_classes": 3}, ValueError, r"\(C, C\)"),
        ({"reference_hw": (0, 4)}, ValueError, "height of reference_hw .* got 0"),
        ({"reference_hw": (600, float("nan"))}, ValueError, "width of reference_hw .* got nan"),
        ({"reference_hw": 600}, ValueError, r"reference_hw must be \(height, width\) in pixels, or None; got 600"),
        ({"max_pixels": 0}, ValueError, "exact=True"),
        ({"max_pixels": float("nan")}, ValueError, "max_pixels must be a whole number of 1 or more; got nan: to never"),
        ({"backend": "cuda"}, ValueError, "'auto', 'torch' or 'numba'"),
    ],
)
def test_refuses_settings(settings: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        DenseCRF(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["appearance_weight", "smoothness_weight"])
def test_the_largest_weight_gives_numbers(name: str) -> None:
    for backend in ("torch", "numba"):
        assert DenseCRF(3, **{name: 1e30}, backend=backend)(GOOD_LOGITS, GOOD_IMAGE).isfinite().all()


@pytest.mark.parametrize("name", ["appearance_sigma_px", "appearance_sigma_colour", "smoothness_sigma_px"])
@pytest.mark.parametrize("value", [1e-7, 1e-40, 5e-324])
def test_sigmas_too_small_for_a_lattice_are_named(name: str, value: float) -> None:
    for backend in ("torch", "numba"):
        with pytest.raises(ValueError, match=rf"^{name} is too small: got .* 6x5 pixels.*: raise it$"):
            DenseCRF(1, **{name: value}, backend=backend)(GOOD_LOGITS, GOOD_IMAGE)


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 6, 5), (GOOD_IMAGE > 128).float()], ids=["black", "nearly black"])
def test_dark_photos_may_be_float(image: Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(DenseCRF(2)(GOOD_LOGITS, image), DenseCRF(2)(GOOD_LOGITS, image.byte()))


@pytest.mark.parametrize(
    ("probs", "error", "words"),
    [
        (GOOD_LOGITS, ValueError, "softmax"),
        (GOOD_LOGITS.softmax(1) * 0.9, ValueError, "sum to 1 over axis 1"),
        (GOOD_LOGITS.softmax(1) * float("nan"), ValueError, "sum to 1"),
        (GOOD_LOGITS.softmax(1).permute(0, 2, 3, 1), ValueError, "sum to 1 over axis 1"),
        (GOOD_LOGITS.argmax(1), TypeError, "float tensor"),
    ],
)
def test_refuses_probabilities(probs: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        DenseCRF().refine_probs(probs, GOOD_IMAGE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_takes_softmax_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    probs = torch.randn(1, 21, 60, 50).mul(3).softmax(1)
    torch.testing.assert_close(log_probabilities(probs.to(dtype)).exp(), probs, rtol=0.01, atol=1e-6)
    with pytest.raises(ValueError, match="sum to 1"):
        log_probabilities((0.97 * probs).to(dtype))


def test_prepared_logits_are_its_own() -> None:
    logits, image = scene()
    prepared = DenseCRF(2).prepare(logits[0].clone(), image[0])
    given = logits[0].clone()
    later = DenseCRF(2).prepare(given, image[0])
    given.zero_()
    prepared.refine(0).zero_()
    with torch.no_grad():
        expected = DenseCRF(2)(logits, image)[0]
    for each in (prepared, later):
        assert torch.equal(each.refine(0), logits[0])
        assert torch.equal(each.refine(2), expected)


@pytest.mark.parametrize("turned", [np.s_[:, ::-1], np.s_[::-1]], ids=["mirrored", "upside down"])
def test_views_of_photos_one_pixel_wide_are_read(turned: object) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (1, 1, 3), np.uint8)[turned]
    logits = torch.randn(1, 3, 1, 1)
    assert torch.equal(DenseCRF(1)(logits, photo[None]), DenseCRF(1)(logits, photo.copy()[None]))


def test_refuses_other_class_counts() -> None:
    with pytest.raises(ValueError, match="7 classes"):
        DenseCRF(num_classes=7)(*scene())


@pytest.mark.parametrize("size", [(3, 8), (8, 3)], ids=str)
def test_prepare_reads_both_layouts_of_small_photos(size: tuple[int, int]) -> None:
    logits, image = scene(*size)
    crf = DenseCRF(2)
    with torch.no_grad():
        expected = crf(logits, image)[0]
    for each in (image[0], image[0].permute(1, 2, 0)):
        assert torch.equal(crf.prepare(logits[0], each).refine(), expected)


def test_prepare_refuses() -> None:
    crf = DenseCRF()
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        crf.prepare(GOOD_LOGITS, GOOD_IMAGE[0])
    with pytest.raises(ValueError, match=r"\(3, 5, 5\) or \(5, 5, 3\).*got \(3, 6, 5\)"):
        crf.prepare(GOOD_LOGITS[0, :, :5], GOOD_IMAGE[0])
    with pytest.raises(ValueError, match=r"\(C, 6, 5\)"):
        crf.prepare(GOOD_LOGITS[0, :, :5], crf.photo(GOOD_IMAGE[0]))
    with pytest.raises(ValueError, match="keep"):
        crf.prepare(GOOD_LOGITS[0], GOOD_IMAGE[0], keep=0)
    with pytest.raises(ValueError, match="at least 0"):
        crf.prepare(GOOD_LOGITS[0], GOOD_IMAGE[0]).refine(-1)
