"""The compiled loops of the lattice and of the mean-field step. Only `hubmodels.refine.kernels` calls them.

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
_BLOCK = 256  # pixels embedded together: the scratch rows of one block stay in the first-level cache


# ---- building the lattice ------------------------------------------------------------------------------


@jit
def _find_or_add(key, table_keys, table_ids, shift, next_id):
    """The id of `key` in an open-addressing table; a new key gets `next_id`."""
    mask = np.uint64(table_keys.size - 1)
    slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift)  # Fibonacci hashing
    while True:
        found = table_keys[slot]
        if found == key:
            return table_ids[slot]
        if found == -1:
            table_keys[slot] = key
            table_ids[slot] = next_id
            return next_id
        slot = (slot + np.uint64(1)) & mask


@jit
def _find(key, table_keys, table_ids, shift):
    """The id of `key`, or -1."""
    mask = np.uint64(table_keys.size - 1)
    slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift)
    while True:
        found = table_keys[slot]
        if found == key:
            return table_ids[slot]
        if found == -1:
            return np.int32(-1)
        slot = (slot + np.uint64(1)) & mask


@jit
def _table(keys, count, bits):
    """A hash table of 2^bits slots that holds the first `count` keys under their positions."""
    table_keys = np.empty(1 << bits, np.int64)
    table_ids = np.empty(1 << bits, np.int32)
    for slot in range(1 << bits):
        table_keys[slot] = -1
    for i in range(count):
        _find_or_add(keys[i], table_keys, table_ids, 64 - bits, np.int32(i))
    return table_keys, table_ids


@jit
def _doubled(keys, count):
    """The first `count` keys in an array of twice the size."""
    larger = np.empty(2 * keys.size, np.int64)
    for i in range(count):
        larger[i] = keys[i]
    return larger


@jit
def _embed_block(features, scale, start, count, elevated, rest, rank):
    """Find the simplex of `count` points: lattice steps in `elevated`, order in `rank`, offsets in `rest`.

    Adams, Baek & Davis 2010, section 3.1: lift to the plane of zero sum, round to the nearest point of
    remainder 0, rank the differences, and walk back onto the plane where the rounding left it.
    The order of the float32 operations is that of the PyTorch path, so that both find the same simplex.
    """
    d = features.shape[0]
    inverse = np.float32(1.0 / (d + 1))
    corners = np.float32(d + 1)
    one, zero = np.float32(1.0), np.float32(0.0)
    total = rest[d + 1]  # one spare row: first the running sum, then the sum of the rounded coordinates
    for p in range(count):
        total[p] = zero
    for j in range(d, 0, -1):
        factor, times = scale[j - 1], np.float32(j)
        row, out = features[j - 1], elevated[j]
        for p in range(count):
            component = row[start + p] * factor
            out[p] = total[p] - times * component
            total[p] += component
    for p in range(count):
        elevated[0, p] = total[p]
        total[p] = zero
    for i in range(d + 1):
        out, left, order = elevated[i], rest[i], rank[i]
        for p in range(count):
            value = out[p]
            rounded = np.rint(value * inverse)
            left[p] = value - rounded * corners
            out[p] = rounded
            total[p] += rounded
            order[p] = zero
    for i in range(d):
        for j in range(i + 1, d + 1):
            a, b, rank_a, rank_b = rest[i], rest[j], rank[i], rank[j]
            for p in range(count):
                less = one if a[p] < b[p] else zero
                rank_a[p] += less
                rank_b[p] += one - less
    for i in range(d + 1):
        out, left, order = elevated[i], rest[i], rank[i]
        for p in range(count):
            position = order[p] + total[p]
            turn = (one if position < zero else zero) - (one if position >= corners else zero)
            order[p] = position + turn * corners
            out[p] += turn
            left[p] = (left[p] - turn * corners) * inverse


@jit
def embed(features, scale, strides, origin, start, stop, ids, weights):
    """Corners and barycentric weights of points start..stop; returns the new vertices' keys, in order of appearance.

    features (d, N) float32; scale (d,) float32; strides (d + 1,) int64, the last 0; ids (N, d + 1) int32 and
    weights (N, d + 1) float32 are written. Keys: see `PermutohedralLattice`.
    """
    d = features.shape[0]
    elevated = np.empty((d + 1, _BLOCK), np.float32)
    rest = np.empty((d + 2, _BLOCK), np.float32)
    rank = np.empty((d + 1, _BLOCK), np.float32)
    by_rank = np.empty(d + 2, np.float32)
    coordinate = np.empty(d + 1, np.int64)
    bits = 15
    keys = np.empty(1 << (bits - 2), np.int64)  # a table at most a quarter full finds most keys at the first slot
    used = 0
    table_keys, table_ids = _table(keys, 0, bits)
    for block in range(start, stop, _BLOCK):
        count = _BLOCK if block + _BLOCK < stop else stop - block
        _embed_block(features, scale, block, count, elevated, rest, rank)
        for p in range(count):
            key = origin
            for i in range(d + 1):
                position = np.uint64(np.int64(rank[i, p]))  # unsigned indices need no check for negative ones
                by_rank[position] = rest[i, p]
                coordinate[position] = i
                key += strides[i] * np.int64(elevated[i, p])
            if used + d + 1 > keys.size:
                bits += 1
                keys = _doubled(keys, used)
                table_keys, table_ids = _table(keys, used, bits)
            for r in range(d + 1):
                packed = key * (d + 1) + r
                found = _find_or_add(packed, table_keys, table_ids, 64 - bits, np.int32(used))
                if found == used:
                    keys[used] = packed
                    used += 1
                ids[block + p, r] = found
                if r == 0:
                    weights[block + p, 0] = by_rank[d] + (np.float32(1.0) - by_rank[0])
                else:
                    weights[block + p, r] = by_rank[d - r] - by_rank[d - r + 1]
                key -= strides[coordinate[d - r]]
    return keys[:used]


@jit
def merge_keys(keys):
    """Number the distinct keys by first appearance: (ids of `keys`, distinct keys)."""
    bits = 4
    while (1 << bits) < 2 * keys.size:
        bits += 1
    table_keys, table_ids = _table(keys, 0, bits)
    ids = np.empty(keys.size, np.int32)
    distinct = np.empty(keys.size, np.int64)
    used = 0
    for i in range(keys.size):
        ids[i] = _find_or_add(keys[i], table_keys, table_ids, 64 - bits, np.int32(used))
        if ids[i] == used:
            distinct[used] = keys[i]
            used += 1
    return ids, distinct[:used]


@jit
def renumber(ids, start, stop, new_ids):
    for p in range(start, stop):
        for r in range(ids.shape[1]):
            ids[p, r] = new_ids[ids[p, r]]


@jit
def find_neighbours(keys, strides):
    """(d + 1, 2, M) int32 ids of both neighbours along every axis; M where there is none."""
    corners = strides.size
    count = keys.size
    bits = 4
    while (1 << bits) < 2 * count:
        bits += 1
    table_keys, table_ids = _table(keys, count, bits)
    out = np.empty((corners, 2, count), np.int32)
    total = np.int64(0)
    for axis in range(corners):
        total += strides[axis]
        for i in range(count):
            out[axis, 0, i] = out[axis, 1, i] = np.int32(count)
    for axis in range(corners):
        for i in range(count):
            remainder = keys[i] % corners
            key = keys[i] - 1 + corners * strides[axis]
            if remainder == 0:
                key += corners * (1 - total)
            found = _find(key, table_keys, table_ids, 64 - bits)
            if found >= 0:
                out[axis, 0, i] = found
                out[axis, 1, found] = i
    return out


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
    for block in range(start, stop, _BLOCK):  # a block of rows stays cached while its planes are written
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
