"""Metrics as functions of the score threshold, in one pass over the picks."""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterable, List, NamedTuple, Tuple

import numpy as np

from deepetpicker.errors import InputError
from deepetpicker.evaluation.matching import Candidates, hits_by_score
from deepetpicker.evaluation.measures import ratios


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreCurve:
    """Counts at every distinct score taken as threshold; picks at the threshold itself are kept.

    Parameters
    ----------
    thresholds : (T,) float
        The distinct scores, highest first; T may be 0.
    tp, fp : (T,) int64
        Hits and false positives among the picks at or above each threshold.
    n_truth : int
        Number of true particles.
    beta : float
        Weight of recall in Fbeta.
    """

    thresholds: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    n_truth: int
    beta: float = 4.0

    def __len__(self) -> int:
        """Return the number of distinct scores."""
        return len(self.thresholds)

    def metrics(self) -> Dict[str, np.ndarray]:
        """Return ``precision``, ``recall``, ``F1`` and ``Fbeta`` at each threshold, each (T,)."""
        return ratios(self.tp, self.fp, self.n_truth - self.tp, self.beta)

    @property
    def average_precision(self) -> float:
        """Sum over thresholds of precision times gain in recall; 0 without picks, NaN without truth."""
        if not self.n_truth:
            return float("nan")
        values = self.metrics()
        return float((values["precision"] * np.diff(values["recall"], prepend=0.0)).sum())

    def best(self, metric: str = "F1") -> Dict[str, float]:
        """Return the threshold at which a metric is largest, the highest one of several.

        Parameters
        ----------
        metric : str
            ``precision``, ``recall``, ``F1`` or ``Fbeta``.

        Returns
        -------
        dict
            ``threshold``, ``value`` (of the metric), ``precision`` and ``recall`` there; all NaN on an empty curve.

        Raises
        ------
        InputError
            If there is no such metric.
        """
        values = self.metrics()
        if metric not in values:
            raise InputError(f"metric must be one of {', '.join(values)}, got {metric!r}")
        if not len(self) or np.isnan(values[metric]).all():
            return dict.fromkeys(("threshold", "value", "precision", "recall"), float("nan"))
        i = int(np.nanargmax(values[metric]))
        return {"threshold": float(self.thresholds[i]), "value": float(values[metric][i]),
                "precision": float(values["precision"][i]), "recall": float(values["recall"][i])}

    def at(self, threshold: float) -> Dict[str, float]:
        """Return ``TP``, ``FP``, ``precision``, ``recall``, ``F1``, ``Fbeta`` of the picks at or above a threshold."""
        kept = int((self.thresholds >= threshold).sum())
        tp, fp = (int(self.tp[kept - 1]), int(self.fp[kept - 1])) if kept else (0, 0)
        return {"TP": tp, "FP": fp, **{n: float(v) for n, v in ratios(tp, fp, self.n_truth - tp, self.beta).items()}}

    def rows(self, limit: int = 0) -> List[Dict[str, float]]:
        """Return the curve as a list of table rows, highest threshold first.

        Parameters
        ----------
        limit : int
            At most so many rows, evenly chosen with both ends; 0 means all.
        """
        values = self.metrics()
        index = np.arange(len(self))
        if 0 < limit < len(self):
            index = np.unique(np.linspace(0, len(self) - 1, limit).round().astype(int))
        return [{"threshold": float(self.thresholds[i]), "TP": int(self.tp[i]), "FP": int(self.fp[i]),
                 "FN": int(self.n_truth - self.tp[i]), **{n: float(v[i]) for n, v in values.items()}} for i in index]


class Hits(NamedTuple):
    """Picks, taken best score first: what a curve is made of.

    Parameters
    ----------
    scores : (M,) float
        Their scores; NaN where there is none.
    adds_hit : (M,) bool
        Which of them add a hit.
    n_truth : int
        True particles.
    """

    scores: np.ndarray
    adds_hit: np.ndarray
    n_truth: int


def hits_of(tomograms: Iterable[Tuple[Candidates, np.ndarray]]) -> Hits:
    """Return the hits in one or more tomograms, each with the allowed pairs and the scores (M,) of its picks.

    The picks are taken once, best score first; the number of hits at each threshold is nevertheless that of the
    largest one-to-one matching of the picks at or above it, under both hit rules.
    """
    return together(Hits(scores, hits_by_score(pairs, scores), pairs.n_truth) for pairs, scores in tomograms)


def together(parts: Iterable[Hits]) -> Hits:
    """Return the hits of several tomograms or classes in a row."""
    every = [Hits(np.zeros(0), np.zeros(0, bool), 0), *parts]
    return Hits(np.concatenate([one.scores for one in every]), np.concatenate([one.adds_hit for one in every]),
                sum(one.n_truth for one in every))


def curve_of(hits: Hits, beta: float = 4.0) -> ScoreCurve:
    """Return the curve over the score threshold; picks without a score are left out. Recall weighs beta in Fbeta."""
    known = ~np.isnan(hits.scores)
    order = np.argsort(-hits.scores[known], kind="stable")
    scores, adds_hit = hits.scores[known][order], hits.adds_hit[known][order]
    last = np.flatnonzero(np.diff(scores, append=-np.inf)) if len(scores) else np.zeros(0, np.int64)
    tp = np.cumsum(adds_hit, dtype=np.int64)[last]
    return ScoreCurve(scores[last], tp, last + 1 - tp, int(hits.n_truth), beta)
