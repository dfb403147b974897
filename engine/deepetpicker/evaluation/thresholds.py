"""The score threshold of each class, where F1 is best on particles that are known, and the figures there."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.calibration import Calibration
from deepetpicker.evaluation.curves import Hits, ScoreCurve, curve_of, hits_of, together
from deepetpicker.evaluation.matching import distance_candidates, match_by_distance
from deepetpicker.io.coordinates import CoordinateTable

Pairs = Sequence[Tuple[CoordinateTable, CoordinateTable]]

DEFAULT_THRESHOLD = 0.3
UNKNOWN_THRESHOLD = 0.5  # where many particles are not in the truth
FEWEST = 5  # so many particles say something about scores
FEWEST_OF_SOME = 20  # fewer of many particles may lower a threshold, but raise none: the others may score less
ENOUGH = 0.8  # of the particles that are found at all
DECIMALS = 5  # of a threshold: scores have four, so that one halfway between two of them is exact


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How well one class was picked at its threshold.

    Attributes
    ----------
    class_id : int
        The class.
    threshold : float
        Lowest score of a pick.
    precision, recall, f1 : float
        At the threshold; NaN without true particles.
    average_precision : float
        Over all thresholds; NaN without true particles.
    n_true, n_picks : int
        True particles, and candidates at or above the threshold.
    n_like_true : int
        Candidates that hit nothing, yet score at least as well as the middle one of those that do: particles that
        nobody annotated, if there are many.
    """

    class_id: int
    threshold: float
    precision: float
    recall: float
    f1: float
    average_precision: float
    n_true: int
    n_picks: int
    n_like_true: int = 0


@dataclasses.dataclass(frozen=True)
class PickScores:
    """How well all classes were picked, each at its own threshold.

    Attributes
    ----------
    classes : tuple of ClassScore
        In the order of the classes.
    threshold : float
        The one threshold at which all classes together would have their best F1.
    distance_vox : float
        Mean distance of the hits to the true centre; NaN without hits.
    calibrations : tuple of Calibration or None
        Of each class; thresholds are probabilities where there is one. Empty as long as all scores are peak heights.
    """

    classes: Tuple[ClassScore, ...]
    threshold: float
    distance_vox: float
    calibrations: Tuple[Optional[Calibration], ...] = ()

    @property
    def n_true(self) -> int:
        """True particles of all classes."""
        return sum(one.n_true for one in self.classes)

    def mean(self, name: str) -> float:
        """Return the mean of a figure over the classes that have true particles; NaN when none has.

        Parameters
        ----------
        name : str
            ``precision``, ``recall``, ``f1`` or ``average_precision``.
        """
        values = [float(getattr(one, name)) for one in self.classes if one.n_true]
        return sum(values) / len(values) if values else float("nan")


def score_picks(pairs: Pairs, radii_vox: Mapping[int, float], floor: float, is_complete: bool = True,
                otherwise: Optional[float] = None) -> PickScores:
    """Return how well each class is picked at the threshold where its F1 is best, from its exact curve.

    Parameters
    ----------
    pairs : sequence of (truth, candidates)
        Tables on the same grid, a pair per tomogram.
    radii_vox : mapping
        Class id to the largest distance of a hit.
    floor : float
        Score below which there are no candidates.
    is_complete : bool
        False when many particles are not in the truth, so that a false pick may well be right.
    otherwise : float, optional
        Threshold where the particles say nothing about it; 0.3, or 0.5 for an incomplete truth.

    Notes
    -----
    The threshold lies halfway between the candidate at which F1 is best and the next one below. A class with fewer than
    five true particles gets the threshold of all classes together; with fewer than five of all, or when nothing is hit,
    the threshold is ``otherwise``: so few say nothing about scores. Of an incomplete truth fewer than twenty do not
    raise it above ``otherwise``: wherever five particles are found, the next one of many may score less.

    With an incomplete truth precision is not known and F1 says nothing. Its place takes recall^2 / picks, which is
    proportional to precision * recall when any particle is as likely to be in the truth as another (Lee and Liu 2003,
    ICML), among the thresholds that find at least four fifths of what is found at all: few particles scatter.
    """
    if otherwise is None:
        otherwise = DEFAULT_THRESHOLD if is_complete else UNKNOWN_THRESHOLD
    hits = {class_id: class_hits(pairs, class_id, radius) for class_id, radius in radii_vox.items()}
    found = {class_id: curve_of(own) for class_id, own in hits.items()}
    common = best_threshold(curve_of(together(hits.values())), floor, is_complete, otherwise)
    limits = {c: best_threshold(curve, floor, is_complete, otherwise) if curve.n_truth >= FEWEST else common
              for c, curve in found.items()}
    classes = tuple(_class_score(class_id, curve, limits[class_id]) for class_id, curve in found.items())
    return PickScores(classes, common, _mean_distance(pairs, radii_vox, limits))


