"""The compiled loops that filter on a lattice, and those of the mean-field step; `hubmodels.refine.kernels` calls them.

A loop works on pixels `start` to `stop` without the GIL. Per-class work goes in groups of eight (see
`hubmodels.refine.simd`); rows are padded with zeros to whole groups. Arrays are C-contiguous; nothing here checks that.
"""

# mypy: allow-untyped-defs
# (Numba infers the types of what it compiles, and accepts no annotations of its own in their place)

from __future__ import annotations

import numpy as np

from hubmodels.refine.compiled import jit
from hubmodels.refine.simd import (
    LANES,
    v_add,
    v_divide,
    v_exp,
    v_first_lane,
    v_fma,
    v_load,
    v_load_spread,
    v_max_of_lanes,
    v_maximum,
    v_multiply,
    v_spread,
    v_store,
    v_subtract,
    v_sum_of_lanes,
)

A_CORNERS, S_CORNERS = 6, 3  # corners of a simplex of the appearance (x, y, r, g, b) and smoothness (x, y) kernel
_BLOCK = 256  # rows that stay in the first-level cache while their planes are written

# ---- filtering -----------------------------------------------------------------------------------------
# `width` is the class count padded to whole groups; ids, weights and rows are flat, (points * corners) and
# (points * width). Offsets are spelt out because they go straight into the vector loads.


@jit
def _gather(ids, weights, values, width, corners, p, g, total):
    """total + the weighted sum of the vertices of point p, lanes g to g + 8."""
    for r in range(p * corners, (p + 1) * corners):
        total = v_fma(v_load_spread(weights, r), v_load(values, np.int64(ids[r]) * width + g), total)
    return total


@jit
def _scatter(ids, weights, row, out, width, corners, p, g):
    """Add the weighted row to the vertices of point p, lanes g to g + 8."""
    for r in range(p * corners, (p + 1) * corners):
        at = np.int64(ids[r]) * width + g
        v_store(out, at, v_fma(v_load_spread(weights, r), row, v_load(out, at)))


@jit
def splat(ids, weights, rows, step, width, corners, start, stop, out):
    """Scatter the rows of points start..stop; `step` is `width`, or 0 to splat the first row everywhere."""
    for p in range(start, stop):
        for g in range(0, width, LANES):
            _scatter(ids, weights, v_load(rows, p * step + g), out, width, corners, p, g)


@jit
def slice_back(ids, weights, values, width, corners, start, stop, out):
    """Gather the rows of points start..stop."""
    for p in range(start, stop):
        for g in range(0, width, LANES):
            v_store(out, p * width + g, _gather(ids, weights, values, width, corners, p, g, v_spread(np.float32(0.0))))


@jit
def blur(parts, first, last, neighbours, width, reverse, values, other):
    """Sum the threads' splats and blur them with (1/2, 1, 1/2) along each axis in turn.

    parts (T, (M + 1) * width): part t is zero outside the vertices first[t]..last[t] - 1 and zero everywhere
    afterwards, ready for the next splat. The answer is `values` or `other`, both of ((M + 1) * width) with a
    last row of zeros that stands for missing neighbours.
    """
    corners, _, count = neighbours.shape
    zero, half = v_spread(np.float32(0.0)), v_spread(np.float32(0.5))
    for at in range(0, values.size, LANES):
        v_store(values, at, zero)
    for t in range(parts.shape[0]):
        part = parts[t]
        for at in range(first[t] * width, last[t] * width, LANES):
            v_store(values, at, v_add(v_load(values, at), v_load(part, at)))
            v_store(part, at, zero)
    for step in range(corners):
        axis = corners - 1 - step if reverse else step
        before, after = neighbours[axis, 0], neighbours[axis, 1]
        for i in range(count):
            a, b = np.int64(before[i]) * width, np.int64(after[i]) * width
            for g in range(0, width, LANES):
                pair = v_add(v_load(values, a + g), v_load(values, b + g))
                v_store(other, i * width + g, v_fma(half, pair, v_load(values, i * width + g)))
        values, other = other, values
    return values


@jit
def normalise(ids, weights, values, corners, alpha, start, stop, out):
    """out <- weights / sqrt(row sum), each lane of `values` holding the filtered ones; as pydensecrf, plus 1e-20."""
    for p in range(start, stop):
        total = v_first_lane(_gather(ids, weights, values, LANES, corners, p, 0, v_spread(np.float32(0.0))))
        factor = np.float32(1.0) / np.sqrt(total * alpha + np.float32(1e-20))
        for r in range(p * corners, (p + 1) * corners):
            out[r] = weights[r] * factor


