"""The permutohedral lattice against its slow twins, and both of its backends against each other."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

from hubmodels.refine.compiled import load
from hubmodels.refine.lattice import PermutohedralLattice
from tests import reference_crf as reference

BACKENDS = ["torch", "numba"]


def points(rng: np.random.Generator, count: int, dims: int, span: float = 4.0) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(0, span, (count, dims)).astype(np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dims", [1, 2, 3, 5, 6])
def test_equals_the_textbook_lattice(dims: int, backend: str, rng: np.random.Generator) -> None:
    features, values = points(rng, 60, dims), torch.from_numpy(rng.random((60, 3)).astype(np.float32))
    expected = reference.lattice_filter(features.numpy(), values.numpy())
    got = PermutohedralLattice(features, backend=backend).filter(values).numpy()
    # float32 places a point to about 1e-6 of a lattice step, and 60 values of up to 1 are summed
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("dims", "mean_error"), [(1, 0.01), (2, 0.01), (3, 0.015), (5, 0.03)])
def test_follows_the_exact_gaussian(dims: int, mean_error: float, rng: np.random.Generator) -> None:
    features, values = points(rng, 300, dims), rng.random((300, 3))
    ones = np.ones((300, 1))
    exact = reference.gaussian_filter(features.numpy(), values) / reference.gaussian_filter(features.numpy(), ones)
    lattice = PermutohedralLattice(features)
    ours = lattice.filter(torch.from_numpy(values)) / lattice.filter(torch.from_numpy(ones))
    # the lattice is an approximation: a textbook one measured 0.002 (2 dimensions) and 0.013 (5), values in 0..1
    assert np.abs(ours.numpy() - exact).mean() < mean_error


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    dims=st.integers(1, 6), count=st.integers(1, 300), classes=st.integers(1, 21),
    span=st.floats(0.01, 40), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_backends_agree(dims: int, count: int, classes: int, span: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = points(rng, count, dims, span) - span / 2
    values = torch.from_numpy(rng.normal(size=(count, classes)).astype(np.float32))
    slow, fast = (PermutohedralLattice(features, backend=backend) for backend in BACKENDS)
    assert fast.vertices == slow.vertices
    scale = slow.filter(values.abs()).abs().max()  # sums of either sign: relative to what is added up
    assert (fast.filter(values) - slow.filter(values)).abs().max() <= 1e-5 * scale  # the bar of issue 3


def test_backends_agree_on_ties() -> None:
    """Equal colours and whole-number places put points on the faces between simplices; both must choose alike."""
    grid = torch.cartesian_prod(*(torch.arange(6.0) for _ in range(3)))
    slow, fast = (PermutohedralLattice(grid, backend=backend) for backend in BACKENDS)
    assert fast.vertices == slow.vertices
    torch.testing.assert_close(fast.filter(grid), slow.filter(grid))


def test_threads_agree(rng: np.random.Generator) -> None:
    """20 000 points are enough for several parts; one merges them in order of appearance, so nothing moves."""
    features, values = points(rng, 20_000, 5), torch.from_numpy(rng.random((20_000, 7)).astype(np.float32))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            lattice = PermutohedralLattice(features, backend="numba")
            results.append((lattice.vertex_ids, lattice.neighbours, lattice.filter(values)))
    finally:
        torch.set_num_threads(before)
    for ids, neighbours, filtered in results[1:]:
        assert torch.equal(ids, results[0][0]) and torch.equal(neighbours, results[0][1])
        torch.testing.assert_close(filtered, results[0][2], rtol=1e-5, atol=1e-5)  # another order of float32 sums


@pytest.mark.parametrize("backend", BACKENDS)
def test_barycentric_weights(backend: str, rng: np.random.Generator) -> None:
    lattice = PermutohedralLattice(points(rng, 500, 5), backend=backend)
    assert lattice.weights.min() > -1e-5 and lattice.weights.max() < 1 + 1e-5  # rounding of float32 coordinates
    torch.testing.assert_close(lattice.weights.sum(dim=1), torch.ones(500), rtol=0, atol=1e-5)
    assert (lattice.points, lattice.dims, lattice.vertices) == (500, 5, lattice.neighbours.shape[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_are_mutual(backend: str, rng: np.random.Generator) -> None:
    neighbours = PermutohedralLattice(points(rng, 200, 3), backend=backend).neighbours
    count = neighbours.shape[2]
    assert (neighbours < count).any()
    for before, after in neighbours.long():
        has = after < count
        assert torch.equal(before[after[has]], torch.arange(count)[has])


def test_gradient_in_float64(rng: np.random.Generator) -> None:
    lattice = PermutohedralLattice(points(rng, 12, 3))
    values = torch.from_numpy(rng.random((12, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lattice.filter, values)
    assert torch.autograd.gradgradcheck(lattice.filter, values)


def test_gradient_of_the_kernels_is_their_transpose(rng: np.random.Generator) -> None:
    """<filter(a), b> = <a, filter'(b)>, in float32 through the compiled path."""
    lattice = PermutohedralLattice(points(rng, 400, 5), backend="numba")
    a, b = (torch.from_numpy(rng.random((400, 3)).astype(np.float32)).requires_grad_() for _ in range(2))
    filtered = lattice.filter(a)
    (filtered * b.detach()).sum().backward()
    torch.testing.assert_close((filtered.detach() * b.detach()).sum(), (a.detach() * a.grad).sum())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # PyTorch, of itself
