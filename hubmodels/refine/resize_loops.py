"""The compiled loops between the size of a large photo and the CRF's. Only `hubmodels.refine.resizing` calls them.

Both work on some rows of their result without the GIL. Arrays are C-contiguous; nothing here checks that.
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
    v_load,
    v_maximum,
    v_multiply,
    v_spread,
    v_store,
    v_subtract,
)

_RUN = 6  # rows, and columns, whose probabilities are multiplied: 1e-8 to the power of 36 is a float64 still


@jit
def mean_logs(probs, floor, start, stop, out):
    """out[:, start:stop] (C, h, w) <- means over areas of the logarithms of probs (C, H, W), `floor` at least.

    Areas are those of PyTorch's adaptive pooling: rows floor(i * H / h) to ceil((i + 1) * H / h), columns alike. A sum
    of logarithms is that of a product, which costs a fraction.
    """
    labels, height, width = probs.shape
    _, rows, columns = out.shape
    lefts = np.array([j * width // columns for j in range(columns)])
    rights = np.array([-(-(j + 1) * width // columns) for j in range(columns)])
    products, sums = np.empty(width, np.float64), np.empty(columns, np.float64)
    for label in range(labels):
        for i in range(start, stop):
            top, bottom = i * height // rows, -(-(i + 1) * height // rows)
            sums[:] = 0.0
            for first in range(top, bottom, _RUN):
                products[:] = 1.0
                for y in range(first, min(bottom, first + _RUN)):
                    row = probs[label, y]
                    for x in range(width):
                        products[x] *= max(row[x], floor)
                for j in range(columns):
                    for run in range(lefts[j], rights[j], _RUN):
                        product = 1.0
                        for x in range(run, min(rights[j], run + _RUN)):
                            product *= products[x]
                        sums[j] += np.log(product)
            for j in range(columns):
                out[label, i, j] = sums[j] / ((bottom - top) * (rights[j] - lefts[j]))


@jit
def _enlarge_row(change, y, height, lefts, shares, line, rows):
    """rows (C * width, flat) <- row y of change (C, h, w), enlarged bilinearly to `height` rows of `width`."""
    labels, h, w = change.shape
    width = lefts.size
    at = max((y + 0.5) * h / height - 0.5, 0.0)
    above = int(at)
    below, share = min(above + 1, h - 1), np.float32(at - above)
    for label in range(labels):
        for j in range(w):
            line[j] = change[label, above, j] + (change[label, below, j] - change[label, above, j]) * share
        line[w] = line[w - 1]  # the neighbour of the last one
        for x in range(width):
            left = lefts[x]
            rows[label * width + x] = line[left] + (line[left + 1] - line[left]) * shares[x]


@jit
def change_probs(probs, height, width, change, floor, start, stop, out):
    """out <- the softmax of log(max(probs, floor)) + change, for pixels of rows start..stop.

    probs and out are (C, height, width) flat, with 8 columns at least; change (C, h, w) is enlarged bilinearly, pixels
    being areas. No logarithm is taken: the softmax of log(p) + d is p * exp(d) over its sum.
    """
    labels, _, w = change.shape
    lefts, shares = np.empty(width, np.int32), np.empty(width, np.float32)
    for x in range(width):
        at = max((x + 0.5) * w / width - 0.5, 0.0)
        lefts[x] = int(at)
        shares[x] = at - int(at)
    line, rows = np.empty(w + 1, np.float32), np.empty(labels * width, np.float32)
    least = v_spread(np.float32(floor))
    for y in range(start, stop):
        _enlarge_row(change, y, height, lefts, shares, line, rows)
        for group in range(0, width, LANES):
            x = min(group, width - LANES)  # the last group may overlap the one before
            largest = v_load(rows, x)
            for label in range(1, labels):
                largest = v_maximum(largest, v_load(rows, label * width + x))
            total = v_spread(np.float32(0.0))
            for label in range(labels):
                at = (label * height + y) * width + x
                share = v_exp(v_subtract(v_load(rows, label * width + x), largest))
                value = v_multiply(share, v_maximum(v_load(probs, at), least))
                v_store(out, at, value)
                total = v_add(total, value)
            for label in range(labels):
                at = (label * height + y) * width + x
                v_store(out, at, v_divide(v_load(out, at), total))
