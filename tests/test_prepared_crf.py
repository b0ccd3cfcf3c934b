"""The dense CRF under a slider: what is kept of a photo, and that nothing is computed twice."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hubmodels import bands
from hubmodels.refine import photo_kernels
from hubmodels.refine.crf import DenseCRF, log_probabilities
from hubmodels.refine.lattice import PermutohedralLattice
from hubmodels.refine.mean_field import MeanField
from hubmodels.refine.photo_kernels import PhotoKernels, forget_spatial_lattices
from tests.crf_scene import scene


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many iterations each computation ran."""
    calls: list[int] = []
    real = MeanField.run

    def run(self: MeanField, state: Tensor, iterations: int, *, keep: int = 1) -> list[Tensor]:
        calls.append(iterations)
        return real(self, state, iterations, keep=keep)

    monkeypatch.setattr(MeanField, "run", run)
    return calls


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_slider_computes_every_iteration_once(counted: list[int], backend: str) -> None:
    logits, image = scene(40, 30, classes=7)
    with torch.no_grad():
        once = {t: DenseCRF(t, backend=backend)(logits, image)[0] for t in (0, 2, 3, 5, 8)}
    tuner = DenseCRF(5, backend=backend).prepare(logits[0], image[0])
    counted.clear()
    for t in (5, 3, 5, 0, 2, 8, 5):
        assert torch.equal(tuner.refine(t), once[t])  # bit for bit, whatever the way there
    assert counted == [5, 3]
    assert tuner.kept_iterations == list(range(9))
    assert torch.equal(tuner.refine(), once[5])


def test_slider_memory_is_bounded(counted: list[int]) -> None:
    logits, image = scene()
    tuner = DenseCRF().prepare(logits[0], image[0], keep=4)
    one = 4 * 3 * 24 * 20
    for t in (3, 20, 6, 9, 40, 12):
        with torch.no_grad():
            assert torch.equal(tuner.refine(t), DenseCRF(t)(logits, image)[0])
        assert t in tuner.kept_iterations and tuner.nbytes <= 4 * one
    assert len(tuner.kept_iterations) == 5  # 0 is the logits themselves


def test_slider_hands_out_copies() -> None:
    logits, image = scene()
    tuner = DenseCRF().prepare(logits[0], image[0])
    tuner.refine(2).zero_()
    assert tuner.refine(2).abs().max() > 0


def test_slider_from_several_threads() -> None:
    logits, image = scene(40, 30)
    tuner = DenseCRF().prepare(logits[0], image[0])
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(tuner.refine, [t % 6 for t in range(24)]))
    for t in range(24):
        assert torch.equal(results[t], results[t % 6])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda crf: pickle.loads(pickle.dumps(crf))])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_copies_answer_the_same_and_keep_no_state(copied, backend: str) -> None:
    logits, image = scene()
    tuner = DenseCRF(backend=backend).prepare(logits[0], image[0], keep=4)
    expected = tuner.refine(3)
    other = copied(tuner)
    assert other.kept_iterations == [0] and tuner.kept_iterations != [0]
    assert torch.equal(other.refine(3), expected) and torch.equal(other.refine(), tuner.refine())


def test_photo_kernels_are_reused_for_other_weights() -> None:
    logits, image = scene()
    photo = DenseCRF().photo(image[0])
    for weight in (0.0, 4.0, 20.0):
        crf = DenseCRF(3, appearance_weight=weight)
        with torch.no_grad():
            assert torch.equal(crf.prepare(logits[0], photo).refine(), crf(logits, image)[0])
            assert torch.equal(crf(logits, [photo]), crf(logits, image))
    with pytest.raises(ValueError, match="sigmas"):
        DenseCRF(appearance_sigma_px=50)(logits, [photo])
    with pytest.raises(TypeError, match="got list"):
        crf(logits, [photo, photo])
    with pytest.raises(ValueError, match="sigmas"):
        DenseCRF(appearance_sigma_px=50).prepare(logits[0], photo)


