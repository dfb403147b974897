"""Which tomograms are not like the others, by their picks: the number of them, their scores, their depth.

This is the one place where that is decided: the verdict on a run, the page of picks and the window to review in ask
here. A tomogram differs when it lies ``LIMIT`` robust standard deviations from the median of all (Iglewicz and Hoaglin
1993, How to detect and handle outliers), and by more than what is of no account however regular the others are. Where
numbers scatter by 30 % from tomogram to tomogram, one run in 15 then names one that is like the others.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

FEWEST = 5  # tomograms: among fewer none is unlike the others
LIMIT = 3.5  # robust standard deviations from the median
LEAST_FACTOR, LEAST_SCORE, LEAST_DEPTH = 2.0, 0.1, 0.25  # smaller differences are of no account
ENOUGH = 8  # picks, to speak of their scores and depth
CHANCE = 1.63  # Kolmogorov and Smirnov: the distance that chance exceeds in one of a hundred cases
LAYERS = 50  # equal parts of the depth, in which picks are counted


@dataclasses.dataclass(frozen=True)
class Spread:
    """What is compared of the picks of a tomogram, small enough for its record.

    Attributes
    ----------
    count : int
        Picks.
    n_scored : int
        Those with a score.
    score : float or None
        The median of these; None without any.
    by_class : mapping of int to (int, float)
        The same of each class that has any: scored picks, and the median of their scores; empty in older records.
    layers : tuple of int
        Picks in each of ``LAYERS`` equal parts of the depth, from z = 0 up; empty where the depth is not known.
    """

    count: int
    n_scored: int = 0
    score: Optional[float] = None
    layers: Tuple[int, ...] = ()
    by_class: Mapping[int, Tuple[int, float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, scores: np.ndarray, z_vox: np.ndarray, planes: Optional[int] = None,
           class_ids: Optional[np.ndarray] = None) -> Spread:
        """Return that of picks.

        Parameters
        ----------
        scores, z_vox : (N,) float
            Scores, where a NaN is none, and depths in voxels.
        planes : int, optional
            Planes of the tomogram, where they are known.
        class_ids : (N,) int, optional
            The class of each pick; without, all are of one.
        """
        is_scored, layers = np.isfinite(scores), ()
        known = np.asarray(scores)[is_scored]
        kinds = np.zeros(len(known), int) if class_ids is None else np.asarray(class_ids)[is_scored]
        by_class = {int(c): (int((kinds == c).sum()), float(np.median(known[kinds == c]))) for c in np.unique(kinds)}
        if planes:
            edges = np.linspace(-0.5, planes - 0.5, LAYERS + 1)
            layers = tuple(np.histogram(np.clip(z_vox, edges[0], edges[-1]), edges)[0].tolist())
        return cls(len(scores), len(known), float(np.median(known)) if len(known) else None, layers, by_class)

    def to_dict(self) -> Dict[str, Any]:
        """Return it as JSON-ready values."""
        return {**dataclasses.asdict(self), "layers": list(self.layers),
                "by_class": {str(c): list(facts) for c, facts in self.by_class.items()}}

    @classmethod
    def of_item(cls, item: Mapping[str, Any]) -> Optional[Spread]:
        """Return that of an item of a manifest of ``pick``; the number alone of older ones, None without even that."""
        found = item.get("spread")
        if isinstance(found, Mapping):
            values: Dict[str, Any] = {field.name: found.get(field.name) for field in dataclasses.fields(cls)}
            layers = values["layers"] if isinstance(values["layers"], list) else []
            by_class = _by_class(found.get("by_class", {}))
            if _are_counts([values["count"], values["n_scored"], *layers]) and len(layers) in (0, LAYERS) and (
                    values["score"] is None or _is_number(values["score"])) and by_class is not None:
                return cls(**{**values, "layers": tuple(layers), "by_class": by_class})
        return cls(item["n_picks"]) if _are_counts([item.get("n_picks")]) else None


def _by_class(value: Any) -> Optional[Dict[int, Tuple[int, float]]]:
    """Return what a record has of each class; None where it is not of that form."""
    if not isinstance(value, Mapping):
        return None
    out: Dict[int, Tuple[int, float]] = {}
    for name, facts in value.items():
        if not (str(name).isdecimal() and isinstance(facts, list) and len(facts) == 2 and _are_counts(facts[:1])
                and _is_number(facts[1])):
            return None
        out[int(name)] = (facts[0], float(facts[1]))
    return out


def _is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_counts(values: List[Any]) -> bool:
    """Tell whether all values are whole numbers from 0."""
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)


@dataclasses.dataclass(frozen=True)
class Unlike:
    """How far a tomogram is from the others, in limits (more than 1 is remarkable), and in words what is unlike."""

    distance: float = 0.0
    reasons: Tuple[str, ...] = ()


def unlike_others(spreads: Mapping[str, Spread]) -> Dict[str, Unlike]:
    """Return for each tomogram how its picks differ from those of the others.

    Parameters
    ----------
    spreads : mapping of str to Spread
        Of the tomograms by name.

    Notes
    -----
    Numbers are compared on a logarithmic scale, their deviation never taken smaller than that of counting; scores by
    their medians, each class with the same class of the others, so that another mixture of classes is nothing unlike.
    The depth is compared by the largest distance between the cumulated shares of a tomogram and of all
    others along z (Kolmogorov and Smirnov), in units of what chance gives in one of a hundred cases.
    """
    found: Dict[str, List[Tuple[float, str]]] = {name: [(0.0, "")] for name in spreads}
    if len(spreads) >= FEWEST:
        for part in (_numbers({name: one.count for name, one in spreads.items()}), _scores(spreads), _depths(spreads)):
            for name, one in part.items():
                found[name].append(one)
    return {name: Unlike(max(d for d, _ in every), tuple(text for d, text in every if d > 1))
            for name, every in found.items()}


def _numbers(counts: Mapping[str, int]) -> Dict[str, Tuple[float, str]]:
    """Return how far the numbers of picks lie from the middle one, in limits, and what to say of each."""
    typical = float(np.median(list(counts.values())))
    away = _away(np.log1p(list(counts.values())), math.log(LEAST_FACTOR), 1 / math.sqrt(typical + 1))
    return {name: (abs(d), f"{'few' if d < 0 else 'many'} picks: {counts[name]}, others about {typical:.0f}")
            for name, d in zip(counts, away)}


def _scores(spreads: Mapping[str, Spread]) -> Dict[str, Tuple[float, str]]:
    """Return how far the scores lie from what is usual for their classes, in limits, and what to say of each."""
    known = {name: _kinds(one, all(other.by_class for other in spreads.values() if other.n_scored))
             for name, one in spreads.items() if one.score is not None and one.n_scored >= ENOUGH}
    if len(known) < FEWEST:
        return {}
    ids = {c for kinds in known.values() for c in kinds}
    usual = {c: float(np.median([kinds[c][1] for kinds in known.values() if c in kinds])) for c in ids}
    apart = np.array([sum(n * (median - usual[c]) for c, (n, median) in kinds.items())
                      / sum(n for n, _ in kinds.values()) for kinds in known.values()])
    return {name: (abs(d), f"{'low' if d < 0 else 'high'} scores: " + (
        f"about {spreads[name].score:.2f}, others {usual[min(ids)]:.2f}" if len(ids) == 1 else
        f"about {abs(by):.2f} {'below' if by < 0 else 'above'} what is usual for their classes"))
            for name, by, d in zip(known, apart, _away(apart, LEAST_SCORE))}


def _kinds(spread: Spread, by_class: bool) -> Mapping[int, Tuple[int, float]]:
    """Return scored picks and their median by class, or those of all as of one class."""
    return spread.by_class if by_class else {0: (spread.n_scored, float(spread.score or 0.0))}


def _away(values: np.ndarray, least: float, spread: float = 0.0) -> np.ndarray:
    """Return how far values (T,) lie from their median, in limits: neither the deviation nor the limit is smaller."""
    apart = values - np.median(values)
    deviation = max(1.4826 * float(np.median(np.abs(apart))), spread)
    return np.asarray(apart / max(LIMIT * deviation, least))


def _depths(spreads: Mapping[str, Spread]) -> Dict[str, Tuple[float, str]]:
    """Return how far the depth of the picks is from that of all others, in limits, and what to say of it."""
    layers = {name: np.array(one.layers) for name, one in spreads.items() if sum(one.layers) >= ENOUGH}
    every, out = sum(layers.values(), np.zeros(LAYERS)), {}
    for name, own in layers.items():
        others = every - own
        n_own, n_others = own.sum(), others.sum()
        if n_others < ENOUGH:
            continue
        apart = np.abs(np.cumsum(own) / n_own - np.cumsum(others) / n_others).max()
        chance = CHANCE * np.sqrt((n_own + n_others) / (n_own * n_others))
        middle, usual = _middle(own), _middle(others)
        out[name] = (float(apart / max(chance, LEAST_DEPTH)),
                     f"picks at {middle:.0%} of the depth, others at {usual:.0%}"
                     if abs(middle - usual) > 0.05 else "picks spread otherwise along z")
    return out


def _middle(layers: np.ndarray) -> float:
    """Return at which share of the depth half of the picks of layers (``LAYERS``,) lie on either side."""
    shares = np.concatenate([[0.0], np.cumsum(layers) / layers.sum()])
    return float(np.interp(0.5, shares, np.linspace(0, 1, LAYERS + 1)))