# ---- mean field ----------------------------------------------------------------------------------------


@jit
def pack(planes, width, start, stop, rows):
    """(C, N) planes to rows; the lanes past C get -inf, whose exp is 0."""
    count = planes.shape[0]
    for p in range(start, stop):
        for c in range(count):
            rows[p * width + c] = planes[c, p]
        for c in range(count, width):
            rows[p * width + c] = np.float32(-np.inf)


@jit
def unpack(rows, width, start, stop, planes):
    for block in range(start, stop, _BLOCK):
        end = block + _BLOCK if block + _BLOCK < stop else stop
        for c in range(planes.shape[0]):
            for p in range(block, end):
                planes[c, p] = rows[p * width + c]


@jit
def compare_labels(values, matrix, width):
    """values <- values @ matrix, row by row, for a flat (width * width) matrix.

    The compatibility acts on classes and slicing on pixels, so the two commute: the product is taken here,
    over some ten thousand vertices, instead of once for every pixel.
    """
    row = np.empty(width, np.float32)
    for at in range(0, values.size, width):
        for g in range(0, width, LANES):
            v_store(row, g, v_load(values, at + g))
        for g in range(0, width, LANES):
            total = v_spread(np.float32(0.0))
            for c in range(width):
                total = v_fma(v_load_spread(row, c), v_load(matrix, c * width + g), total)
            v_store(values, at + g, total)


@jit
def scale_by(values, factor):
    """The same for a multiple of the identity, that is for Potts."""
    for at in range(0, values.size, LANES):
        v_store(values, at, v_multiply(v_load(values, at), v_spread(factor)))


@jit
def _softmax_row(x, at, q, width):
    """q[:width] <- softmax of x[at : at + width]."""
    largest = v_load(x, at)
    for g in range(LANES, width, LANES):
        largest = v_maximum(largest, v_load(x, at + g))
    largest = v_max_of_lanes(largest)
    total = v_spread(np.float32(0.0))
    for g in range(0, width, LANES):
        value = v_exp(v_subtract(v_load(x, at + g), largest))
        v_store(q, g, value)
        total = v_add(total, value)
    total = v_sum_of_lanes(total)
    for g in range(0, width, LANES):
        v_store(q, g, v_divide(v_load(q, g), total))


@jit
def sweep(unary, x, x_step, width, start, stop, gather, scatter, appearance, smoothness):
    """One pass over pixels start..stop: x <- unary + messages (`gather`), splat softmax(x) (`scatter`).

    Slice, update and the next iteration's splat in one go, so that a pixel's distribution never leaves the
    first-level cache. Each kernel is (ids, weights / sqrt(row sums), values to slice, sums to splat into).
    x_step is `width`, or 0 when nobody needs x and one row of scratch will do.
    """
    ids_a, weights_a, in_a, out_a = appearance
    ids_s, weights_s, in_s, out_s = smoothness
    q = np.empty(width, np.float32)
    for p in range(start, stop):
        if width == LANES:  # up to eight classes stay in one register from slice to splat
            row = v_load(unary, p * LANES)
            if gather:
                row = _gather(ids_a, weights_a, in_a, LANES, A_CORNERS, p, 0, row)
                row = _gather(ids_s, weights_s, in_s, LANES, S_CORNERS, p, 0, row)
                v_store(x, p * x_step, row)
            if scatter:
                row = v_exp(v_subtract(row, v_max_of_lanes(row)))
                row = v_divide(row, v_sum_of_lanes(row))
                _scatter(ids_a, weights_a, row, out_a, LANES, A_CORNERS, p, 0)
                _scatter(ids_s, weights_s, row, out_s, LANES, S_CORNERS, p, 0)
            continue
        for g in range(0, width, LANES):
            row = v_load(unary, p * width + g)
            if gather:
                row = _gather(ids_a, weights_a, in_a, width, A_CORNERS, p, g, row)
                row = _gather(ids_s, weights_s, in_s, width, S_CORNERS, p, g, row)
            v_store(x, p * x_step + g, row)
        if scatter:
            _softmax_row(x, p * x_step, q, width)
            for g in range(0, width, LANES):
                _scatter(ids_a, weights_a, v_load(q, g), out_a, width, A_CORNERS, p, g)
                _scatter(ids_s, weights_s, v_load(q, g), out_s, width, S_CORNERS, p, g)
