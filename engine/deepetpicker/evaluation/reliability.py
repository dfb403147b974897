"""Scores read as probabilities: how often a pick of a score is right, and how far the scores are from that."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from deepetpicker.calibration import Calibration
from deepetpicker.evaluation.curves import together
from deepetpicker.evaluation.thresholds import FEWEST, Pairs, PickScores, class_hits

BINS = 10
ISOTONIC = 400  # so many particles are enough for a map of any shape
PRIOR = 0.5  # right and wrong candidates more than were seen
PULL = 2.0  # candidates' weight with which the logistic map draws a block of the isotonic one
KNOTS = 51  # of a logistic map
LEAST_SLOPE = 0.01  # of any map, so that the order of scores never changes


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Picks in bins of their score, of equal width from 0 to 1.

    Attributes
    ----------
    n_picks : (B,) int64
        Picks in each bin.
    predicted, observed : (B,) float
        Their mean score, and the share of them that is right; NaN in an empty bin.
    """

    n_picks: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of predicted and observed over all picks; NaN without any."""
        total = int(self.n_picks.sum())
        if not total:
            return float("nan")
        return float(np.nansum(self.n_picks * np.abs(self.predicted - self.observed)) / total)

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, (B + 1,)."""
        return np.linspace(0, 1, len(self.n_picks) + 1)

    def to_dict(self) -> Dict[str, Any]:
        """Return the bins as lists, with ``edges`` and ``calibration_error``."""
        return {"edges": self.edges.tolist(), "picks": self.n_picks.tolist(), "predicted": self.predicted.tolist(),
                "observed": self.observed.tolist(), "calibration_error": self.error}


def reliability(scores: np.ndarray, is_right: np.ndarray, bins: int = BINS) -> Reliability:
    """Return how reliable scores are as probabilities of being right.

    Parameters
    ----------
    scores : (N,) float
        Scores; those outside 0 to 1 are no probabilities and make all bins empty, NaN are left out.
    is_right : (N,) bool
        Which picks are right.
    bins : int
        Number of bins.

    Source: Guo et al. 2017, ICML 70:1321 (expected calibration error).
    """
    known = np.isfinite(scores)
    scores, right = np.asarray(scores, float)[known], np.asarray(is_right, bool)[known]
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        scores, right = np.zeros(0), np.zeros(0, bool)
    at = np.minimum((scores * bins).astype(np.int64), bins - 1)
    n_picks = np.bincount(at, minlength=bins)
    share = np.where(n_picks > 0, n_picks, np.nan)
    return Reliability(n_picks, np.bincount(at, scores, bins) / share, np.bincount(at, right, bins) / share)