@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_mode_gradient(backend: str, rng: np.random.Generator) -> None:
    lattice = PermutohedralLattice(points(rng, 40, 3), backend=backend)
    values, tangent = torch.rand(40, 2), torch.rand(40, 2)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(lattice.filter(forward_ad.make_dual(values, tangent))).tangent
    torch.testing.assert_close(found, lattice.filter(tangent))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_tracing_is_refused(rng: np.random.Generator) -> None:
    """The lattice of the example would be a constant of the traced function."""
    lattice = PermutohedralLattice(points(rng, 40, 3))
    with pytest.raises(RuntimeError, match="cannot be traced, as it is built anew"):
        torch.jit.trace(lattice.filter, (torch.rand(40, 2),))


def test_a_lattice_that_was_sent_to_another_process_still_works_here(rng: np.random.Generator) -> None:
    """Sending a tensor moves its memory: kernels that looked at the old place would read what came there since."""
    lattice, values = PermutohedralLattice(points(rng, 5000, 5), backend="numba"), torch.rand(5000, 3)
    other = pickle.loads(pickle.dumps(lattice))
    expected = lattice.filter(values)
    assert torch.equal(other.filter(values), expected)
    for each in (lattice, other):
        ForkingPickler.dumps(each)
        assert each.weights.is_shared()
        filled = [torch.full_like(each.vertex_ids, -1) for _ in range(8)]  # take the memory that became free
        assert torch.equal(each.filter(values), expected) and len(filled) == 8


def test_lattice_of_inference_mode_can_train(rng: np.random.Generator) -> None:
    with torch.inference_mode():
        lattice = PermutohedralLattice(points(rng, 50, 2))
        lattice.normaliser()
    values = torch.rand(50, 2, requires_grad=True)
    (lattice.normaliser()[:, None] * lattice.filter(values)).sum().backward()
    assert values.grad is not None


def test_every_tensor_names_its_device(rng: np.random.Generator) -> None:
    """With `meta` as the default device, a tensor made without a device would not mix with CPU features."""
    features, values = points(rng, 80, 5), torch.rand(80, 3, dtype=torch.float64)
    expected = PermutohedralLattice(features, backend="torch").filter(values)
    with torch.device("meta"):
        lattice = PermutohedralLattice(features, backend="torch")
        assert torch.equal(lattice.filter(values), expected)
        lattice.normaliser()


