"""CPU kernels of the permutohedral lattice and of the mean-field step, compiled by Numba at first use.

`hubmodels.refine.lattice` imports this module only when it needs it, so `import hubmodels.refine.crf`
neither imports Numba nor compiles anything. The first use on a machine compiles for about ten seconds. The
result is cached on disk beside this file, or in the user's cache folder when that is read-only (later
processes load it in about half a second); with no place to write, every process compiles. To have it ready,
as in a container image, refine any tiny photo once.

Two things make the kernels fast, and both shape the code:

* Every per-class loop works on a group of eight float32 at a time, as one LLVM vector (`F32x8` below).
  Numba's own loop vectoriser gives up on these loops because it cannot prove that the scattered rows do
  not overlap. LLVM splits the vectors for machines with narrower registers, so this is not tied to AVX.
* A kernel works on pixels `start` to `stop` without the GIL, and Python threads run one kernel per part.
  Numba's own threads are not used: its default layers either abort when two threads call them at once
  (a web demo does) or after a fork (a data loader does). The number of threads is `torch.get_num_threads()`.

Rows are padded with zeros to whole groups of eight. Arrays are C-contiguous; nothing here checks that.
"""

# mypy: allow-untyped-defs
# (Numba infers the types of what it compiles, and accepts no annotations of its own in their place)

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

LANES = 8
A_CORNERS, S_CORNERS = 6, 3  # corners of a simplex of the appearance (x, y, r, g, b) and smoothness (x, y) kernel
_BLOCK = 256  # pixels embedded together: the scratch rows of one block stay in the first-level cache
_FLUSH = -46.0  # exp of less counts as 0 (1e-20): products with it would be denormal, and those are slow
_LN2 = 0.6931471805599453


_intrinsic: Any = intrinsic  # as Any: checkers see a call with a typing context, compiled code calls without one


def _jit(function: Callable[..., Any]) -> Any:
    """Compile on first call, without the GIL and, where a cache folder can be written, only once per machine."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no locator: neither this folder nor the user's cache folder is writable
        return njit(nogil=True, error_model="numpy")(function)


# ---- eight float32 as one value ------------------------------------------------------------------------


class _F32x8(types.Type):
    def __init__(self) -> None:
        super().__init__(name="F32x8")


_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
F32x8 = _F32x8()


@register_model(_F32x8)
class _F32x8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, _VECTOR)


def _element_pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)


def _in_all_lanes(builder: Any, scalar: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * LANES))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.v8f32")
    return builder.call(function, [a, b, c])


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@_intrinsic
def _load(typing_context, array, offset):
    """Elements offset to offset + 8 of a 1-D float32 array."""

    def codegen(context, builder, signature, args):
        pointer = _element_pointer(context, builder, signature.args[0], *args)
        value = builder.load(pointer)
        value.align = 4  # rows begin at any float
        return value

    return F32x8(array, types.intp), codegen


@_intrinsic
def _store(typing_context, array, offset, vector):
    """Write eight values from `offset` on."""

    def codegen(context, builder, signature, args):
        pointer = _element_pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], pointer).align = 4
        return context.get_dummy_value()

    return types.none(array, types.intp, F32x8), codegen


@_intrinsic
def _spread(typing_context, scalar):
    """The same float32 in all eight lanes."""

    def codegen(context, builder, signature, args):
        return _in_all_lanes(builder, args[0])

    return F32x8(types.float32), codegen


@_intrinsic
def _load_spread(typing_context, array, offset):
    """One element of a 1-D float32 array in all eight lanes."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return _in_all_lanes(builder, builder.load(builder.gep(data, [args[1]])))

    return F32x8(array, types.intp), codegen


@_intrinsic
def _fma(typing_context, a, b, c):
    """a * b + c."""

    def codegen(context, builder, signature, args):
        return _multiply_add(builder, *args)

    return F32x8(F32x8, F32x8, F32x8), codegen


@_intrinsic
def _first_lane(typing_context, vector):
    """The first of eight float32."""

    def codegen(context, builder, signature, args):
        return builder.extract_element(args[0], ir.Constant(ir.IntType(32), 0))

    return types.float32(F32x8), codegen


