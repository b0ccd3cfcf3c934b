"""CPU kernels of the permutohedral lattice and of the mean-field step, compiled by Numba at first use.

`hubmodels.refine.lattice` imports this module only when it needs it, so `import hubmodels.refine.crf`
neither imports Numba nor compiles anything. The first use on a machine compiles for about ten seconds. The
result is cached on disk beside this file, or in the user's cache folder when that is read-only (later
processes load it in about half a second); with no place to write, every process compiles. To have it ready,
as in a container image, refine any tiny photo once.

Two things make the kernels fast, and both shape the code:

* Every per-class loop works on a group of eight float32 at a time, as one LLVM vector: `hubmodels.refine.simd`.
* A kernel works on pixels `start` to `stop` without the GIL, and `hubmodels.refine.threads` runs one per part.

Rows are padded with zeros to whole groups of eight. Arrays are C-contiguous; nothing here checks that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hubmodels.refine import filter_loops, lattice_loops
from hubmodels.refine.simd import LANES
from hubmodels.refine.threads import parts_of, run


def build(
    features: NDArray[np.float32], scale: NDArray[np.float32], strides: NDArray[np.int64], origin: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Vertices and weights of every point, and the vertices' neighbours.

    Args:
        features: (d, N) float32, contiguous, in standard deviations.
        scale: (d,) float32 and strides: (d + 1,) int64 and origin: the key layout, from `PermutohedralLattice`.

    Returns: ids (N, d + 1) int32, barycentric weights (N, d + 1) float32, neighbours (d + 1, 2, M) int32.
        Vertices are numbered by first appearance whatever the number of threads, so results do not
        depend on it here; points close in the array use vertices close in memory.
    """
    dims, points = features.shape
    ids = np.empty((points, dims + 1), np.int32)
    weights = np.empty((points, dims + 1), np.float32)
    parts = parts_of(points)
    jobs = [partial(lattice_loops.embed, features, scale, strides, origin, a, b, ids, weights) for a, b in parts]
    found = run(jobs)
    new_ids, keys = lattice_loops.merge_keys(np.concatenate(found))
    if len(parts) > 1:
        starts = np.cumsum([0, *(len(part) for part in found)])
        spans = zip(parts[1:], starts[1:], strict=False)  # the first part's numbers already are the final ones
        jobs = [partial(lattice_loops.renumber, ids, a, b, new_ids[start:]) for (a, b), start in spans]
        neighbours = run([partial(lattice_loops.find_neighbours, keys, strides), *jobs])[0]
    else:
        neighbours = lattice_loops.find_neighbours(keys, strides)
    return ids, weights, neighbours


class CpuLattice:
    """The arrays of one lattice in the shape the kernels want, and the filter on them.

    Holds what it is given: ids (N, d + 1) int32, weights (N, d + 1) float32 and neighbours (d + 1, 2, M) int32 with M
    for "none", all contiguous, and no views of tensors, whose memory may move. Several threads may use it at once.
    """

    def __init__(
        self, ids: NDArray[np.int32], weights: NDArray[np.float32], neighbours: NDArray[np.int32], alpha: float
    ) -> None:
        self.points, self.corners = ids.shape
        self.vertices = neighbours.shape[2]
        self.ids, self.weights, self.neighbours = ids.reshape(-1), weights.reshape(-1), neighbours
        self.alpha = alpha
        self.scaled: NDArray[np.float32] | None = None

    def sums(self, width: int, parts: list[tuple[int, int]]) -> Sums:
        """Zeroed accumulators for splats of `width` lanes, one for each part, that is thread."""
        size = (self.vertices + 1) * width
        ids = [self.ids[a * self.corners : b * self.corners] for a, b in parts]
        return Sums(
            parts=parts,
            arrays=np.zeros((len(parts), size), np.float32),
            first=np.array([part.min() for part in ids], np.int64),
            last=np.array([part.max() + 1 for part in ids], np.int64),
            spare=(np.empty(size, np.float32), np.zeros(size, np.float32)),
        )

    def blur(self, sums: Sums, width: int, *, reverse: bool = False) -> NDArray[np.float32]:
        """The blurred sums (flat, one of `sums.spare`); the accumulators are zero again afterwards."""
        return filter_loops.blur(sums.arrays, sums.first, sums.last, self.neighbours, width, reverse, *sums.spare)

    def filter(self, values: NDArray[np.float32], *, reverse: bool = False) -> NDArray[np.float32]:
        """(N, C) float32 -> (N, C) float32: splat, blur, slice."""
        classes = values.shape[1]
        width = padded(classes)
        rows = np.zeros((self.points, width), np.float32)
        rows[:, :classes] = values
        out = np.empty_like(rows)
        sums = self.sums(width, parts_of(self.points))
        flat, shape = rows.reshape(-1), (width, width, self.corners)
        jobs = [
            partial(filter_loops.splat, self.ids, self.weights, flat, *shape, a, b, to) for (a, b), to in sums.jobs()
        ]
        run(jobs)
        blurred = self.blur(sums, width, reverse=reverse)
        jobs = [
            partial(
                filter_loops.slice_back, self.ids, self.weights, blurred, width, self.corners, a, b, out.reshape(-1)
            )
            for a, b in sums.parts
        ]
        run(jobs)
        return out[:, :classes] * np.float32(self.alpha)

    def normalised(self) -> NDArray[np.float32]:
        """Flat weights / sqrt(row sum of the kernel): splatting and slicing with them normalises symmetrically."""
        if self.scaled is None:
            sums, ones = self.sums(LANES, parts_of(self.points)), np.ones(LANES, np.float32)
            shape = (0, LANES, self.corners)
            run(
                [
                    partial(filter_loops.splat, self.ids, self.weights, ones, *shape, a, b, to)
                    for (a, b), to in sums.jobs()
                ]
            )
            blurred, out = self.blur(sums, LANES), np.empty_like(self.weights)
            common = (self.ids, self.weights, blurred, self.corners, np.float32(self.alpha))
            run([partial(filter_loops.normalise, *common, a, b, out) for a, b in sums.parts])
            self.scaled = out
        return self.scaled


