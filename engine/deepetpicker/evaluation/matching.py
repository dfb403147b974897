"""Which pick is which true particle: two hit rules, one-to-one matching, and the comparison of two pick sets.

A hit rule says which pairs of a true particle and a pick *may* belong together (:class:`Candidates`). A matching then
takes some of these pairs so that no particle and no pick is used twice (:class:`Match`).
"""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Union

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable

Radius = Union[float, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a true particle and a pick.

    Parameters
    ----------
    truth_index, pick_index : (M,) int64
        Rows of the two tables, a pair per element.
    distances_vox : (M,) float64
        Distance of each pick to the centre of its particle, in voxels.
    n_truth, n_picks : int
        Rows of the two tables.
    """

    truth_index: np.ndarray
    pick_index: np.ndarray
    distances_vox: np.ndarray
    n_truth: int
    n_picks: int


class Match(Pairs):
    """One-to-one pairs, in the order of the true rows; of two pick sets a and b, a is in the place of the truth."""

    @property
    def tp(self) -> int:
        """Number of pairs: particles found."""
        return len(self.pick_index)

    @property
    def fp(self) -> int:
        """Number of picks without a particle."""
        return self.n_picks - self.tp

    @property
    def fn(self) -> int:
        """Number of particles without a pick."""
        return self.n_truth - self.tp

    @property
    def is_hit(self) -> np.ndarray:
        """For each pick whether it is in a pair: (n_picks,) bool."""
        return _mask(self.pick_index, self.n_picks)

    @property
    def is_found(self) -> np.ndarray:
        """For each true particle whether it is in a pair: (n_truth,) bool."""
        return _mask(self.truth_index, self.n_truth)

    @property
    def only_a(self) -> np.ndarray:
        """Rows of the truth, or of a, without a partner, (K,) int64 ascending."""
        return np.flatnonzero(~self.is_found)

    @property
    def only_b(self) -> np.ndarray:
        """Rows of the picks, or of b, without a partner, (L,) int64 ascending."""
        return np.flatnonzero(~self.is_hit)

    @property
    def jaccard(self) -> float:
        """Shared particles over all particles; NaN when both sets are empty."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else float("nan")


class Candidates(Pairs):
    """All pairs that a hit rule allows."""

    def only(self, keep: np.ndarray) -> Candidates:
        """Return some of the pairs, (M,) bool."""
        return Candidates(self.truth_index[keep], self.pick_index[keep], self.distances_vox[keep], self.n_truth,
                          self.n_picks)

    def restrict(self, keep_truth: np.ndarray, keep_picks: np.ndarray) -> Candidates:
        """Return the pairs among the kept rows, renumbered to the shorter tables.

        Parameters
        ----------
        keep_truth, keep_picks : (n_truth,), (n_picks,) bool
            Rows to keep.
        """
        kept = keep_truth[self.truth_index] & keep_picks[self.pick_index]
        new_truth, new_picks = np.cumsum(keep_truth) - 1, np.cumsum(keep_picks) - 1
        return Candidates(new_truth[self.truth_index[kept]], new_picks[self.pick_index[kept]],
                          self.distances_vox[kept], int(keep_truth.sum()), int(keep_picks.sum()))


def match_by_distance(truth: CoordinateTable, picks: CoordinateTable, radius_vox: Radius) -> Match:
    """Match by distance, as many pairs as possible and among these matchings the one of least summed distance.

    Classes and scores play no part. The result does not depend on the order of the rows.

    Parameters
    ----------
    truth, picks : CoordinateTable
        True particles and picks, with N and M rows; either may be empty.
    radius_vox : float or (N,) float
        Largest distance of a hit in voxels, one or one per true particle; the radius itself is still a hit.

    Returns
    -------
    Match

    Raises
    ------
    InputError
        If a radius is negative or NaN, or their number is neither 1 nor N.
    """
    return take_most_pairs(distance_candidates(truth, picks, radius_vox))


def mask_candidates(truth: CoordinateTable, picks: CoordinateTable, instances_zyx: np.ndarray) -> Candidates:
    """Return the pairs of a pick and the particle whose instance mask holds the pick's rounded voxel: the SHREC rule.

    A pick outside the volume is looked up at the nearest voxel. :func:`take_best_scores` makes a match of them.

    Parameters
    ----------
    truth, picks : CoordinateTable
        True particles and picks, with N and M rows; either may be empty.
    instances_zyx : (Z, Y, X) int
        1-based row of ``truth`` in each voxel, 0 where there is no particle.

    Raises
    ------
    InputError
        If the mask is not 3D or holds a number beyond the rows of ``truth``.
    """
    if instances_zyx.ndim != 3 or not instances_zyx.size:
        raise InputError(f"an instance mask must be a 3D volume, got the shape {instances_zyx.shape}")
    last = np.array(instances_zyx.shape) - 1
    voxels = np.clip(np.rint(picks.positions_zyx_vox).astype(np.int64), 0, last)
    rows = np.asarray(instances_zyx[tuple(voxels.T)]).astype(np.int64) - 1
    if rows.size and rows.max() >= len(truth):
        raise InputError(f"the instance mask holds particle {rows.max() + 1}, but the truth table has {len(truth)} "
                         "rows: mask and table must come from the same simulation")
    pick_index = np.flatnonzero(rows >= 0)
    truth_index = rows[pick_index]
    return Candidates(truth_index, pick_index, _distances(truth, picks, truth_index, pick_index), len(truth),
                      len(picks))


def distance_candidates(truth: CoordinateTable, picks: CoordinateTable, radius_vox: Radius) -> Candidates:
    """Return the pairs that are no farther apart than the true particle's radius, in voxels.

    Raises InputError as :func:`match_by_distance`.
    """
    radii = np.asarray(radius_vox, dtype=float)
    if radii.ndim and radii.shape != (len(truth),):
        raise InputError(f"radius_vox must be one number or one for each of the {len(truth)} true particles, got the "
                         f"shape {radii.shape}")
    if radii.size and not (np.isfinite(radii) & (radii >= 0)).all():
        raise InputError(f"radius_vox must be >= 0 voxels, got {np.min(radii)}")
    radii = np.broadcast_to(radii, (len(truth),))
    if not len(truth) or not len(picks):
        none = np.zeros(0, np.int64)
        return Candidates(none, none, np.zeros(0), len(truth), len(picks))
    near = cKDTree(picks.positions_zyx_vox).query_ball_point(truth.positions_zyx_vox, radii * (1 + 1e-9) + 1e-12)
    truth_index = np.repeat(np.arange(len(truth)), [len(n) for n in near])
    pick_index = np.concatenate([np.asarray(n, np.int64) for n in near])
    distances = _distances(truth, picks, truth_index, pick_index)
    kept = distances <= radii[truth_index]
    return Candidates(truth_index[kept], pick_index[kept], distances[kept], len(truth), len(picks))


def take_best_scores(candidates: Candidates, scores: np.ndarray) -> Match:
    """Return the matching that gives each particle its best pick; for rules under which a pick has one particle.

    Further hits on a particle stay without a pair and so are false positives. Of picks with the same score (or none)
    the one nearer to the particle's centre comes first: the result does not depend on the order of the rows.

    Parameters
    ----------
    candidates : Candidates
        Each pick occurs at most once.
    scores : (n_picks,) float
        Scores of the picks; NaN counts as lowest.
    """
    known = np.nan_to_num(scores[candidates.pick_index], nan=-np.inf)
    order = np.lexsort((candidates.pick_index, candidates.distances_vox, -known))
    _, first = np.unique(candidates.truth_index[order], return_index=True)
    return _as_match(candidates, order[first])


def take_most_pairs(candidates: Candidates) -> Match:
    """Return the matching with the most pairs and, among these, the least summed distance.

    A sparse assignment in which each row may also stay alone at a cost above that of any other arrangement, so that
    time and memory grow with the allowed pairs, not with the product of the two numbers of rows.
    """
    if not len(candidates.pick_index):
        return _as_match(candidates, np.zeros(0, np.int64))
    rows, columns = candidates.truth_index, candidates.pick_index
    n_rows, n_columns = candidates.n_truth, candidates.n_picks
    if n_rows > n_columns:
        rows, columns, n_rows, n_columns = columns, rows, n_columns, n_rows
    alone = (n_rows + 1) * (candidates.distances_vox.max() + 1)
    costs = coo_matrix((np.concatenate([candidates.distances_vox, np.full(n_rows, alone)]) + 1,
                        (np.concatenate([rows, np.arange(n_rows)]),
                         np.concatenate([columns, np.arange(n_rows) + n_columns]))),
                       shape=(n_rows, n_columns + n_rows))
    partner = np.empty(n_rows, np.int64)
    row, column = min_weight_full_bipartite_matching(costs.tocsr())
    partner[row] = column
    return _as_match(candidates, np.flatnonzero(partner[rows] == columns))


def hits_by_score(candidates: Candidates, scores: np.ndarray) -> np.ndarray:
    """Return for each pick whether it adds a hit when picks are taken best score first, (n_picks,) bool.

    The picks down to any score then hold as many hits as the largest matching of just these picks, so one pass gives
    the exact number for every threshold. A pick adds a hit if a free particle can be reached from it by moving picks
    taken earlier to other particles of theirs. Particles from which none can be reached are never visited again.

    Parameters
    ----------
    candidates : Candidates
        Allowed pairs.
    scores : (n_picks,) float
        Scores of the picks; NaN counts as lowest.
    """
    order = np.lexsort((candidates.distances_vox, candidates.pick_index))
    starts = np.searchsorted(candidates.pick_index[order], np.arange(candidates.n_picks + 1)).tolist()
    truths = candidates.truth_index[order].tolist()
    near = [truths[a:b] for a, b in zip(starts[:-1], starts[1:])]
    owner = [-1] * candidates.n_truth
    dead = [False] * candidates.n_truth
    hits = np.zeros(candidates.n_picks, dtype=bool)
    for pick in np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable").tolist():
        hits[pick] = _augment(pick, near, owner, dead)
    return hits


def _augment(pick: int, near: List[List[int]], owner: List[int], dead: List[bool]) -> bool:
    """Give the pick a particle, moving other picks if need be; tell whether that was possible.

    ``near[pick]`` lists particles, ``owner[particle]`` is its pick or -1; ``owner`` and ``dead`` are changed. When
    nothing is possible, all particles that were visited are dead: no later pick can gain anything through them.
    """
    reached_from: Dict[int, int] = {}
    holds: Dict[int, int] = {}
    queue = [pick]
    for current in queue:
        for particle in near[current]:
            if dead[particle]:
                continue
            dead[particle] = True
            reached_from[particle] = current
            if owner[particle] >= 0:
                holds[owner[particle]] = particle
                queue.append(owner[particle])
                continue
            _shift(particle, reached_from, holds, owner)
            for visited in reached_from:
                dead[visited] = False
            return True
    return False


def _shift(particle: int, reached_from: Dict[int, int], holds: Dict[int, int], owner: List[int]) -> None:
    """Move each pick on the way to a free particle on by one particle; ``owner`` is changed."""
    while True:
        taker = reached_from[particle]
        owner[particle] = taker
        if taker not in holds:
            return
        particle = holds[taker]


def _as_match(candidates: Candidates, edges: np.ndarray) -> Match:
    """Return the match made of the chosen edges (M,), in the order of the true rows."""
    edges = edges[np.argsort(candidates.truth_index[edges], kind="stable")]
    return Match(candidates.truth_index[edges], candidates.pick_index[edges], candidates.distances_vox[edges],
                 candidates.n_truth, candidates.n_picks)


def _distances(truth: CoordinateTable, picks: CoordinateTable, truth_index: np.ndarray,
               pick_index: np.ndarray) -> np.ndarray:
    """Return the distance of each pair of rows (E,), in voxels."""
    offsets = truth.positions_zyx_vox[truth_index] - picks.positions_zyx_vox[pick_index]
    return np.sqrt((offsets ** 2).sum(axis=1))


def _mask(index: np.ndarray, size: int) -> np.ndarray:
    """Return a (size,) bool array that is True at index (M,)."""
    mask = np.zeros(size, dtype=bool)
    mask[index] = True
    return mask
