"""Which tomograms are not like the others, by their picks: the number of them, their scores, their depth.

This is the one place where that is decided: the verdict on a run, the page of picks and the window to review in ask
here. A tomogram differs when it lies ``LIMIT`` robust standard deviations from the median of all (Iglewicz and Hoaglin
1993, How to detect and handle outliers), and by more than what is of no account however regular the others are. Where
numbers scatter by 30 % from tomogram to tomogram, one run in 15 then names one that is like the others.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

FEWEST = 5  # tomograms: among fewer none is unlike the others
LIMIT = 3.5  # robust standard deviations from the median
LEAST_FACTOR, LEAST_SCORE, LEAST_DEPTH = 2.0, 0.1, 0.25  # smaller differences are of no account
ENOUGH = 8  # picks, to speak of their scores and depth
CHANCE = 1.63  # Kolmogorov and Smirnov: the distance that chance exceeds in one of a hundred cases


class Depths(NamedTuple):
    """Where the picks of a tomogram lie: z (N,) in voxels, and the number of its planes."""

    z_vox: np.ndarray
    planes: int


@dataclasses.dataclass(frozen=True)
class Unlike:
    """How far a tomogram is from the others, in limits (more than 1 is remarkable), and in words what is unlike."""

    distance: float = 0.0
    reasons: Tuple[str, ...] = ()


def unlike_others(counts: Mapping[str, int], scores: Optional[Mapping[str, np.ndarray]] = None,
                  depths: Optional[Mapping[str, Depths]] = None) -> Dict[str, Unlike]:
    """Return for each tomogram how its picks differ from those of the others.

    Parameters
    ----------
    counts : mapping of str to int
        Number of picks by tomogram.
    scores : mapping of str to (N,) float, optional
        Scores of the picks; those that are NaN are left out.
    depths : mapping of str to Depths, optional
        Of the tomograms whose depth is known.

    Notes
    -----
    Numbers are compared on a logarithmic scale, their deviation never taken smaller than that of counting; scores by
    their medians. The depth is compared by the largest distance between the cumulated shares of a tomogram and of all
    others along z (Kolmogorov and Smirnov), in units of what chance gives in one of a hundred cases.
    """
    found: Dict[str, List[Tuple[float, str]]] = {name: [(0.0, "")] for name in counts}
    if len(counts) >= FEWEST:
        known = {name: own[np.isfinite(own)] for name, own in (scores or {}).items()}
        for part in (_numbers(counts), _scores(known), _depths(depths or {})):
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


def _scores(scores: Mapping[str, np.ndarray]) -> Dict[str, Tuple[float, str]]:
    """Return how far the medians of the scores lie from the middle one, in limits, and what to say of each."""
    medians = {name: float(np.median(own)) for name, own in scores.items() if len(own) >= ENOUGH}
    if len(medians) < FEWEST:
        return {}
    typical, away = float(np.median(list(medians.values()))), _away(np.array(list(medians.values())), LEAST_SCORE)
    return {name: (abs(d), f"{'low' if d < 0 else 'high'} scores: about {medians[name]:.2f}, others {typical:.2f}")
            for name, d in zip(medians, away)}


def _away(values: np.ndarray, least: float, spread: float = 0.0) -> np.ndarray:
    """Return how far values (T,) lie from their median, in limits: neither the deviation nor the limit is smaller."""
    apart = values - np.median(values)
    deviation = max(1.4826 * float(np.median(np.abs(apart))), spread)
    return np.asarray(apart / max(LIMIT * deviation, least))


def _depths(depths: Mapping[str, Depths]) -> Dict[str, Tuple[float, str]]:
    """Return how far the depth of the picks is from that of all others, in limits, and what to say of it."""
    shares = {name: np.sort((own.z_vox + 0.5) / own.planes) for name, own in depths.items()
              if len(own.z_vox) >= ENOUGH}
    out = {}
    for name, own in shares.items():
        others = np.sort(np.concatenate([np.zeros(0), *(s for other, s in shares.items() if other != name)]))
        if len(others) < ENOUGH:
            continue
        every = np.concatenate([own, others])
        apart = np.abs(np.searchsorted(own, every, "right") / len(own)
                       - np.searchsorted(others, every, "right") / len(others)).max()
        chance = CHANCE * np.sqrt((len(own) + len(others)) / (len(own) * len(others)))
        out[name] = (float(apart / max(chance, LEAST_DEPTH)),
                     f"picks at {np.median(own):.0%} of the depth, others at {np.median(others):.0%}"
                     if abs(np.median(own) - np.median(others)) > 0.05 else "picks spread otherwise along z")
    return out
