"""Slow, obvious twins of the lattice and the CRF: a few hundred points at most."""

from __future__ import annotations

import itertools
import math

import numpy as np


def gaussian_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(N, d), (N, C) -> (N, C): the sum over all pairs that the lattice approximates."""
    return gaussian_matrix(features) @ values


def gaussian_matrix(features: np.ndarray) -> np.ndarray:
    """(N, N): exp(-|f_i - f_j|^2 / 2)."""
    features = features.astype(np.float64)
    squared = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    return np.exp(-squared / 2)


def lifting_matrix(dims: int) -> np.ndarray:
    """(d + 1, d): orthogonal columns that sum to zero, scaled as in Adams, Baek & Davis 2010, section 3.1."""
    columns = []
    for j in range(dims):
        column = np.zeros(dims + 1)
        column[: j + 1] = 1.0
        column[j + 1] = -(j + 1.0)
        columns.append(column / math.sqrt((j + 1) * (j + 2)))
    return np.stack(columns, axis=1) * math.sqrt(2.0 / 3.0) * (dims + 1)


def simplex(point: np.ndarray) -> dict[tuple[int, ...], float]:
    """The corners of the lattice simplex around a point of the plane, with its barycentric weights."""
    corners = len(point)
    nearest = np.round(point / corners) * corners  # remainder 0, maybe off the plane
    excess = round(nearest.sum() / corners)
    order = sorted(range(corners), key=lambda i: -(point[i] - nearest[i]))
    for _ in range(abs(excess)):  # undo the roundings that moved farthest
        worst = order.pop() if excess > 0 else order.pop(0)
        nearest[worst] -= math.copysign(corners, excess)
        order = [worst, *order] if excess > 0 else [*order, worst]
    difference = point - nearest
    weights: dict[tuple[int, ...], float] = {}
    for r in range(corners):
        corner = nearest + r
        for i in order[corners - r :]:
            corner[i] -= corners
        if r == 0:
            weight = 1 - (difference[order[0]] - difference[order[-1]]) / corners
        else:
            weight = (difference[order[corners - r - 1]] - difference[order[corners - r]]) / corners
        weights[tuple(int(c) for c in corner)] = weight
    return weights


def lattice_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Splat, blur, slice with a dictionary of lattice points, one number at a time, in float64."""
    dims = features.shape[1]
    lifted = features.astype(np.float64) @ lifting_matrix(dims).T
    mixes = [simplex(point) for point in lifted]
    lattice: dict[tuple[int, ...], np.ndarray] = {}
    for mix, value in zip(mixes, values, strict=True):
        for corner, weight in mix.items():
            lattice[corner] = lattice.get(corner, 0.0) + weight * value
    nothing = np.zeros(values.shape[1])
    for axis in range(dims + 1):
        step = np.full(dims + 1, -1)
        step[axis] = dims
        lattice = {
            corner: own
            + 0.5 * lattice.get(tuple(int(c) for c in np.array(corner) + step), nothing)
            + 0.5 * lattice.get(tuple(int(c) for c in np.array(corner) - step), nothing)
            for corner, own in lattice.items()
        }
    alpha = 1 / (1 + 2.0**-dims)
    return np.stack([sum(w * lattice[corner] for corner, w in mix.items()) * alpha for mix in mixes])


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def features_of(image: np.ndarray, sigma_px: float, sigma_colour: float | None = None) -> np.ndarray:
    """(H, W, 3) -> (H * W, 2 or 5): place, and with a colour sigma colour too, in standard deviations."""
    rows = []
    for y, x in itertools.product(*map(range, image.shape[:2])):
        place = [x / sigma_px, y / sigma_px]
        rows.append(place if sigma_colour is None else [*place, *(float(c) / sigma_colour for c in image[y, x])])
    return np.array(rows)


def mean_field(
    logits: np.ndarray,
    kernels: list[tuple[float, np.ndarray]],
    iterations: int,
    compatibility: np.ndarray | None = None,
) -> np.ndarray:
    """Kraehenbuehl & Koltun 2011, algorithm 1, with whole kernel matrices: (N, C) logits -> (N, C) distribution.

    kernels: (weight, (N, N) matrix), normalised symmetrically here. Potts is minus the identity.
    """
    compatibility = -np.eye(logits.shape[1]) if compatibility is None else compatibility
    q = softmax(logits)
    for _ in range(iterations):
        energy = -logits
        for weight, matrix in kernels:
            norm = 1 / np.sqrt(matrix.sum(axis=1))
            message = norm[:, None] * (matrix @ (norm[:, None] * q))
            energy = energy + weight * message @ compatibility.T
        q = softmax(-energy)
    return q
