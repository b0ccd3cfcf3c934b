"""Gaussian filtering in many dimensions on the permutohedral lattice.

After A. Adams, J. Baek and M. A. Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
Eurographics 2010: every point is written as a mix of the d + 1 corners of the simplex it lies in (splat), the
corners' values are blurred along the d + 1 axes of the lattice, and every point reads its corners back (slice).

The PyTorch code here runs on any device. On the CPU, float32 work goes to `hubmodels.refine.kernels` when
Numba is installed; both find the same simplices and agree within 1e-5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hubmodels.refine.compiled import load

Backend = Literal["auto", "torch", "numba"]
_KEY_BITS = 62  # an int64 key keeps its sign bit and one bit of room for the neighbours' arithmetic
DIMS_MAX = 18  # `_lay_out` reserves nine positions in each even for points at one place: 19 would never fit
_EXACT_INTEGERS = 2.0**22  # float32 still resolves quarters here; beyond it, points would be misplaced


def load_kernels() -> ModuleType | None:
    """The compiled CPU kernels, or None (logged once) where Numba cannot be imported."""
    return load("hubmodels.refine.kernels", without="CRF runs on plain PyTorch, several times slower")


def choose_kernels(backend: Backend, device: torch.device) -> ModuleType | None:
    """The kernels if `backend` and `device` allow them, else None for the PyTorch path.

    Raises: ValueError for an unknown backend, or "numba" where it cannot run.
    """
    if backend not in ("auto", "torch", "numba"):
        raise ValueError(f"backend must be 'auto', 'torch' or 'numba'; got {backend!r}")
    if backend == "torch" or (backend == "auto" and device.type != "cpu"):
        return None
    kernels = load_kernels() if device.type == "cpu" else None
    if backend == "numba" and kernels is None:
        raise ValueError(f"backend 'numba' needs Numba and CPU tensors; got device {device}: use backend='auto'")
    return kernels


@dataclass(frozen=True)
class _Layout:
    """How lattice points become int64 keys.

    All coordinates of a vertex leave the same remainder r when divided by d + 1, so its key is
    q @ strides * (d + 1) + r with q the quotients: no room is spent on repeating r. The last coordinate
    follows from the others (they sum to zero) and has stride 0. A step between the corners of a simplex or
    to a neighbour then is one addition to the key.
    """

    scale: Tensor  # (d,) float32 on the CPU: from standard deviations to lattice coordinates
    strides: tuple[int, ...]  # (d + 1,)
    origin: int  # makes the smallest q @ strides 0


def _scale_factors(dims: int) -> Tensor:
    """(d,) float32: Adams et al. 2010, section 3.1; the blur's own deviation is sqrt(2 / 3) * (d + 1)."""
    deviation = torch.tensor(math.sqrt(2.0 / 3.0) * (dims + 1), dtype=torch.float32, device="cpu").item()
    factors = [deviation / math.sqrt((i + 1) * (i + 2)) for i in range(dims)]
    return torch.tensor(factors, dtype=torch.float32, device="cpu")


def _lay_out(low: list[float], high: list[float]) -> _Layout:
    """Key layout for features within low..high (d values each).

    Raises: ValueError, naming the widest feature, if the keys do not fit.
    """
    dims = len(low)
    if dims > DIMS_MAX:
        raise ValueError(
            f"features must have at most {DIMS_MAX} dimensions; got {dims}: reduce them, for instance by PCA"
        )
    scale = _scale_factors(dims)
    factors = scale.tolist()
    least, most = [0.0] * (dims + 1), [0.0] * (dims + 1)
    for j in range(dims):  # column j of the lifting matrix: scale[j] in rows 0..j, -(j + 1) scale[j] in row j + 1
        for i in range(j + 2):
            factor = factors[j] if i <= j else -(j + 1) * factors[j]
            least[i] += min(factor * low[j], factor * high[j])
            most[i] += max(factor * low[j], factor * high[j])
    # three to spare: rounding onto the plane, the corner below, and the neighbour of that
    first = [math.floor(value / (dims + 1)) - 3 for value in least[:dims]]
    sizes = [math.ceil(value / (dims + 1)) + 4 - start for value, start in zip(most, first, strict=False)]
    bits = math.log2(dims + 1) + sum(math.log2(size) for size in sizes)
    if bits > _KEY_BITS or max(*map(abs, least), *map(abs, most)) > _EXACT_INTEGERS:
        extent = [max(abs(a), abs(b), b - a) for a, b in zip(low, high, strict=True)]
        widest = max(range(dims), key=extent.__getitem__)
        raise ValueError(
            f"features must fit lattice keys of {_KEY_BITS} bits and coordinates below {_EXACT_INTEGERS:.0f}; got "
            f"{bits:.0f} bits, and feature {widest} spans {low[widest]:g} to {high[widest]:g} standard deviations: "
            f"divide feature {widest} by a larger standard deviation, or subtract its mean"
        )
    strides = [math.prod(sizes[:i]) for i in range(dims)] + [0]
    return _Layout(scale, tuple(strides), -sum(a * b for a, b in zip(strides, first, strict=False)))


