"""From the height of a peak to the probability that a pick is right: a map for each class, stored in the model."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

METHODS = ("logistic", "isotonic")
DECIMALS = 8  # of probabilities: peak heights have four, thresholds five, and their order must not change


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A strictly rising map from peak heights to probabilities, linear between knots.

    Attributes
    ----------
    peaks, probabilities : tuple of float
        The knots, (K,) each, strictly rising, within 0 to 1.
    n_particles, n_picks : int
        Held-out particles and candidates that it rests on.
    method : str
        How it was found: ``logistic`` or ``isotonic``.
    is_shared : bool
        It rests on the particles of all classes together, because the class has too few of its own.
    """

    peaks: Tuple[float, ...]
    probabilities: Tuple[float, ...]
    n_particles: int
    n_picks: int
    method: str
    is_shared: bool = False

    def __call__(self, peaks: np.ndarray) -> np.ndarray:
        """Return the probability of being right for peak heights (N,) in [0, 1)."""
        return np.interp(np.asarray(peaks, float), self.peaks, self.probabilities).round(DECIMALS)

    def __str__(self) -> str:
        whose = "all classes together" if self.is_shared else "its own"
        return f"{self.method}, from {self.n_particles} held-out particles of {whose} and {self.n_picks} candidates"

    def to_dict(self) -> Dict[str, Any]:
        """Return the map as JSON-ready values."""
        return {**dataclasses.asdict(self), "peaks": list(self.peaks), "probabilities": list(self.probabilities)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Return what :meth:`to_dict` wrote, or raise ValueError or TypeError for anything else."""
        if not isinstance(content, Mapping):
            raise TypeError(f"a calibration must be an object, got {content!r:.40}")
        peaks, probabilities = (tuple(float(v) for v in content.get(key) or ()) for key in ("peaks", "probabilities"))
        for values in (peaks, probabilities):
            rises = all(a < b for a, b in zip(values, values[1:]))
            if len(values) < 2 or not rises or not all(math.isfinite(v) and 0 <= v <= 1 for v in values):
                raise ValueError("the knots of a calibration must rise within 0 to 1")
        if len(peaks) != len(probabilities) or content.get("method") not in METHODS:
            raise ValueError(f"a calibration needs as many probabilities as peaks and one of the methods {METHODS}")
        return cls(peaks, probabilities, int(content["n_particles"]), int(content["n_picks"]), str(content["method"]),
                   bool(content.get("is_shared")))


def calibrated(heights: np.ndarray, class_ids: np.ndarray, maps: Mapping[int, Optional[Calibration]]) -> np.ndarray:
    """Return the scores (N,) of candidates: the probability of being right, or the height where there is no map.

    Parameters
    ----------
    heights : (N,) float
        Peak heights in [0, 1).
    class_ids : (N,) int
        Their classes.
    maps : mapping
        Class id to its map.
    """
    scores = np.array(heights, float)
    for class_id, scale in maps.items():
        mine = class_ids == class_id
        scores[mine] = scores[mine] if scale is None else scale(scores[mine])
    return scores


def scores_are(scale: Optional[Calibration]) -> str:
    """Return in words what the scores of a class are, given its map."""
    return f"scores are probabilities ({scale})" if scale else "scores are peak heights: not calibrated"