def reliability_csv(classes: Mapping[str, Reliability]) -> str:
    """Return the bins of classes by name as CSV text, a row per class and bin; what is not defined is empty.

    The calibration error of a class stands in each of its rows.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["class", "score_from", "score_to", "picks", "predicted", "observed", "calibration_error"])
    for name, one in classes.items():
        for row in zip(one.edges[:-1], one.edges[1:], one.n_picks.tolist(), one.predicted, one.observed):
            cells = [*row, one.error]
            writer.writerow([name, *("" if c != c else f"{c:.6g}" for c in cells)])
    return stream.getvalue()


def calibrated(picks: PickScores, pairs: Pairs, radii_vox: Mapping[int, float], floor: float) -> PickScores:
    """Return how well classes are picked with thresholds that are probabilities, and the maps that make scores so.

    A class with too few particles takes the map of all classes together; where these are too few, nothing changes.

    Parameters
    ----------
    picks, pairs, radii_vox, floor
        As :func:`~deepetpicker.evaluation.thresholds.score_picks` takes and returns them.
    """
    hits = {one.class_id: class_hits(pairs, one.class_id, radii_vox[one.class_id]) for one in picks.classes}
    shared = fit_calibration(*together(hits.values()), floor)
    if shared is None:
        return picks
    maps = [fit_calibration(*hits[one.class_id], floor) or dataclasses.replace(shared, is_shared=True)
            for one in picks.classes]
    classes = tuple(dataclasses.replace(one, threshold=_of_threshold(scale, one.threshold))
                    for one, scale in zip(picks.classes, maps))
    return dataclasses.replace(picks, classes=classes, threshold=_of_threshold(shared, picks.threshold),
                               calibrations=tuple(maps))


def _of_threshold(scale: Calibration, threshold: float) -> float:
    """Return the probability of a threshold."""
    return float(scale(np.array([threshold]))[0])


def fit_calibration(scores: np.ndarray, is_right: np.ndarray, n_particles: int, floor: float) -> Optional[Calibration]:
    """Return the map from scores to the probability of being right that held-out candidates suggest.

    Parameters
    ----------
    scores : (N,) float
        Scores of all candidates, in [0, 1).
    is_right : (N,) bool
        Which of them are right.
    n_particles : int
        Particles that there were to find.
    floor : float
        Score below which there are no candidates.

    Returns
    -------
    Calibration or None
        A logistic function of the score's logit; with 400 particles or more an isotonic map, whose blocks are drawn
        a little to the logistic one. None with fewer than five particles or right candidates: so few say nothing.

    Notes
    -----
    The prior is weak: half a right and half a wrong candidate more than were seen, as Jeffreys' for a share, so that n
    right ones of n give (n + 1/2) / (n + 1) and never 1. One wrong candidate is put at the floor: where all that were
    seen are right, nothing is known of lower scores.

    Sources: Platt 1999, Advances in Large Margin Classifiers, 61-74; Zadrozny and Elkan 2002, KDD 694-699.
    """
    right = np.asarray(is_right, bool)
    if n_particles < FEWEST or right.sum() < FEWEST:
        return None
    seen, found = np.append(np.asarray(scores, float), floor), np.append(right, False)
    if n_particles < ISOTONIC:
        knots, method = np.linspace(0, 1, KNOTS), "logistic"
        values = _logistic(_logit(seen), found, _logit(knots))
    else:
        middles, share, n = _blocks(seen, found)
        drawn = (share * n + PULL * _logistic(_logit(seen), found, _logit(middles))) / (n + PULL)
        end = int(middles[-1] < 1)  # the height of a peak may be rounded up to 1
        knots = np.concatenate([[0.0], middles, [1.0][:end]])
        values = np.concatenate([drawn[:1], drawn, drawn[-1:][:end]])
        values, method = np.maximum.accumulate(values), "isotonic"
    rising = np.clip((1 - LEAST_SLOPE) * values + LEAST_SLOPE * knots, 0, 1)
    return Calibration(tuple(knots.round(8).tolist()), tuple(rising.round(8).tolist()), int(n_particles), len(right),
                       method)


def _logit(scores: np.ndarray) -> np.ndarray:
    """Return the logarithm of the odds of scores, those of 0 and 1 made finite."""
    inside = np.clip(scores, 1e-4, 1 - 1e-4)
    return np.log(inside / (1 - inside))


def _logistic(x: np.ndarray, is_right: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the fitted logistic function of x (N,) at some places (K,); it does not fall."""
    n_right, n_wrong = int(is_right.sum()), int((~is_right).sum())
    wanted = np.where(is_right, (n_right + PRIOR) / (n_right + 2 * PRIOR), PRIOR / (n_wrong + 2 * PRIOR))
    centre, spread = float(x.mean()), max(float(x.std()), 1e-6)
    inputs = np.stack([(x - centre) / spread, np.ones_like(x)], axis=1)
    weights = np.zeros(2)
    for _ in range(100):  # Newton's method, in bounded steps
        p = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (p - wanted)
        bend = (inputs * (p * (1 - p))[:, None]).T @ inputs + 1e-9 * np.eye(2)
        step = np.linalg.solve(bend, slope)
        step *= min(1.0, 2 / max(float(np.linalg.norm(step)), 1e-12))
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    if weights[0] <= 0:  # the right ones score no better than the wrong ones
        return np.full(len(at), wanted.mean())
    return np.asarray(1 / (1 + np.exp(-((at - centre) / spread * weights[0] + weights[1]))))


def _blocks(scores: np.ndarray, is_right: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the blocks of the non-decreasing map nearest to what was right (pool adjacent violators).

    Returns
    -------
    tuple of (K,) float
        Mean score, share of right ones and number of the candidates of each block.
    """
    unique, which = np.unique(scores, return_inverse=True)
    counts, rights = np.bincount(which), np.bincount(which, is_right)
    blocks: List[Tuple[float, float, float]] = []  # sum of scores, right ones, candidates
    for score, right, count in zip(unique.tolist(), rights.tolist(), counts.tolist()):
        blocks.append((score * count, right, float(count)))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    total, right_ones, n = np.array(blocks).T
    return total / n, right_ones / n, n
