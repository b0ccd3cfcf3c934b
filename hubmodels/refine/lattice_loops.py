"""The compiled loops that build a lattice; `hubmodels.refine.kernels` calls them.

A loop works on points `start` to `stop` without the GIL. Arrays are C-contiguous; nothing here checks that.
"""

# mypy: allow-untyped-defs
# (Numba infers the types of what it compiles, and accepts no annotations of its own in their place)

from __future__ import annotations

import numpy as np

from hubmodels.refine.compiled import jit

_BLOCK = 256  # points embedded together: the scratch rows of one block stay in the first-level cache


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