def test_spatial_lattice_is_shared_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_kernels, "SPATIAL_CACHE_PIXELS", 1000)
    forget_spatial_lattices()
    built = []
    counting = lambda *args, **kwargs: built.append(1) or PermutohedralLattice(*args, **kwargs)  # noqa: E731
    monkeypatch.setattr(photo_kernels, "PermutohedralLattice", counting)
    crf = DenseCRF()
    photos = [crf.photo(scene(seed=seed)[1][0]) for seed in range(3)]
    assert photos[0].smoothness is photos[1].smoothness is photos[2].smoothness
    assert photos[0].appearance is not photos[1].appearance and len(built) == 4
    for height in (25, 26, 27):
        crf.photo(scene(height)[1][0])
    assert sum(lattice.points for lattice in photo_kernels._spatial.values()) <= 1000
    crf.photo(scene(60, 50)[1][0])  # larger than the whole cache: used, not kept
    assert not photo_kernels._spatial
    forget_spatial_lattices()


def test_documented_memory_of_a_photo(astronaut: np.ndarray) -> None:
    photo = DenseCRF(backend="numba").photo(astronaut[:300, :300])
    assert isinstance(photo, PhotoKernels)
    assert photo.appearance.nbytes + photo.smoothness.nbytes < 150 * 90_000
    assert photo.smoothness.nbytes < 50 * 90_000


def test_unaries_are_reused_for_other_weights_and_sigmas() -> None:
    logits, image = scene()
    for options in ({}, {"max_pixels": 300}):
        unaries = DenseCRF(**options).unaries(logits[0])
        for weight, reach in ((0.0, 20.0), (4.0, 20.0), (4.0, 50.0)):
            crf = DenseCRF(3, appearance_weight=weight, appearance_sigma_px=reach, **options)
            before = unaries.full.clone()
            assert torch.equal(crf.prepare(unaries, image[0]).refine(), crf.prepare(logits[0], image[0]).refine())
            crf.prepare(unaries, image[0]).refine().zero_()
            assert torch.equal(unaries.full, before)
    with pytest.raises(ValueError, match="working size"):
        DenseCRF().prepare(unaries, image[0])


@pytest.mark.parametrize("options", [{}, {"max_pixels": 300}], ids=["whole", "reduced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_are_the_softmax_of_logits(options: dict, dtype: torch.dtype, monkeypatch) -> None:
    """Of a reduced photo they are made by bands of rows: here of one row each."""
    monkeypatch.setattr(bands, "BAND_VALUES", 60)
    logits, image = scene()
    crf = DenseCRF(3, **options)
    for values in (logits[0].to(dtype), log_probabilities(logits[0].to(dtype).softmax(0))):
        prepared = crf.prepare(values, image[0])
        for t in (0, 2, 3, 2):
            got = prepared.refine_probs(t)
            assert got.dtype == dtype
            torch.testing.assert_close(got, prepared.refine(t).softmax(0))
            got.zero_()  # nothing of it is kept


@pytest.mark.parametrize("options", [{}, {"max_pixels": 300}], ids=["whole", "reduced"])
def test_probabilities_do_for_logits(options: dict) -> None:
    logits, image = scene()
    probs = F.one_hot(logits[0].argmax(0), 3).permute(2, 0, 1).float()  # zeros, too
    before = probs.clone()
    crf = DenseCRF(3, **options)
    taken, given = crf.unaries_of_probs(probs), crf.unaries(log_probabilities(probs))
    assert taken.full.data_ptr() == probs.data_ptr()
    torch.testing.assert_close(taken.working, given.working)
    prepared, expected = crf.prepare(taken, image[0]), crf.prepare(given, image[0])
    for t in (0, 1, 3):
        torch.testing.assert_close(prepared.refine(t), expected.refine(t), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(prepared.refine_probs(t), expected.refine_probs(t), rtol=1e-5, atol=1e-6)
        prepared.refine(t).zero_()
    assert torch.equal(probs, before)
    with pytest.raises(ValueError, match="sum to 1 over axis 0"):
        crf.unaries_of_probs(2 * probs)
    with pytest.raises(ValueError, match=r"a tensor \(C, H, W\) of one photo; got Tensor \(1, 3, 24, 20\)"):
        crf.unaries_of_probs(probs[None])
