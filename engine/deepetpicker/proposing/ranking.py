"""Find more like these: a linear discriminant from a few examples, in closed form."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

FEWEST = 3  # examples: fewer say too little
HIDDEN = 0.2  # of the candidates may be what is looked for
SHRINK = 0.3  # of the covariance towards the identity, in units of the features' own variance


def rank_like(features: np.ndarray, examples: np.ndarray, against: Optional[np.ndarray] = None) -> np.ndarray:
    """Return for each candidate how much it is like the examples, (N,) float in (0, 1), in the order to look at them.

    Parameters
    ----------
    features : (N, F) float
        Of all candidates; most of them are taken to be something else.
    examples : (P, F) float
        Of what is looked for, P >= 3.
    against : (M, F) float, optional
        Of what it is not; M may be 0.

    Returns
    -------
    (N,) float64
        0.5 lies half-way between the examples and the rest.

    Raises
    ------
    ValueError
        If there are fewer than 3 examples.

    Notes
    -----
    Fisher's discriminant: the direction in which examples and the rest lie farthest apart for how much the rest
    scatters, of which there is plenty to estimate it from. Whatever of what is looked for hides in the rest blurs that;
    so it is done twice, the second time without the rest's most likely fifth.
    """
    if len(examples) < FEWEST:
        raise ValueError(f"expected at least {FEWEST} examples, got {len(examples)}")
    if not len(features):
        return np.zeros(0)
    against = np.empty((0, features.shape[1])) if against is None else against
    centre, spread = features.mean(0), np.maximum(features.std(0), 1e-9)
    every, wanted, other = ((np.asarray(rows, float) - centre) / spread for rows in (features, examples, against))
    likely = _likeness(every, every, wanted, other)
    rest = every[likely <= np.quantile(likely, 1 - HIDDEN)]
    return _likeness(every, rest, wanted, other)


def _likeness(every: np.ndarray, rest: np.ndarray, wanted: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the likeness (N,) of candidates (N, F) to examples (P, F) rather than to the rest (M, F) and others."""
    scatter = np.cov(rest.T) if len(rest) > 1 else 0.0
    covariance = scatter + SHRINK * np.eye(rest.shape[1])
    away = np.concatenate([rest.mean(0, keepdims=True), other]).mean(0)
    direction = np.linalg.solve(covariance, wanted.mean(0) - away)
    top, bottom = float(wanted.mean(0) @ direction), float(away @ direction)
    height = (every @ direction - (top + bottom) / 2) / max(top - bottom, 1e-9)
    return np.asarray(1 / (1 + np.exp(-4 * height)))


def snapped(positions_zyx_vox: np.ndarray, candidates_zyx_vox: np.ndarray,
            within_vox: float) -> Tuple[np.ndarray, np.ndarray]:
    """Return for each position (N, 3) its nearest candidate of (M, 3) and whether that lies within a distance.

    Examples should be looked at where candidates are: a click beside the top of a blob looks unlike all of them.

    Returns
    -------
    tuple
        Rows (N,) int, of no meaning where there is none near, and (N,) bool.
    """
    from scipy.spatial import cKDTree

    if not len(candidates_zyx_vox) or not len(positions_zyx_vox):
        return np.zeros(len(positions_zyx_vox), int), np.zeros(len(positions_zyx_vox), bool)
    distances, rows = cKDTree(candidates_zyx_vox).query(positions_zyx_vox)
    return rows, distances <= within_vox


def apart(positions_zyx_vox: np.ndarray, scores: np.ndarray, distance_vox: float) -> np.ndarray:
    """Return the rows (K,) of positions (N, 3) that no better one lies nearer to than a distance, best first."""
    from scipy.spatial import cKDTree

    order = np.argsort(-scores, kind="stable")
    if not len(order):
        return order
    tree, gone, kept = cKDTree(positions_zyx_vox), np.zeros(len(order), bool), []
    for row in order:
        if not gone[row]:
            kept.append(int(row))
            gone[tree.query_ball_point(positions_zyx_vox[row], distance_vox)] = True
    return np.array(kept, int)