def _binary(emit: Callable[[Any, Any, Any], Any]) -> Any:
    """A function of two vectors from the one LLVM step that `emit` writes."""

    @_intrinsic
    def operation(typing_context, a, b):
        return F32x8(F32x8, F32x8), lambda context, builder, signature, args: emit(builder, *args)

    return operation


def _across(combine: Callable[[Any, Any, Any], Any]) -> Any:
    """A function that combines all eight lanes and leaves the result in each of them."""

    @_intrinsic
    def operation(typing_context, vector):
        def codegen(context, builder, signature, args):
            value = args[0]
            for step in (4, 2, 1):
                lanes = ir.Constant(_INTS, [lane ^ step for lane in range(LANES)])
                value = combine(builder, value, builder.shuffle_vector(value, value, lanes))
            return value

        return F32x8(F32x8), codegen

    return operation


_add = _binary(lambda builder, a, b: builder.fadd(a, b))
_subtract = _binary(lambda builder, a, b: builder.fsub(a, b))
_multiply = _binary(lambda builder, a, b: builder.fmul(a, b))
_divide = _binary(lambda builder, a, b: builder.fdiv(a, b))
_maximum = _binary(_larger)
_max_of_lanes = _across(_larger)
_sum_of_lanes = _across(lambda builder, a, b: builder.fadd(a, b))


@_intrinsic
def _exp(typing_context, vector):
    """exp(x) for x <= 0, relative error under 3e-7; x below -46 gives 0.

    exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2, where the Taylor polynomial of degree 7
    is off by less than 6e-9.
    """

    def codegen(context, builder, signature, args):
        x = _larger(builder, args[0], _constant(_FLUSH))
        shift = _constant(1.5 * 2.0**23)  # adding it leaves round(x / ln 2) in the low bits of the mantissa
        shifted = _multiply_add(builder, x, _constant(1.0 / _LN2), shift)
        n = builder.fsub(shifted, shift)
        high = 0.693359375  # ln 2 in two parts; n * high is exact because `high` has few bits
        r = _multiply_add(builder, n, _constant(-high), x)
        r = _multiply_add(builder, n, _constant(high - _LN2), r)
        factorial = 5040.0
        polynomial = _constant(1.0 / factorial)
        for degree in range(7, 0, -1):
            factorial /= degree
            polynomial = _multiply_add(builder, polynomial, r, _constant(1.0 / factorial))
        exponent = builder.sub(builder.bitcast(shifted, _INTS), builder.bitcast(shift, _INTS))
        exponent = builder.add(exponent, ir.Constant(_INTS, [127] * LANES))
        exponent = builder.shl(exponent, ir.Constant(_INTS, [23] * LANES))
        value = builder.fmul(polynomial, builder.bitcast(exponent, _VECTOR))
        return builder.select(builder.fcmp_ordered(">", args[0], _constant(_FLUSH)), value, _constant(0.0))

    return F32x8(F32x8), codegen


# ---- building the lattice ------------------------------------------------------------------------------


@_jit
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


@_jit
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


@_jit
def _table(keys, count, bits):
    """A hash table of 2^bits slots that holds the first `count` keys under their positions."""
    table_keys = np.empty(1 << bits, np.int64)
    table_ids = np.empty(1 << bits, np.int32)
    for slot in range(1 << bits):
        table_keys[slot] = -1
    for i in range(count):
        _find_or_add(keys[i], table_keys, table_ids, 64 - bits, np.int32(i))
    return table_keys, table_ids


@_jit
def _doubled(keys, count):
    """The first `count` keys in an array of twice the size."""
    larger = np.empty(2 * keys.size, np.int64)
    for i in range(count):
        larger[i] = keys[i]
    return larger


@_jit
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


@_jit
def _embed(features, scale, strides, origin, start, stop, ids, weights):
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


@_jit
def _merge(keys):
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


@_jit
def _renumber(ids, start, stop, new_ids):
    for p in range(start, stop):
        for r in range(ids.shape[1]):
            ids[p, r] = new_ids[ids[p, r]]


@_jit
def _neighbours(keys, strides):
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


@_jit
def _gather(ids, weights, values, width, corners, p, g, total):
    """total + the weighted sum of the vertices of point p, lanes g to g + 8."""
    for r in range(p * corners, (p + 1) * corners):
        total = _fma(_load_spread(weights, r), _load(values, np.int64(ids[r]) * width + g), total)
    return total