def test_filter_runs_where_its_arrays_are(rng: np.random.Generator) -> None:
    """On `meta` any array left on the CPU would raise."""
    lattice = PermutohedralLattice(points(rng, 80, 5)).to("meta")
    assert lattice.device.type == "meta"
    filtered = lattice.filter(torch.empty(80, 3, device="meta"))
    assert filtered.device.type == "meta" and filtered.shape == (80, 3)
    with pytest.raises(ValueError, match="must be on meta"):
        lattice.filter(torch.rand(80, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype, rng: np.random.Generator) -> None:
    lattice = PermutohedralLattice(points(rng, 40, 2))
    values = torch.from_numpy(rng.random((40, 2))).to(dtype)
    got = lattice.filter(values)
    assert got.dtype == dtype
    # half precision enters and leaves the filter rounded; 40 values of up to 1 keep sums under 40 * 2^-8
    torch.testing.assert_close(got.double(), lattice.filter(values.double()), rtol=0.01, atol=0.01)


def test_wide_features_say_which_to_scale() -> None:
    features = torch.zeros(4, 6)
    features[3] = torch.tensor([3.0, 9e3, 8e3, 1e6, 7e3, 9e3])
    for backend in BACKENDS:
        with pytest.raises(ValueError, match="divide feature 3 by a larger standard deviation"):
            PermutohedralLattice(features, backend=backend)


def test_largest_keys_that_fit() -> None:
    """Six dimensions of a hundred deviations: 60 bits or so of the 62."""
    features = torch.from_numpy(np.random.default_rng(1).uniform(-50, 50, (200, 6)).astype(np.float32))
    slow, fast = (PermutohedralLattice(features, backend=backend) for backend in BACKENDS)
    assert slow.vertices == fast.vertices
    torch.testing.assert_close(fast.filter(features), slow.filter(features), rtol=1e-5, atol=1e-3)


def test_eighteen_dimensions_fit() -> None:
    assert PermutohedralLattice(torch.rand(5, 18) * 0.01).dims == 18


@pytest.mark.parametrize(
    ("features", "error", "words"),
    [
        (np.zeros((3, 2)), TypeError, "torch.Tensor"),
        (torch.zeros(3), ValueError, r"\(N, d\)"),
        (torch.zeros(0, 2), ValueError, "at least one point"),
        (torch.zeros(3, 2, dtype=torch.uint8), TypeError, "divide by the sigmas"),
        (torch.full((3, 2), float("nan")), ValueError, "finite"),
        (torch.full((3, 2), float("inf")), ValueError, "finite"),
        (torch.zeros(3, 2, requires_grad=True), ValueError, "detach"),
        (torch.zeros(3, 19), ValueError, "at most 18 dimensions; got 19"),
    ],
)
def test_refuses_features(features: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PermutohedralLattice(features)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (torch.zeros(4, 2), ValueError, r"\(3, C\)"),
        (torch.zeros(3), ValueError, r"\(3, C\)"),
        (torch.zeros(3, 0), ValueError, r"\(3, C\)"),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError, "float"),
        (np.zeros((3, 2)), TypeError, "float"),
    ],
)
def test_refuses_values(values: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PermutohedralLattice(torch.zeros(3, 2)).filter(values)  # type: ignore[arg-type]


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="'auto', 'torch' or 'numba'"):
        PermutohedralLattice(torch.zeros(3, 2), backend="cuda")  # type: ignore[arg-type]


def test_without_numba_one_line_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "hubmodels.refine.kernels", None)  # makes its import fail
    monkeypatch.delattr("hubmodels.refine.kernels", raising=False)
    load.cache_clear()
    try:
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                PermutohedralLattice(torch.rand(10, 2)).filter(torch.rand(10, 1))
            with pytest.raises(ValueError, match="needs Numba"):
                PermutohedralLattice(torch.rand(10, 2), backend="numba")
        assert len(caplog.records) == 1 and "pip install numba" in caplog.text
    finally:
        load.cache_clear()


def test_import_neither_loads_nor_compiles() -> None:
    code = "import sys; import hubmodels.refine.crf; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