def _embed(features: Tensor, layout: _Layout) -> tuple[Tensor, Tensor]:
    """Keys (N, d + 1) int64 of the corners around each point and its barycentric weights (N, d + 1) float32.

    Adams et al. 2010, section 3.1. The order of the float32 operations is that of the CPU kernels.
    """
    points, dims = features.shape
    corners = dims + 1
    scale = layout.scale.to(features.device)
    lifted = features.new_empty(points, corners)
    running = features.new_zeros(points)
    for j in range(dims, 0, -1):
        component = features[:, j - 1] * scale[j - 1]
        lifted[:, j] = running - j * component
        running = running + component
    lifted[:, 0] = running

    # the nearest point of remainder 0, maybe off the plane
    steps = torch.round(lifted * scale.new_tensor(1.0 / corners))
    rest = lifted - steps * corners
    rank = torch.zeros_like(steps)
    for i in range(dims):
        for j in range(i + 1, corners):
            less = (rest[:, i] < rest[:, j]).to(rank.dtype)
            rank[:, i] += less
            rank[:, j] += 1 - less
    rank += steps.sum(dim=1, keepdim=True)
    turn = (rank < 0).to(rank.dtype) - (rank >= corners).to(rank.dtype)  # back onto the plane
    rank += turn * corners
    steps += turn
    rest = (rest - turn * corners) * scale.new_tensor(1.0 / corners)

    coordinate = rank.long().argsort(dim=1)  # the coordinate with rank 0, 1, ...; ranks are distinct
    ordered = rest.gather(1, coordinate)
    weights = torch.empty_like(lifted)
    weights[:, 0] = ordered[:, dims] + (1 - ordered[:, 0])
    weights[:, 1:] = (ordered[:, :dims] - ordered[:, 1:]).flip(1)

    strides = torch.tensor(layout.strides, dtype=torch.int64, device=features.device)
    key = (steps.long() * strides).sum(dim=1, keepdim=True) + layout.origin
    below = strides[coordinate].flip(1).cumsum(dim=1)[:, :dims]  # corner r lies one step below in the r last-ranked
    key = torch.cat([key, key - below], dim=1)
    return key * corners + torch.arange(corners, device=features.device), weights


def _link(keys: Tensor, strides: tuple[int, ...]) -> Tensor:
    """(d + 1, 2, M) int32: the vertices before and after each one along every axis; M where there is none."""
    corners, count = len(strides), keys.numel()
    remainder = keys % corners
    neighbours = []
    for stride in strides:
        up = keys - 1 + corners * stride + (remainder == 0) * (corners * (1 - sum(strides)))
        down = keys + 1 - corners * stride - (remainder == corners - 1) * (corners * (1 - sum(strides)))
        for wanted in (up, down):
            at = torch.searchsorted(keys, wanted).clamp(max=count - 1)
            neighbours.append(torch.where(keys[at] == wanted, at, count).int())
    return torch.stack(neighbours).view(corners, 2, count)


def refuse_tracing() -> None:
    """Raise RuntimeError within `torch.jit.trace`, which would keep the lattice of its one example as a constant."""
    if torch.jit.is_tracing():
        raise RuntimeError(
            "a permutohedral lattice cannot be traced, as it is built anew from the colours of each photo: trace the "
            "network without its CRF, and pass its logits on"
        )