@dataclass(frozen=True)
class Sums:
    """Accumulators: arrays[t] (flat) collects the points parts[t], which touch vertices first[t]..last[t] - 1."""

    parts: list[tuple[int, int]]
    arrays: NDArray[np.float32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    spare: tuple[NDArray[np.float32], NDArray[np.float32]]

    def jobs(self) -> list[tuple[tuple[int, int], NDArray[np.float32]]]:
        return list(zip(self.parts, self.arrays, strict=True))


def padded(classes: int) -> int:
    """The class count rounded up to whole groups of eight lanes."""
    return -(-classes // LANES) * LANES


def mean_field(
    logits: NDArray[np.float32],
    state: NDArray[np.float32],
    lattices: tuple[CpuLattice, CpuLattice],
    matrices: tuple[NDArray[np.float32], NDArray[np.float32]],
    *,
    iterations: int,
    keep: int,
) -> list[NDArray[np.float32]]:
    """Mean-field iterations (Kraehenbuehl & Koltun 2011, algorithm 1) over one photo.

    Args:
        logits: (C, N) float32, the negative unary energies.
        state: (C, N) float32, whose softmax is the distribution to start from; `logits` to start afresh.
        lattices: appearance (d = 5) and smoothness (d = 2).
        matrices: for each, (C, C) float32: messages are (normalised kernel @ Q) @ matrix, per pixel.
        iterations: at least 1.
        keep: how many of the last states to return, at least 1.

    Returns: states, that is refined logits (C, N) float32, oldest first; softmax over C gives the distribution.
    """
    field = _Field(lattices, matrices, *logits.shape)
    unary, afresh = field.rows(logits), state is logits
    # a state that is the last thing computed may overwrite the logits: fresh memory costs as much as a pass over it
    x = field.rows(state) if not afresh else unary if keep == 1 else np.empty_like(unary)
    field.sweep(unary if afresh else x, gather=False, scatter=True)
    kept = []
    for iteration in range(1, iterations + 1):
        field.exchange()
        wanted = iteration > iterations - keep
        field.sweep(unary, gather=True, scatter=iteration < iterations, into=x if wanted else None)
        if wanted:
            kept.append(field.planes(x))
    return kept


class _Field:
    """What the iterations over one photo share: its lattices, their accumulators, and the messages between pixels.

    Rows are flat, (points * width) float32, the classes of a pixel side by side.
    """

    def __init__(
        self,
        lattices: tuple[CpuLattice, CpuLattice],
        matrices: tuple[NDArray[np.float32], NDArray[np.float32]],
        classes: int,
        points: int,
    ) -> None:
        self._lattices, self._shape = lattices, (classes, points)
        self._width, self._parts = padded(classes), parts_of(points)
        self._sums = [lattice.sums(self._width, self._parts) for lattice in lattices]
        self._messages = [each.spare[1] for each in self._sums]  # not read by the first pass, which only splats
        self._scratch = np.empty((len(self._parts), self._width), np.float32)
        self._compatible = [self._compatibility(*pair) for pair in zip(lattices, matrices, strict=True)]

    def _compatibility(
        self, lattice: CpuLattice, matrix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], np.float32 | None]:
        """The matrix with the lattice's scale, flat and padded, and the number that does the same, if there is one."""
        classes = len(matrix)
        square = np.zeros((self._width, self._width), np.float32)
        square[:classes, :classes] = matrix * np.float32(lattice.alpha)
        diagonal = np.eye(classes, dtype=np.float32) * matrix[0, 0]
        return square.reshape(-1), square[0, 0] if np.array_equal(matrix, diagonal) else None

    def rows(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, N) as rows."""
        out = np.empty(planes.shape[1] * self._width, np.float32)
        run([partial(filter_loops.pack, planes, self._width, a, b, out) for a, b in self._parts])
        return out

    def planes(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows as (C, N)."""
        out = np.empty(self._shape, np.float32)
        run([partial(filter_loops.unpack, rows, self._width, a, b, out) for a, b in self._parts])
        return out

    def sweep(
        self, source: NDArray[np.float32], *, gather: bool, scatter: bool, into: NDArray[np.float32] | None = None
    ) -> None:
        """A pass of `filter_loops.sweep` over all pixels; what it makes of `source` is written if there is a place."""
        jobs = []
        for t, (a, b) in enumerate(self._parts):
            sides = [
                (lattice.ids, lattice.normalised(), message, each.arrays[t])
                for lattice, message, each in zip(self._lattices, self._messages, self._sums, strict=True)
            ]
            x, step = (self._scratch[t], 0) if into is None else (into, self._width)
            jobs.append(partial(filter_loops.sweep, source, x, step, self._width, a, b, gather, scatter, *sides))
        run(jobs)

    def exchange(self) -> None:
        """Make messages of what the pass before has splatted, on both lattices at once."""
        self._messages = run([partial(self._exchange_on, k) for k in range(len(self._lattices))])

    def _exchange_on(self, k: int) -> NDArray[np.float32]:
        blurred = self._lattices[k].blur(self._sums[k], self._width)
        matrix, factor = self._compatible[k]
        if factor is None:
            filter_loops.compare_labels(blurred, matrix, self._width)
        else:
            filter_loops.scale_by(blurred, factor)
        return blurred
