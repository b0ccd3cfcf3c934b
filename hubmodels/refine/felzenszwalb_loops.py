"""The compiled loops of Felzenszwalb's segmentation. Only `hubmodels.refine.felzenszwalb` calls them.

A forest is an (N,) int32 array: the parent of a pixel, or minus the number of pixels for the root of a segment.
An edge is one int32: four times its first pixel, plus the direction of its second one in `STEPS` order.
"""

# mypy: allow-untyped-defs
# (Numba infers the types of what it compiles, and accepts no annotations of its own in their place)

from __future__ import annotations

import numpy as np

from hubmodels.refine.compiled import jit

_DIGITS, _BITS = 6, 11  # of 64-bit keys: six passes over tables that stay in the first-level cache


@jit
def sort_order(costs):
    """(E,) int32: what sorts (E,) float64 costs of 0 or more, the first one first on a tie; a radix sort.

    Such numbers are in the order of their bits read as integers.
    """
    keys, order = costs.view(np.uint64).copy(), np.arange(costs.size).astype(np.int32)
    next_keys, next_order = np.empty_like(keys), np.empty_like(order)
    mask = np.uint64((1 << _BITS) - 1)
    counts = np.zeros((_DIGITS, 1 << _BITS), np.int64)
    for key in keys:
        for digit in range(_DIGITS):
            counts[digit, (key >> np.uint64(_BITS * digit)) & mask] += 1
    for digit in range(_DIGITS):
        places = counts[digit]
        if places.max() == costs.size:  # the same digit everywhere
            continue
        place = 0
        for value in range(places.size):
            count = places[value]
            places[value] = place
            place += count
        for i in range(keys.size):
            value = (keys[i] >> np.uint64(_BITS * digit)) & mask
            place = places[value]
            places[value] = place + 1
            next_keys[place], next_order[place] = keys[i], order[i]
        keys, next_keys = next_keys, keys
        order, next_order = next_order, order
    return order


@jit
def _root(forest, pixel):
    """The root of the segment of `pixel`; halves the path on its way."""
    up = forest[pixel]
    while up >= 0:
        above = forest[up]
        if above < 0:
            return np.uint32(up)
        forest[pixel] = above
        pixel = np.uint32(above)
        up = forest[pixel]
    return pixel


@jit
def _unite(forest, a, b):
    """Join the segments of two roots; returns the root of both."""
    if forest[a] > forest[b]:  # the larger segment has the lower entry
        a, b = b, a
    forest[a] += forest[b]
    forest[b] = np.int32(a)
    return a


@jit
def _ends(code, steps):
    pixel = np.uint32(code >> 2)
    return pixel, np.uint32(pixel + steps[code & 3])


@jit
def _steps(width):
    """From a pixel to its right, lower, lower right and lower left neighbour."""
    return np.array([1, width, width + 1, width - 1], np.uint32)


@jit
def _grow(codes, costs, steps, scale, min_size, forest):
    """Felzenszwalb & Huttenlocher 2004, algorithm 1; returns the refused edges at a segment that was still small."""
    bounds = np.full(forest.size, np.float32(scale), np.float32)  # Int(C) + tau(C); float32 as in scikit-image
    refused = np.empty(codes.size, np.int32)
    count = 0
    for e in range(codes.size):
        a, b = _ends(codes[e], steps)
        a, b = _root(forest, a), _root(forest, b)
        if a == b:
            continue
        cost = costs[e]
        if cost < bounds[a] and cost < bounds[b]:
            a = _unite(forest, a, b)
            bounds[a] = np.float32(cost + scale / -forest[a])
        elif -forest[a] < min_size or -forest[b] < min_size:  # segments only grow: other edges cannot matter later
            refused[count] = codes[e]
            count += 1
    return refused[:count]


@jit
def _join_small(codes, steps, min_size, forest):
    for code in codes:
        a, b = _ends(code, steps)
        a, b = _root(forest, a), _root(forest, b)
        if a != b and (-forest[a] < min_size or -forest[b] < min_size):
            _unite(forest, a, b)


@jit
def _number(forest, inside, first_id):
    """(N,) int32: segments numbered from `first_id` in the order of their first pixels; 0 where not `inside`."""
    numbers = np.full(forest.size, np.int32(-1), np.int32)
    ids = np.zeros(forest.size, np.int32)
    used = first_id
    for pixel in range(forest.size):
        if inside[pixel]:
            root = _root(forest, np.uint32(pixel))
            if numbers[root] < 0:
                numbers[root] = used
                used += 1
            ids[pixel] = numbers[root]
    return ids


@jit
def segment(codes, costs, inside, width, scale, min_size, first_id):
    """(N,) int32 ids from edges sorted by cost: codes (E,) int32, costs (E,) float64, inside (N,) bool."""
    steps = _steps(width)
    forest = np.full(inside.size, np.int32(-1), np.int32)
    refused = _grow(codes, costs, steps, scale, min_size, forest)
    _join_small(refused, steps, min_size, forest)
    return _number(forest, inside, first_id)


@jit
def join_pairs(one, other, sizes, min_size):
    """(K,) int32 new ids of segments of `sizes` pixels, after pairs (P,) int32 join where either side is too small."""
    forest = -sizes
    for i in range(one.size):
        a, b = _root(forest, np.uint32(one[i])), _root(forest, np.uint32(other[i]))
        if a != b and (-forest[a] < min_size or -forest[b] < min_size):
            _unite(forest, a, b)
    return _number(forest, np.ones(sizes.size, np.bool_), 0)