@_jit
def _scatter(ids, weights, row, out, width, corners, p, g):
    """Add the weighted row to the vertices of point p, lanes g to g + 8."""
    for r in range(p * corners, (p + 1) * corners):
        at = np.int64(ids[r]) * width + g
        _store(out, at, _fma(_load_spread(weights, r), row, _load(out, at)))


@_jit
def _splat(ids, weights, rows, step, width, corners, start, stop, out):
    """Scatter the rows of points start..stop; `step` is `width`, or 0 to splat the first row everywhere."""
    for p in range(start, stop):
        for g in range(0, width, LANES):
            _scatter(ids, weights, _load(rows, p * step + g), out, width, corners, p, g)


@_jit
def _slice(ids, weights, values, width, corners, start, stop, out):
    """Gather the rows of points start..stop."""
    for p in range(start, stop):
        for g in range(0, width, LANES):
            _store(out, p * width + g, _gather(ids, weights, values, width, corners, p, g, _spread(np.float32(0.0))))


@_jit
def _blur(parts, first, last, neighbours, width, reverse, values, other):
    """Sum the threads' splats and blur them with (1/2, 1, 1/2) along each axis in turn.

    parts (T, (M + 1) * width): part t is zero outside the vertices first[t]..last[t] - 1 and zero everywhere
    afterwards, ready for the next splat. The answer is `values` or `other`, both of ((M + 1) * width) with a
    last row of zeros that stands for missing neighbours.
    """
    corners, _, count = neighbours.shape
    zero, half = _spread(np.float32(0.0)), _spread(np.float32(0.5))
    for at in range(0, values.size, LANES):
        _store(values, at, zero)
    for t in range(parts.shape[0]):
        part = parts[t]
        for at in range(first[t] * width, last[t] * width, LANES):
            _store(values, at, _add(_load(values, at), _load(part, at)))
            _store(part, at, zero)
    for step in range(corners):
        axis = corners - 1 - step if reverse else step
        before, after = neighbours[axis, 0], neighbours[axis, 1]
        for i in range(count):
            a, b = np.int64(before[i]) * width, np.int64(after[i]) * width
            for g in range(0, width, LANES):
                pair = _add(_load(values, a + g), _load(values, b + g))
                _store(other, i * width + g, _fma(half, pair, _load(values, i * width + g)))
        values, other = other, values
    return values


@_jit
def _normalise(ids, weights, values, corners, alpha, start, stop, out):
    """out <- weights / sqrt(row sum), each lane of `values` holding the filtered ones; as pydensecrf, plus 1e-20."""
    for p in range(start, stop):
        total = _first_lane(_gather(ids, weights, values, LANES, corners, p, 0, _spread(np.float32(0.0))))
        factor = np.float32(1.0) / np.sqrt(total * alpha + np.float32(1e-20))
        for r in range(p * corners, (p + 1) * corners):
            out[r] = weights[r] * factor


# ---- mean field ----------------------------------------------------------------------------------------


@_jit
def _pack(planes, width, start, stop, rows):
    """(C, N) planes to rows; the lanes past C get -inf, whose exp is 0."""
    count = planes.shape[0]
    for p in range(start, stop):
        for c in range(count):
            rows[p * width + c] = planes[c, p]
        for c in range(count, width):
            rows[p * width + c] = np.float32(-np.inf)


@_jit
def _unpack(rows, width, start, stop, planes):
    for block in range(start, stop, _BLOCK):  # a block of rows stays cached while its planes are written
        end = block + _BLOCK if block + _BLOCK < stop else stop
        for c in range(planes.shape[0]):
            for p in range(block, end):
                planes[c, p] = rows[p * width + c]


@_jit
def _compare_labels(values, matrix, width):
    """values <- values @ matrix, row by row, for a flat (width * width) matrix.

    The compatibility acts on classes and slicing on pixels, so the two commute: the product is taken here,
    over some ten thousand vertices, instead of once for every pixel.
    """
    row = np.empty(width, np.float32)
    for at in range(0, values.size, width):
        for g in range(0, width, LANES):
            _store(row, g, _load(values, at + g))
        for g in range(0, width, LANES):
            total = _spread(np.float32(0.0))
            for c in range(width):
                total = _fma(_load_spread(row, c), _load(matrix, c * width + g), total)
            _store(values, at + g, total)


