"""How far places stand out of a tomogram, and whether that is as far as particles do; truth and network not needed.

A network that few labels taught is sure of empty ground now and then. Particles of one kind are all brighter, or all
darker, than what lies around them, so a find that stands out less than half as far as the faintest annotated particle
is hardly one (docs/studies.rst).
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, List, Optional, Sequence

import numpy as np

from deepetpicker.errors import InputError, OutputError
from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.scene import Scene

log = logging.getLogger(__name__)

NEAR = 0.3  # diameters: a pick may be so far from the centre, so the place about it that stands out most counts
SHARE = 0.5  # of how far the faintest particle stands out
MISPLACED = 0.05  # share of annotated particles that may lie in empty ground
FEWEST = 3  # particles: fewer say too little
AT_ONCE = 4096  # places: so many take less memory than picking itself


def prominence(volume: Volume, positions_zyx_vox: np.ndarray, diameter_ang: float) -> np.ndarray:
    """Return how far places stand out at the size of a particle, bright and dark.

    Parameters
    ----------
    volume : Volume
        The tomogram.
    positions_zyx_vox : (N, 3) float
        Places in its voxels; N may be 0.
    diameter_ang : float
        Of the particle, in angstrom.

    Returns
    -------
    (N, 2) float64
        Largest response of :func:`~deepetpicker.preparation.scene.blob_response` within 0.3 diameters, and the largest
        of its negative, in robust standard deviations of the tomogram; NaN where it cannot be told (near a bead, or
        everywhere: a particle of fewer than 4 voxels, a tomogram without contrast, no room for a scratch file).
    """
    places = np.asarray(positions_zyx_vox, float).reshape(-1, 3)
    if not len(places):
        return np.empty((0, 2))
    try:
        scene = Scene.open(volume, diameter_ang)
        response = scene.response_zyx
    except InputError:
        return np.full((len(places), 2), np.nan)
    except OutputError as error:  # what it is for is a second opinion, which is no reason to fail
        log.warning("%s: how far places stand out is not known: %s", volume.name, error)
        return np.full((len(places), 2), np.nan)
    reach = 2 * NEAR * scene.radius_vox
    half = int(reach)
    steps = np.argwhere(np.ones((2 * half + 1,) * 3)) - half
    steps = steps[np.linalg.norm(steps, axis=1) <= reach]
    parts = [_standing_out(response, scene.voxels(places[at:at + AT_ONCE])[:, None] + steps)
             for at in range(0, len(places), AT_ONCE)]
    return np.concatenate(parts)


def _standing_out(response_zyx: np.ndarray, around_zyx_vox: np.ndarray) -> np.ndarray:
    """Return the largest response, and the largest of its negative, in voxels (N, K, 3) about N places, (N, 2)."""
    around = np.clip(around_zyx_vox, 0, np.array(response_zyx.shape) - 1)
    near = np.asarray(response_zyx[tuple(np.moveaxis(around, -1, 0))], float)
    near[(near == 0).any(1)] = np.nan  # a bead's surroundings
    return np.stack([near.max(1), (-near).max(1)], 1)


@dataclasses.dataclass(frozen=True)
class StandsOut:
    """How far the annotated particles of a class stand out.

    Attributes
    ----------
    is_dark : bool
        Whether they are darker than what lies around them.
    least, typical : float
        How far the faintest of them does, but for the odd misplaced one, and their median.
    """

    is_dark: bool
    least: float
    typical: float

    @classmethod
    def of(cls, values: np.ndarray) -> Optional[StandsOut]:
        """Return it from the prominence (N, 2) of annotated particles; None where these are too few to tell."""
        values = values[np.isfinite(values).all(1)]
        if len(values) < FEWEST:
            return None
        side = int(np.argmax(np.median(values, axis=0)))
        mine = np.sort(values[:, side])
        return cls(bool(side), float(mine[int(MISPLACED * len(mine))]), float(np.median(mine)))

    def to_list(self) -> List[float]:
        """Return it as numbers for a model card."""
        return [-1.0 if self.is_dark else 1.0, round(self.least, 4), round(self.typical, 4)]

    @classmethod
    def from_list(cls, numbers: Optional[Sequence[Any]]) -> Optional[StandsOut]:
        """Return what :meth:`to_list` gave; None for anything else, such as what an older model lacks."""
        if not numbers or len(numbers) != 3:
            return None
        return cls(float(numbers[0]) < 0, float(numbers[1]), float(numbers[2]))

    def share_of(self, values: np.ndarray, scores: np.ndarray) -> float:
        """Return how far the better half of the picks of a tomogram stands out, by that of the annotated ones.

        Parameters
        ----------
        values : (N, 2) float
            Prominence of the picks.
        scores : (N,) float
            Their scores.

        Returns
        -------
        float
            In 0..1: another tomogram may have less contrast, which is no fault of its particles.
        """
        mine = values[:, int(self.is_dark)]
        better = mine[(scores >= np.median(scores)) & np.isfinite(mine)] if len(scores) else mine
        if not len(better) or self.typical <= 0:
            return 1.0
        return float(np.clip(np.median(better) / self.typical, 0.0, 1.0))

    def are_faint(self, values: np.ndarray, share: float = 1.0) -> np.ndarray:
        """Return which places (N, 2) stand out less than half as far as the faintest annotated particle, (N,) bool.

        Parameters
        ----------
        values : (N, 2) float
            Their prominence; what is not known is not faint.
        share : float
            From :meth:`share_of`, for another tomogram.
        """
        return np.asarray(values[:, int(self.is_dark)] < SHARE * self.least * share)
