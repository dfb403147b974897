"""What the density about coordinates says of the particles: how large they look, and darker or brighter than the rest.

Grey values in thin shells about all coordinates of one class are compared with those about random places, in standard
deviations of the tomogram. Their mean says whether the particles are dark or bright, but not how large they are: the
arms of an open shape fill little of a shell, and the microscope turns dark into bright in turns. How far they are from
zero, whatever their sign, is raised as far as a particle of any shape reaches.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.resample import open_working_volume

MOST = 60  # positions that are looked at, spread over all of them
ACROSS = 16.0  # voxels across a particle of the given diameter
REACH, STEP = 2.0, 0.125  # how far the profile goes and how thick its shells are, in given radii
RANDOM_SETS = 20
SURE = 5.0  # times the scatter of random places
EDGE = 0.25  # of the strongest mean: below it the middle of the particle has ended
LEFT, GONE = 0.3, 0.02  # of the most in a shell, and of the strongest deviation: where the particle has ended
WRONG_BY = 1.4  # the apparent diameter is so many times larger or smaller than the given one


@dataclasses.dataclass(frozen=True)
class Look:
    """How the particles of one class look in one tomogram.

    Attributes
    ----------
    contrast : float
        Mean grey value inside them above that of random places, in standard deviations of the tomogram; negative for
        dark particles, 0 when it cannot be told.
    diameter_ang : float
        How large they look, in angstrom; 0 when it cannot be told.
    given_ang : float
        The diameter that was given, in angstrom.
    """

    contrast: float
    diameter_ang: float
    given_ang: float

    @property
    def is_misjudged(self) -> bool:
        """Whether the given diameter is far from what the particles look like."""
        ratio = self.diameter_ang / self.given_ang
        return ratio > 0 and not 1 / WRONG_BY <= ratio <= WRONG_BY

    def __str__(self) -> str:
        return (f"its particles look about {self.diameter_ang:.0f} angstrom across, {self.given_ang:.0f} were given: "
                "check the diameter and the voxel size")


def look(volume: Volume, positions_zyx_vox: np.ndarray, diameter_ang: float) -> Look:
    """Return how the particles of a class look.

    Parameters
    ----------
    volume : Volume
        The tomogram.
    positions_zyx_vox : (N, 3) float
        Their centres inside it, in its voxels, N >= 1.
    diameter_ang : float
        As given, in angstrom.
    """
    voxel = max(diameter_ang / ACROSS, volume.voxel_size_ang)
    grid = WorkingGrid(volume.shape_zyx, volume.voxel_size_ang, voxel)
    grey = open_working_volume(volume, grid).planes(0, grid.shape_zyx[0])
    chosen = np.linspace(0, len(positions_zyx_vox) - 1, min(MOST, len(positions_zyx_vox))).astype(int)
    at = np.rint(grid.to_working(np.asarray(positions_zyx_vox, float)[chosen])).astype(int)
    rng = np.random.default_rng(0)
    radius = diameter_ang / voxel / 2
    anywhere = np.stack([profiles(grey, rng.integers(0, grey.shape, at.shape), radius) for _ in range(RANDOM_SETS)])
    rise, scatter = profiles(grey, at, radius) - anywhere.mean(0), np.maximum(anywhere.std(0), 1e-9)
    return Look(_contrast(rise[0], scatter[0]), _apparent(rise[1], scatter[1]) * diameter_ang, diameter_ang)


def profiles(grey_zyx: np.ndarray, centres_zyx: np.ndarray, radius_vox: float) -> np.ndarray:
    """Return the mean grey value in shells about voxels, and its mean distance from zero, (2, S).

    Parameters
    ----------
    grey_zyx : (Z, Y, X) float
        Beyond its border there is nothing to count.
    centres_zyx : (N, 3) int
        Voxels inside.
    radius_vox : float
        Of a particle, in voxels; a shell is an eighth of it thick.
    """
    half = int(np.ceil(REACH * radius_vox))
    axis = np.arange(-half, half + 1)
    steps = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    shell = (np.linalg.norm(steps, axis=1) / radius_vox / STEP + 0.5).astype(int)
    n_shells = int(REACH / STEP) + 1
    steps, shell = steps[shell < n_shells], shell[shell < n_shells]
    sums, counts = np.zeros((2, n_shells)), np.zeros(n_shells)
    for centre in centres_zyx:
        voxels = centre + steps
        inside = ((voxels >= 0) & (voxels < grey_zyx.shape)).all(1)
        values = grey_zyx[tuple(voxels[inside].T)]
        sums += [np.bincount(shell[inside], some, n_shells) for some in (values, np.abs(values))]
        counts += np.bincount(shell[inside], minlength=n_shells)
    filled = counts > 0
    return np.stack([np.interp(np.arange(n_shells), np.flatnonzero(filled), row[filled] / counts[filled])
                     for row in sums])


def _contrast(rise: np.ndarray, scatter: np.ndarray) -> float:
    """Return the mean grey value of the middle from the profile of means (S,) and its scatter; 0 when unsure."""
    peak = int(np.argmax(np.abs(rise[:-2]) / scatter[:-2]))
    if abs(rise[peak]) < SURE * scatter[peak]:
        return 0.0
    along = rise * np.sign(rise[peak])
    return float(rise[:int(np.ceil(_end(along, peak, EDGE)))].mean())


def _apparent(rise: np.ndarray, scatter: np.ndarray) -> float:
    """Return how far particles reach, in given radii, from the profile of distances from zero (S,) and its scatter.

    The particle has ended where there is little left in a shell (of which outer ones have more voxels), or nothing. 0
    when it cannot be told.
    """
    voxels = np.arange(len(rise)) ** 2 + 1 / 12
    peak = int(np.argmax(rise[:-2] / scatter[:-2]))
    if rise[peak] < SURE * scatter[peak]:
        return 0.0
    return STEP * min(_end(rise * voxels, peak, LEFT), _end(rise, peak, GONE))


def _end(rise: np.ndarray, peak: int, share: float) -> float:
    """Return where a profile (S,) falls below a share of what it is at a shell, in shells, or its last one."""
    edge = share * rise[peak]
    below = np.flatnonzero(rise[peak:] < edge)
    if not len(below):
        return float(len(rise) - 1)
    last = peak + int(below[0])
    return float(last - 1 + (rise[last - 1] - edge) / (rise[last - 1] - rise[last]))