@_jit
def _scale(values, factor):
    """The same for a multiple of the identity, that is for Potts."""
    for at in range(0, values.size, LANES):
        _store(values, at, _multiply(_load(values, at), _spread(factor)))


@_jit
def _softmax_row(x, at, q, width):
    """q[:width] <- softmax of x[at : at + width]."""
    largest = _load(x, at)
    for g in range(LANES, width, LANES):
        largest = _maximum(largest, _load(x, at + g))
    largest = _max_of_lanes(largest)
    total = _spread(np.float32(0.0))
    for g in range(0, width, LANES):
        value = _exp(_subtract(_load(x, at + g), largest))
        _store(q, g, value)
        total = _add(total, value)
    total = _sum_of_lanes(total)
    for g in range(0, width, LANES):
        _store(q, g, _divide(_load(q, g), total))


@_jit
def _mean_field(unary, x, x_step, width, start, stop, gather, scatter, appearance, smoothness):
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
            row = _load(unary, p * LANES)
            if gather:
                row = _gather(ids_a, weights_a, in_a, LANES, A_CORNERS, p, 0, row)
                row = _gather(ids_s, weights_s, in_s, LANES, S_CORNERS, p, 0, row)
                _store(x, p * x_step, row)
            if scatter:
                row = _exp(_subtract(row, _max_of_lanes(row)))
                row = _divide(row, _sum_of_lanes(row))
                _scatter(ids_a, weights_a, row, out_a, LANES, A_CORNERS, p, 0)
                _scatter(ids_s, weights_s, row, out_s, LANES, S_CORNERS, p, 0)
            continue
        for g in range(0, width, LANES):
            row = _load(unary, p * width + g)
            if gather:
                row = _gather(ids_a, weights_a, in_a, width, A_CORNERS, p, g, row)
                row = _gather(ids_s, weights_s, in_s, width, S_CORNERS, p, g, row)
            _store(x, p * x_step + g, row)
        if scatter:
            _softmax_row(x, p * x_step, q, width)
            for g in range(0, width, LANES):
                _scatter(ids_a, weights_a, _load(q, g), out_a, width, A_CORNERS, p, g)
                _scatter(ids_s, weights_s, _load(q, g), out_s, width, S_CORNERS, p, g)


# ---- threads -------------------------------------------------------------------------------------------

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None  # a forked child inherits the pool's bookkeeping but none of its threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _run(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """The jobs' results; all run at the same time, the first one in the calling thread."""
    global _pool
    if len(jobs) > 1 and _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="hubmodels-crf")
    waiting = [_pool.submit(job) for job in jobs[1:]] if _pool is not None and len(jobs) > 1 else []
    first = jobs[0]()
    return [first, *(future.result() for future in waiting)]