def _checked(features: Tensor) -> Tensor:
    if not isinstance(features, Tensor):
        raise TypeError(f"features must be a torch.Tensor (N, d); got {type(features).__name__}: use torch.as_tensor")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must be (N, d) with at least one point and dimension; got {tuple(features.shape)}")
    if not features.is_floating_point():
        raise TypeError(f"features must be float32 standard deviations; got {features.dtype}: divide by the sigmas")
    if features.requires_grad:
        raise ValueError("the filter has no gradient to its features, and these require one: pass features.detach()")
    return features.float()


class PermutohedralLattice:
    """A Gaussian filter of unit standard deviation over N points in d dimensions: build once, filter often.

    `filter` computes out[i] ~ sum_j exp(-|f_i - f_j|^2 / 2) values[j], up to a constant factor that depends on
    d alone, in time that grows with N * d^2 rather than N^2. Divide by `filter` of ones for an average.

    Args:
        features: (N, d) float, each column divided by its standard deviation; d from 1 to 18 (tested to 6). Without
            gradient. float64 is rounded to float32.
        backend: "auto" takes the Numba kernels for CPU tensors when Numba is installed; "torch" and "numba" insist.

    Raises: TypeError or ValueError for features of another kind or shape, not finite, or so wide that lattice
        points do not fit int64 keys (the message names the feature to scale down).

    Attributes: vertex_ids (N, d + 1) int32, weights (N, d + 1) float32 (each row sums to 1), neighbours
        (d + 1, 2, M) int32 with M for "none"; points N, dims d, vertices M, device.

    Source: Adams, Baek & Davis 2010; constants (1 / (1 + 2^-d) on slicing) as in Kraehenbuehl & Koltun's code.
    """

    _cpu: Any  # a `kernels.CpuLattice`, once it is needed

    def __init__(self, features: Tensor, *, backend: Backend = "auto") -> None:
        features = _checked(features)
        self.backend: Backend = backend
        kernels = choose_kernels(backend, features.device)
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not be used in training later
            by_dimension = features.t().contiguous()  # no copy if the caller made it so
            extremes = torch.aminmax(by_dimension, dim=1)
            low, high = extremes.min.tolist(), extremes.max.tolist()
            if not all(map(math.isfinite, (*low, *high))):
                raise ValueError("features must be finite; got NaN or infinity: a standard deviation of 0, perhaps?")
            layout = _lay_out(low, high)
            if kernels is None:
                keys, weights = _embed(features, layout)
                distinct, ids = torch.unique(keys, return_inverse=True)
                self._set(ids.int(), weights, _link(distinct, layout.strides))
            else:
                strides = torch.tensor(layout.strides, dtype=torch.int64, device="cpu").numpy()
                arrays = kernels.build(by_dimension.numpy(), layout.scale.numpy(), strides, layout.origin)
                self._set(*map(torch.from_numpy, arrays))
                self._cpu = kernels.CpuLattice(*arrays, self.alpha)

    def _set(self, vertex_ids: Tensor, weights: Tensor, neighbours: Tensor) -> None:
        self.vertex_ids, self.weights, self.neighbours = vertex_ids, weights, neighbours
        self.points, corners = vertex_ids.shape
        self.dims, self.vertices = corners - 1, neighbours.shape[2]
        self._cpu = None
        self._sorted: tuple[Tensor, Tensor, Tensor] | None = None
        self._normaliser: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.weights.device

    @property
    def alpha(self) -> float:
        """The factor on slicing: blurring with (1/2, 1, 1/2) along d + 1 axes adds up to more than 1."""
        return 1.0 / (1.0 + 2.0**-self.dims)

    def to(self, device: torch.device | str) -> PermutohedralLattice:
        """The same lattice with its arrays on another device."""
        other = object.__new__(PermutohedralLattice)
        other.backend = "auto" if self.backend == "numba" else self.backend
        other._set(self.vertex_ids.to(device), self.weights.to(device), self.neighbours.to(device))
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again at first use."""
        return {**vars(self), "_cpu": None, "_sorted": None}

    def filter(self, values: Tensor) -> Tensor:
        """Gaussian-weighted sums of `values` around every point.

        Args:
            values: (N, C) float on the lattice's device. float64 is filtered in float64, everything else in float32.

        Returns: (N, C), same dtype, with gradient to `values`: the filter is linear, and its transpose is the
            same filter with the axes blurred in reverse order; forward-mode gradients too. Transforms of `torch.func`
            and `torch.jit.trace` are not supported.
        """
        refuse_tracing()
        if not isinstance(values, Tensor) or not values.is_floating_point():
            raise TypeError(f"values must be a float tensor (N, C); got {getattr(values, 'dtype', type(values))}")
        if values.ndim != 2 or values.shape[0] != self.points or values.shape[1] == 0:
            raise ValueError(f"values must be ({self.points}, C), a row for each point; got {tuple(values.shape)}")
        if values.device != self.device:
            raise ValueError(f"values must be on {self.device}; got {values.device}: use lattice.to(device)")
        working = values if values.dtype == torch.float64 else values.float()
        return _Filter.apply(working, self, False).to(values.dtype)

    def normaliser(self) -> Tensor:
        """(N,) float32: 1 / sqrt(row sum), computed once. K -> n K n is the symmetric normalisation of a kernel."""
        if self._normaliser is None:
            with torch.inference_mode(False), torch.no_grad():
                sums = self.filter(self.weights.new_ones(self.points, 1))[:, 0]
                self._normaliser = (sums + 1e-20).rsqrt()  # 1e-20 as in pydensecrf
        return self._normaliser

    def prepare_normaliser(self) -> None:
        """Compute now, in the form that the compiled or the PyTorch path wants, what would be computed at first use."""
        cpu = self.cpu_kernels()
        _ = self.normaliser() if cpu is None else cpu.normalised()

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that this lattice holds now."""
        held = [self.vertex_ids, self.weights, self.neighbours, self._normaliser, *(self._sorted or ())]
        own = sum(each.numel() * each.element_size() for each in held if each is not None)
        return own + (0 if self._cpu is None or self._cpu.scaled is None else self._cpu.scaled.nbytes)

    def cpu_kernels(self) -> Any:
        """This lattice as a `kernels.CpuLattice`, or None where the PyTorch path must be taken."""
        if self._cpu is None:
            kernels = choose_kernels(self.backend, self.device)
            if kernels is None:
                return None
            # Copies: a tensor that is sent to another process moves its memory, and views of it would be left dangling.
            tensors = (self.vertex_ids, self.weights, self.neighbours)
            self._cpu = kernels.CpuLattice(*(each.contiguous().numpy().copy() for each in tensors), self.alpha)
        return self._cpu

    def _by_vertex(self) -> tuple[Tensor, Tensor, Tensor]:
        """For splatting without collisions: points and weights sorted by vertex, and where each vertex begins."""
        if self._sorted is None:
            with torch.inference_mode(False), torch.no_grad():
                flat = self.vertex_ids.flatten().long()
                order = flat.argsort(stable=True)  # stable: the same order of summation on every run
                bounds = torch.arange(self.vertices, device=self.device)
                begins = torch.searchsorted(flat[order].contiguous(), bounds)
                self._sorted = order.div(self.dims + 1, rounding_mode="floor"), self.weights.flatten()[order], begins
        return self._sorted

    def _filter(self, values: Tensor, reverse: bool) -> Tensor:
        cpu = self.cpu_kernels() if values.dtype == torch.float32 else None
        if cpu is not None:
            return torch.from_numpy(cpu.filter(values.detach().contiguous().numpy(), reverse=reverse))
        points, weights, begins = self._by_vertex()
        mixed = F.embedding_bag(points, values, begins, mode="sum", per_sample_weights=weights.to(values.dtype))
        axes = range(self.dims, -1, -1) if reverse else range(self.dims + 1)
        for axis in axes:
            extended = torch.cat([mixed, mixed.new_zeros(1, mixed.shape[1])])  # the last row stands for "none"
            before, after = self.neighbours[axis]
            mixed = mixed + 0.5 * (extended[before] + extended[after])
        weights = self.weights.to(values.dtype)
        return F.embedding_bag(self.vertex_ids, mixed, mode="sum", per_sample_weights=weights) * self.alpha


class _Filter(torch.autograd.Function):
    """The filter and its transpose; each is the other's gradient, so any order of derivative works."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: PermutohedralLattice, reverse: bool) -> Tensor:
        ctx.lattice, ctx.reverse = lattice, reverse
        return lattice._filter(values, reverse)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Filter.apply(tangents[0], ctx.lattice, ctx.reverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Filter.apply(gradients[0], ctx.lattice, not ctx.reverse), None, None
