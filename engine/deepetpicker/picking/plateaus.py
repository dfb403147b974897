"""Maxima that touch and have equal values are one: a plateau gives one pick, however large it is."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from scipy import sparse

MAX_WINDOW = 2  # maxima at most so many voxels apart, along each axis, touch
RUN = np.dtype([("z", "i8"), ("y", "i8"), ("x", "i8"), ("end", "i8"), ("n", "i8"), ("total", "f8", 3), ("value", "f8")])
_SAME = 1e-5  # as near, relatively, are values of one plateau
_ROWS_BEHIND = [(dz, dy) for dz in range(MAX_WINDOW + 1) for dy in range(-MAX_WINDOW, MAX_WINDOW + 1)
                if (dz, dy) > (0, 0)]


def runs_of(positions_zyx: np.ndarray, voxels_zyx: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return maxima as runs (M,): those of one row that touch and have equal values are one.

    So a plateau takes no more room than its rows, however large it is.

    Parameters
    ----------
    positions_zyx : (N, 3) float
        Sub-voxel positions.
    voxels_zyx : (N, 3) int
        Their voxels, in the order of z, y, x.
    values : (N,) float
        Pooled values or anything monotone in them.
    """
    if not len(values):
        return np.empty(0, RUN)
    starts = np.ones(len(values), bool)
    near = (np.diff(voxels_zyx[:, :2], axis=0) == 0).all(1) & (np.diff(voxels_zyx[:, 2]) <= MAX_WINDOW)
    starts[1:] = ~(near & np.isclose(values[:-1], values[1:], rtol=_SAME, atol=0))
    first = np.flatnonzero(starts)
    runs = np.empty(len(first), RUN)
    runs["z"], runs["y"], runs["x"] = voxels_zyx[first].T
    runs["end"] = voxels_zyx[np.append(first[1:], len(values)) - 1, 2]
    runs["n"] = np.diff(np.append(first, len(values)))
    runs["total"] = np.add.reduceat(positions_zyx, first, axis=0)
    runs["value"] = np.maximum.reduceat(values, first)
    return runs


def merge_plateaus(runs: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return positions (M, 3) and values (M,) with touching maxima of equal value merged into their mean position.

    Parameters
    ----------
    runs : (N,) of RUN
        Maxima as :func:`runs_of` gives them, whole rows of the map, in any order.
    """
    runs = runs[np.lexsort((runs["x"], runs["y"], runs["z"]))]
    group = np.arange(len(runs))
    for dz, dy in _ROWS_BEHIND if len(runs) else ():
        a, b = _touching(runs, dz, dy)
        apart = (group[a] != group[b]) & np.isclose(runs["value"][a], runs["value"][b], rtol=_SAME, atol=0)
        a, b, n = group[a[apart]], group[b[apart]], group.max() + 1
        graph = sparse.coo_matrix((np.ones(len(a), bool), (a, b)), shape=(n, n))
        group = sparse.csgraph.connected_components(graph, directed=False)[1][group]
    counts = np.bincount(group, runs["n"])
    centres = np.stack([np.bincount(group, runs["total"][:, axis]) for axis in range(3)], 1) / counts[:, None]
    values = np.zeros(len(counts))
    np.maximum.at(values, group, runs["value"])
    return centres, values


def _touching(runs: np.ndarray, dz: int, dy: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return the pairs (P,) and (P,) of sorted runs where the second lies dz planes and dy rows behind and touches."""
    width, height = int(runs["end"].max()) + 2 * MAX_WINDOW + 1, int(runs["y"].max()) + 2 * MAX_WINDOW + 1
    row = (runs["z"] * height + runs["y"] + MAX_WINDOW) * width + MAX_WINDOW
    behind = row + (dz * height + dy) * width
    low = np.searchsorted(row + runs["end"], behind + runs["x"] - MAX_WINDOW, "left")
    high = np.searchsorted(row + runs["x"], behind + runs["end"] + MAX_WINDOW, "right")
    count = np.maximum(high - low, 0)
    a = np.repeat(np.arange(len(runs)), count)
    return a, np.arange(len(a)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