def _parts(points: int) -> list[tuple[int, int]]:
    """Equal ranges of points, one for each of PyTorch's threads; a part under 4096 is not worth a thread."""
    count = max(1, min(torch.get_num_threads(), points // 4096))
    edges = [points * i // count for i in range(count + 1)]
    return list(pairwise(edges))


# ---- what the lattice and the CRF call -----------------------------------------------------------------


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
    parts = _parts(points)
    jobs = [partial(_embed, features, scale, strides, origin, a, b, ids, weights) for a, b in parts]
    found = _run(jobs)
    new_ids, keys = _merge(np.concatenate(found))
    if len(parts) > 1:
        starts = np.cumsum([0, *(len(part) for part in found)])
        spans = zip(parts[1:], starts[1:], strict=False)  # the first part's numbers already are the final ones
        jobs = [partial(_renumber, ids, a, b, new_ids[start:]) for (a, b), start in spans]
        neighbours = _run([partial(_neighbours, keys, strides), *jobs])[0]
    else:
        neighbours = _neighbours(keys, strides)
    return ids, weights, neighbours


class CpuLattice:
    """The arrays of one lattice in the shape the kernels want, and the filter on them.

    Holds views of what it is given: ids (N, d + 1) int32, weights (N, d + 1) float32 and neighbours
    (d + 1, 2, M) int32 with M for "none", all contiguous. Safe to use from several threads at once.
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
        return _blur(sums.arrays, sums.first, sums.last, self.neighbours, width, reverse, *sums.spare)

    def filter(self, values: NDArray[np.float32], *, reverse: bool = False) -> NDArray[np.float32]:
        """(N, C) float32 -> (N, C) float32: splat, blur, slice."""
        classes = values.shape[1]
        width = padded(classes)
        rows = np.zeros((self.points, width), np.float32)
        rows[:, :classes] = values
        out = np.empty_like(rows)
        sums = self.sums(width, _parts(self.points))
        flat, shape = rows.reshape(-1), (width, width, self.corners)
        jobs = [partial(_splat, self.ids, self.weights, flat, *shape, a, b, to) for (a, b), to in sums.jobs()]
        _run(jobs)
        blurred = self.blur(sums, width, reverse=reverse)
        jobs = [
            partial(_slice, self.ids, self.weights, blurred, width, self.corners, a, b, out.reshape(-1))
            for a, b in sums.parts
        ]
        _run(jobs)
        return out[:, :classes] * np.float32(self.alpha)

    def normalised(self) -> NDArray[np.float32]:
        """Flat weights / sqrt(row sum of the kernel): splatting and slicing with them normalises symmetrically."""
        if self.scaled is None:
            sums, ones = self.sums(LANES, _parts(self.points)), np.ones(LANES, np.float32)
            shape = (0, LANES, self.corners)
            _run([partial(_splat, self.ids, self.weights, ones, *shape, a, b, to) for (a, b), to in sums.jobs()])
            blurred, out = self.blur(sums, LANES), np.empty_like(self.weights)
            common = (self.ids, self.weights, blurred, self.corners, np.float32(self.alpha))
            _run([partial(_normalise, *common, a, b, out) for a, b in sums.parts])
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
    classes, points = logits.shape
    width = padded(classes)
    parts = _parts(points)
    sums = [lattice.sums(width, parts) for lattice in lattices]
    unary = np.empty(points * width, np.float32)
    # a state that is the last thing computed may overwrite the logits: fresh memory costs as much as a pass over it
    x = unary if keep == 1 and state is logits else np.empty(points * width, np.float32)
    scratch = np.empty((len(parts), width), np.float32)
    padded_matrices, factors = [], []
    for lattice, matrix in zip(lattices, matrices, strict=True):
        square = np.zeros((width, width), np.float32)
        square[:classes, :classes] = matrix * np.float32(lattice.alpha)
        padded_matrices.append(square.reshape(-1))
        diagonal = np.eye(classes, dtype=np.float32) * matrix[0, 0]
        factors.append(square[0, 0] if np.array_equal(matrix, diagonal) else None)
    messages = [each.spare[1] for each in sums]  # not read by the first pass, which only splats

    def sweep(source: NDArray[np.float32], *, gather: bool, scatter: bool, write: bool) -> None:
        jobs = []
        for t, (a, b) in enumerate(parts):
            sides = [
                (lattice.ids, lattice.normalised(), message, each.arrays[t])
                for lattice, message, each in zip(lattices, messages, sums, strict=True)
            ]
            into, step = (x, width) if write else (scratch[t], 0)
            jobs.append(partial(_mean_field, source, into, step, width, a, b, gather, scatter, *sides))
        _run(jobs)

    def exchange(k: int) -> NDArray[np.float32]:
        blurred = lattices[k].blur(sums[k], width)
        if factors[k] is None:
            _compare_labels(blurred, padded_matrices[k], width)
        else:
            _scale(blurred, factors[k])
        return blurred

    def planes() -> NDArray[np.float32]:
        out = np.empty((classes, points), np.float32)
        _run([partial(_unpack, x, width, a, b, out) for a, b in parts])
        return out

    _run([partial(_pack, logits, width, a, b, unary) for a, b in parts])
    if state is not logits:
        _run([partial(_pack, state, width, a, b, x) for a, b in parts])
    sweep(unary if state is logits else x, gather=False, scatter=True, write=False)
    kept = []
    for iteration in range(1, iterations + 1):
        messages = _run([partial(exchange, 0), partial(exchange, 1)])
        wanted = iteration > iterations - keep
        sweep(unary, gather=True, scatter=iteration < iterations, write=wanted)
        if wanted:
            kept.append(planes())
    return kept
