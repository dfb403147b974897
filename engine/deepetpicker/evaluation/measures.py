"""Numbers from matches: localisation and classification metrics, confidence intervals, profiles.

Conventions for empty sets: without truth *and* picks every ratio is NaN (there was nothing to score). With one of the
two, precision, recall and F are 0. Mean distances are NaN without a hit.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.evaluation.matching import Match, distance_candidates
from deepetpicker.io.coordinates import CoordinateTable

Count = Union[int, np.ndarray]

RATIOS = ("precision", "recall", "F1", "Fbeta")


def ratios(tp: Count, fp: Count, fn: Count, beta: float = 4.0) -> Dict[str, np.ndarray]:
    """Return precision, recall, F1 and Fbeta from counts.

    Parameters
    ----------
    tp, fp, fn : int or (...) int
        Hits, false positives, misses; arrays are handled element by element.
    beta : float
        Weight of recall in Fbeta.

    Returns
    -------
    dict
        ``precision``, ``recall``, ``F1``, ``Fbeta``, each of the shape of the counts; NaN where all counts are 0.
    """
    tp, fp, fn = (np.asarray(n, dtype=float) for n in (tp, fp, fn))
    nothing = tp + fp + fn == 0
    b2 = beta * beta
    parts = {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "F1": (2 * tp, 2 * tp + fp + fn),
             "Fbeta": ((1 + b2) * tp, (1 + b2) * tp + b2 * fn + fp)}
    return {name: np.where(nothing, np.nan, above / np.where(below == 0, 1, below))
            for name, (above, below) in parts.items()}


def localisation_metrics(match: Match, beta: float = 4.0, voxel_size_ang: float = 0.0) -> Dict[str, float]:
    """Return how well particles were found, whatever their class.

    Parameters
    ----------
    match : Match
        Truth against picks.
    beta : float
        Weight of recall in Fbeta.
    voxel_size_ang : float
        Voxel size in angstrom; 0 when unknown.

    Returns
    -------
    dict
        ``TP``, ``FP``, ``FN`` (int), ``precision``, ``recall``, ``F1``, ``Fbeta``, ``AD_vox`` and ``AD_ang`` (mean
        distance of hits to the true centre, voxels and angstrom; the latter NaN when the voxel size is unknown).
    """
    distance_vox = float(match.distances_vox.mean()) if match.tp else float("nan")
    return {"TP": match.tp, "FP": match.fp, "FN": match.fn,
            **{name: float(value) for name, value in ratios(match.tp, match.fp, match.fn, beta).items()},
            "AD_vox": distance_vox, "AD_ang": distance_vox * voxel_size_ang if voxel_size_ang else float("nan")}


def confusion_matrix(truth_class_ids: np.ndarray, pick_class_ids: np.ndarray, match: Match,
                     class_ids: Sequence[int]) -> np.ndarray:
    """Return how many particles of each class were picked as which.

    Parameters
    ----------
    truth_class_ids, pick_class_ids : (n_truth,), (n_picks,) int
        Classes of the two tables that were matched; all occur in ``class_ids``.
    match : Match
        Truth against picks, classes ignored.
    class_ids : sequence of int
        The C classes in the order of rows and columns.

    Returns
    -------
    (C + 1, C + 1) int64
        Rows: true class, last "background" (no particle there). Columns: picked class, last "missed".
    """
    number = {int(c): i for i, c in enumerate(class_ids)}
    size = len(class_ids) + 1
    true_row = np.array([number[int(c)] for c in truth_class_ids], dtype=np.int64)
    picked_column = np.array([number[int(c)] for c in pick_class_ids], dtype=np.int64)
    cells = np.concatenate([true_row[match.truth_index] * size + picked_column[match.pick_index],
                            true_row[~match.is_found] * size + size - 1,
                            (size - 1) * size + picked_column[~match.is_hit]])
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def taken_for(truth: CoordinateTable, found: CoordinateTable, radii_vox: Mapping[int, float], lowest: float
              ) -> np.ndarray:
    """Return as what the particles of each class pass: of all candidates on a particle the best one says it.

    Parameters
    ----------
    truth, found : CoordinateTable
        Particles, and candidates of all classes with scores.
    radii_vox : mapping
        Class id to the largest distance of a hit in voxels; its order is that of rows and columns.
    lowest : float
        Candidates below this score say nothing.

    Returns
    -------
    (C, C + 1) int64
        Rows: true class. Columns: class of the best candidate, last: no candidate.
    """
    number = {c: i for i, c in enumerate(radii_vox)}
    found = found.select(found.scores >= lowest)
    found = found.select(np.argsort(found.scores, kind="stable"))
    near = distance_candidates(truth, found, np.array([radii_vox[int(c)] for c in truth.class_ids]))
    best = np.full(len(truth), -1)
    np.maximum.at(best, near.truth_index, near.pick_index)  # sorted: the last is the best
    columns = [number[int(found.class_ids[i])] if i >= 0 else len(number) for i in best]
    counts = np.zeros((len(number), len(number) + 1), np.int64)
    np.add.at(counts, ([number[int(c)] for c in truth.class_ids], columns), 1)
    return counts


def class_metrics(confusion: np.ndarray, beta: float = 4.0) -> List[Dict[str, float]]:
    """Return the metrics of each class as the SHREC tracks count them.

    A pick that hits a particle of another class is a false positive of its own class and a miss of the true one.

    Parameters
    ----------
    confusion : (C + 1, C + 1) int
        From :func:`confusion_matrix`.
    beta : float
        Weight of recall in Fbeta.

    Returns
    -------
    list of dict
        Per class ``TP``, ``FP``, ``FN``, ``precision``, ``recall``, ``F1``, ``Fbeta`` (NaN for a class that occurs
        neither in the truth nor in the picks).
    """
    tp = np.diag(confusion)[:-1]
    fp, fn = confusion.sum(axis=0)[:-1] - tp, confusion.sum(axis=1)[:-1] - tp
    values = ratios(tp, fp, fn, beta)
    return [{"TP": int(tp[i]), "FP": int(fp[i]), "FN": int(fn[i]), **{n: float(values[n][i]) for n in RATIOS}}
            for i in range(len(tp))]


def macro_f1(per_class: Sequence[Dict[str, float]]) -> float:
    """Return the mean F1 of the classes that occur in truth or picks; NaN when none does."""
    known = [row["F1"] for row in per_class if not np.isnan(row["F1"])]
    return float(np.mean(known)) if known else float("nan")


def bootstrap_intervals(counts: np.ndarray, beta: float = 4.0, level: float = 0.95, rounds: int = 2000,
                        seed: int = 0) -> Dict[str, Tuple[float, float]]:
    """Return percentile confidence intervals of the ratios by resampling.

    With two or more tomograms whole tomograms are drawn with replacement, since particles of one tomogram are alike.
    With one, its hits, false positives and misses are drawn; that interval knows nothing of other tomograms.

    Parameters
    ----------
    counts : (T, 3) int
        TP, FP, FN of each tomogram.
    beta : float
        Weight of recall in Fbeta.
    level : float
        Share of the resampled values inside the interval.
    rounds : int
        Number of resamplings.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict
        For ``precision``, ``recall``, ``F1``, ``Fbeta`` the lower and upper end; NaN when there is nothing to score.
    """
    counts = np.asarray(counts, dtype=np.int64).reshape(-1, 3)
    total = int(counts.sum())
    if not total:
        return {name: (float("nan"), float("nan")) for name in RATIOS}
    rng = np.random.default_rng(seed)
    if len(counts) > 1:
        times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=rounds)
        drawn = times @ counts
    else:
        drawn = rng.multinomial(total, counts[0] / total, size=rounds)
    values = ratios(drawn[:, 0], drawn[:, 1], drawn[:, 2], beta)
    ends = (50 * (1 - level), 50 * (1 + level))
    return {name: _percentiles(values[name], ends) for name in RATIOS}


def z_profile(truth_z_vox: np.ndarray, picks_z_vox: np.ndarray, is_hit: np.ndarray, depth_vox: Optional[float] = None,
              bins: int = 24) -> Dict[str, np.ndarray]:
    """Return how truth, picks and hits are spread over depth.

    Parameters
    ----------
    truth_z_vox, picks_z_vox : (N,), (M,) float
        Depths in voxels.
    is_hit : (M,) bool
        Which picks are hits.
    depth_vox : float, optional
        Planes of the tomogram; default: what the deepest position needs. Positions outside count in the end bins.
    bins : int
        Number of bins.

    Returns
    -------
    dict
        ``edges_vox`` (bins + 1,), ``truth``, ``picks`` and ``hits`` (bins,).
    """
    everything = np.concatenate([truth_z_vox, picks_z_vox])
    depth = depth_vox or (float(np.ceil(everything.max() + 1)) if everything.size else 1.0)
    edges = np.linspace(-0.5, max(depth, 1.0) - 0.5, bins + 1)
    return {"edges_vox": edges, **{name: np.histogram(np.clip(z, edges[0], edges[-1]), edges)[0] for name, z in
                                   (("truth", truth_z_vox), ("picks", picks_z_vox), ("hits", picks_z_vox[is_hit]))}}


def distance_histogram(distances_vox: np.ndarray, bins: int = 20) -> Dict[str, np.ndarray]:
    """Return the histogram of hit distances (M,) in voxels: ``edges_vox`` (bins + 1,) from 0 and ``hits`` (bins,)."""
    largest = float(distances_vox.max()) if distances_vox.size else 0.0
    edges = np.linspace(0, max(largest, 1e-6) if largest else 1.0, bins + 1)
    return {"edges_vox": edges, "hits": np.histogram(distances_vox, edges)[0]}


def _percentiles(values: np.ndarray, ends: Tuple[float, float]) -> Tuple[float, float]:
    """Return two percentiles of the values that are not NaN; NaN when all are."""
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.percentile(known, ends)
    return float(low), float(high)
