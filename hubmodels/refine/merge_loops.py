"""The compiled loops of hierarchical merging. Only `hubmodels.refine.merge` calls them.

Every two touching regions are a pair, and one of them owns it: the one that changed last, the lower id if neither has
changed. A region's best is the nearest of those it owns pairs with, and a tournament tree over all regions names the
best of the bests. So a merge costs a walk around the region that changed, and one around each whose best is gone.

Borders of a region are a linked list of half-edges: joining two regions appends one list to the other, and what is
double then, or leads inside, leaves it on the next walk. Where Numba cannot be imported the loops run as they are,
with the same results in a hundred times the time.
"""

# mypy: allow-untyped-defs
# (Numba infers the types of what it compiles, and accepts no annotations of its own in their place)

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from hubmodels.refine.compiled import jit

NONE = -1


class Forest(NamedTuple):
    """Regions on their way to one; R regions, E pairs of touching ones, P the next power of two from R.

    Attributes:
        size, colour: (R,) float64 pixels, (R, 3) float64 mean colours.
        parent: (R,) what a region was merged into; itself if it is there still.
        changed: (R,) int64 when a region last took another in; 0: never.
        head, tail: (R,) first and last half-edge of a region.
        after, target: (2 E,) the half-edge behind one, and the region it leads to or one that is part of that now.
        best, nearest: (P,) float64, int64: distance to the nearest of those that a region owns pairs with, and its id.
        tree: (2 P,) int64, from 1: of each two below, the region with the lesser best, the lower id on a tie.
        mark: (R,) int64, of the last walk that came by.
        clock: (2,) int64: changes so far, walks so far.
    """

    size: Any
    colour: Any
    parent: Any
    changed: Any
    head: Any
    tail: Any
    after: Any
    target: Any
    best: Any
    nearest: Any
    tree: Any
    mark: Any
    clock: Any


def plant(areas: np.ndarray, colours: np.ndarray, edges: np.ndarray) -> Forest:
    """A forest of (R,) areas and (R, 3) mean colours with (E, 2) edges, each pair once."""
    count = len(areas)
    power = 1 << max(0, count - 1).bit_length()
    ends, targets = edges.ravel(), edges[:, ::-1].ravel()  # half-edge 2 e goes from the first to the second
    order = np.argsort(ends, kind="stable")
    head, tail = np.full(count, NONE), np.full(count, NONE)
    after = np.full(len(ends), NONE)
    sorted_ends = ends[order]
    same = sorted_ends[:-1] == sorted_ends[1:]
    after[order[:-1][same]] = order[1:][same]
    starts, stops = np.r_[True, ~same][: len(ends)], np.r_[~same, True][: len(ends)]
    head[sorted_ends[starts]], tail[sorted_ends[stops]] = order[starts], order[stops]
    forest = Forest(
        areas.astype(np.float64),
        colours.astype(np.float64),
        np.arange(count),
        np.zeros(count, np.int64),
        head,
        tail,
        after,
        targets.copy(),
        np.full(power, np.inf),
        np.full(power, NONE),
        np.zeros(2 * power, np.int64),
        np.zeros(count, np.int64),
        np.zeros(2, np.int64),
    )
    _begin(forest)
    return forest


@jit
def _root(parent, region):
    while parent[region] != region:
        parent[region] = parent[parent[region]]
        region = parent[region]
    return region


@jit
def _around(forest, region, found):
    """Write the regions around one into `found`, each once, and return their number; the list is tidied on the way."""
    forest.clock[1] += 1
    walk, count = forest.clock[1], 0
    before, edge = NONE, forest.head[region]
    while edge != NONE:
        other = _root(forest.parent, forest.target[edge])
        forest.target[edge] = other
        if other == region or forest.mark[other] == walk:
            if before == NONE:
                forest.head[region] = forest.after[edge]
            else:
                forest.after[before] = forest.after[edge]
        else:
            forest.mark[other] = walk
            found[count] = other
            count += 1
            before = edge
        edge = forest.after[edge]
    forest.tail[region] = before
    return count


@jit
def _choose(forest, region, found, count):
    """Find the best of a region, given those around it, and let it compete."""
    best, nearest = math.inf, NONE
    for i in range(count):
        other = found[i]
        mine, theirs = forest.changed[region], forest.changed[other]
        if mine > theirs or (mine == theirs and region < other):
            x = forest.colour[region, 0] - forest.colour[other, 0]
            y = forest.colour[region, 1] - forest.colour[other, 1]
            z = forest.colour[region, 2] - forest.colour[other, 2]
            distance = math.sqrt(x * x + y * y + z * z)
            if distance < best or (distance == best and other < nearest):
                best, nearest = distance, other
    _enter(forest, region, best, nearest)


@jit
def _enter(forest, region, best, nearest):
    """Set the best of a region, and play its matches anew."""
    forest.best[region], forest.nearest[region] = best, nearest
    place = (forest.best.size + region) >> 1
    while place >= 1:
        one, other = forest.tree[2 * place], forest.tree[2 * place + 1]
        forest.tree[place] = other if forest.best[other] < forest.best[one] else one
        place >>= 1


@jit
def _begin(forest):
    found = np.empty(forest.size.size, np.int64)
    power = forest.best.size
    for region in range(power):
        forest.tree[power + region] = region
    for place in range(power - 1, 0, -1):
        forest.tree[place] = forest.tree[2 * place]
    for region in range(forest.size.size):
        _choose(forest, region, found, _around(forest, region, found))


@jit
def merge_until(forest, threshold, distances, pairs, done):
    """Merge the nearest two again and again, up to the first that are not nearer than `threshold`, which merge as well.

    Args:
        forest: is changed.
        threshold: a distance.
        distances, pairs: (R,) float64, (R, 2) int64: of every merge so far the distance and the two regions, of which
            the second stays; further ones are written behind them.
        done: number of merges so far.

    Returns:
        The number of merges now.
    """
    found, again = np.empty(forest.size.size, np.int64), np.empty(forest.size.size, np.int64)
    while done == 0 or distances[done - 1] < threshold:
        gone = forest.tree[1]
        distance, kept = forest.best[gone], forest.nearest[gone]
        if kept == NONE:
            break
        distances[done], pairs[done, 0], pairs[done, 1] = distance, gone, kept
        done += 1
        total = forest.size[gone] + forest.size[kept]
        for channel in range(3):
            mixed = forest.size[gone] * forest.colour[gone, channel] + forest.size[kept] * forest.colour[kept, channel]
            forest.colour[kept, channel] = mixed / total
        forest.size[kept] = total
        forest.parent[gone] = kept
        forest.clock[0] += 1
        forest.changed[kept] = forest.clock[0]
        if forest.tail[kept] == NONE:
            forest.head[kept] = forest.head[gone]
        else:
            forest.after[forest.tail[kept]] = forest.head[gone]
        if forest.tail[gone] != NONE:
            forest.tail[kept] = forest.tail[gone]
        _enter(forest, gone, math.inf, NONE)
        count = _around(forest, kept, found)
        _choose(forest, kept, found, count)
        for i in range(count):  # pairs with the one that changed are that one's now
            other = found[i]
            if forest.nearest[other] == gone or forest.nearest[other] == kept:
                _choose(forest, other, again, _around(forest, other, again))
    return done