def best_threshold(curve: ScoreCurve, floor: float, is_complete: bool = True,
                   otherwise: float = DEFAULT_THRESHOLD) -> float:
    """Return the best threshold, halfway to the next score below (or the floor).

    Parameters
    ----------
    curve : ScoreCurve
        Of the class, or of all.
    floor : float
        Score below which there are no candidates.
    is_complete : bool
        Whether best means F1 or, for an incomplete truth, recall^2 / picks.
    otherwise : float
        Threshold where the curve says nothing.
    """
    if curve.n_truth < FEWEST or not len(curve) or not curve.tp[-1]:
        return otherwise
    worth = curve.metrics()["F1"] if is_complete else np.where(
        curve.tp >= ENOUGH * curve.tp[-1], curve.tp.astype(float) ** 2 / (curve.tp + curve.fp), 0.0)
    at = int(np.argmax(worth))
    below = float(curve.thresholds[at + 1]) if at + 1 < len(curve) else floor
    best = round((float(curve.thresholds[at]) + below) / 2, DECIMALS)
    return best if is_complete or curve.n_truth >= FEWEST_OF_SOME else min(best, otherwise)


def class_hits(pairs: Pairs, class_id: int, radius_vox: float) -> Hits:
    """Return the hits of one class over all pairs."""
    return hits_of((distance_candidates(_only(truth, class_id), _only(candidates, class_id), radius_vox),
                    _only(candidates, class_id).scores) for truth, candidates in pairs)


def _only(table: CoordinateTable, class_id: int) -> CoordinateTable:
    """Return the rows of one class."""
    return table.select(table.class_ids == class_id)


def _class_score(class_id: int, curve: ScoreCurve, threshold: float) -> ClassScore:
    """Return the figures of a class at its threshold."""
    at = curve.at(threshold)
    known = 1.0 if curve.n_truth else float("nan")
    middle = int(np.searchsorted(curve.tp, (curve.tp[-1] + 1) // 2)) if len(curve) and curve.tp[-1] else -1
    return ClassScore(class_id, threshold, at["precision"] * known, at["recall"] * known, at["F1"] * known,
                      curve.average_precision, curve.n_truth, int(at["TP"] + at["FP"]),
                      int(curve.fp[middle]) if middle >= 0 else 0)


def _mean_distance(pairs: Pairs, radii_vox: Mapping[int, float], limits: Dict[int, float]) -> float:
    """Return the mean distance of the hits of all classes at their thresholds; NaN without hits."""
    distances: List[np.ndarray] = [np.zeros(0)]
    for truth, candidates in pairs:
        for class_id, radius in radii_vox.items():
            kept = candidates.select((candidates.class_ids == class_id) & (candidates.scores >= limits[class_id]))
            distances.append(match_by_distance(truth.select(truth.class_ids == class_id), kept, radius).distances_vox)
    every = np.concatenate(distances)
    return float(every.mean()) if len(every) else float("nan")
