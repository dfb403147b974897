"""What the density about coordinates says of the particles: how large they look, and darker or brighter than the rest.

The mean grey value in thin shells about all coordinates of one class is its radial profile, in standard deviations of
the tomogram. Particles stand out of it as far as they reach.
"""

from __future__ import annotations

import dataclasses
from typing import Tuple

import numpy as np

from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.normalise import robust_intensity
from deepetpicker.preparation.resample import open_working_volume

MOST = 60  # positions that are looked at, spread over all of them
ACROSS = 10.0  # voxels across a particle of the given diameter
REACH, STEP = 2.5, 0.2  # how far the profile goes and how thick its shells are, in given radii
RANDOM_SETS = 20
SURE = 5.0  # times the scatter of random places
EDGE = 0.25  # of the profile's strongest value: below it the particle has ended
WRONG_BY = 1.7  # the apparent diameter is so many times larger or smaller than the given one


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
    scale = robust_intensity(volume.overview_zyx, volume.name)
    grey = (open_working_volume(volume, grid).planes(0, grid.shape_zyx[0]) - scale.mean) / scale.std
    chosen = np.linspace(0, len(positions_zyx_vox) - 1, min(MOST, len(positions_zyx_vox))).astype(int)
    at = np.rint(grid.to_working(np.asarray(positions_zyx_vox, float)[chosen])).astype(int)
    rng = np.random.default_rng(0)
    radius = diameter_ang / voxel / 2
    anywhere = np.stack([profile(grey, rng.integers(0, grey.shape, at.shape), radius) for _ in range(RANDOM_SETS)])
    rise = profile(grey, at, radius) - anywhere.mean(0)
    return Look(*_outline(rise, np.maximum(anywhere.std(0), 1e-9), diameter_ang), diameter_ang)


def profile(grey_zyx: np.ndarray, centres_zyx: np.ndarray, radius_vox: float) -> np.ndarray:
    """Return the mean grey value in shells about voxels, (S,), each a fifth of a radius thick.

    Parameters
    ----------
    grey_zyx : (Z, Y, X) float
        Beyond its border there is nothing to count.
    centres_zyx : (N, 3) int
        Voxels inside.
    radius_vox : float
        Of a particle, in voxels.
    """
    half = int(np.ceil(REACH * radius_vox))
    axis = np.arange(-half, half + 1)
    steps = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    shell = (np.linalg.norm(steps, axis=1) / radius_vox / STEP + 0.5).astype(int)
    n_shells = int(REACH / STEP) + 1
    steps, shell = steps[shell < n_shells], shell[shell < n_shells]
    sums, counts = np.zeros(n_shells), np.zeros(n_shells)
    for centre in centres_zyx:
        voxels = centre + steps
        inside = ((voxels >= 0) & (voxels < grey_zyx.shape)).all(1)
        sums += np.bincount(shell[inside], grey_zyx[tuple(voxels[inside].T)], n_shells)
        counts += np.bincount(shell[inside], minlength=n_shells)
    filled = counts > 0
    return np.interp(np.arange(n_shells), np.flatnonzero(filled), sums[filled] / counts[filled])


def _outline(rise: np.ndarray, scatter: np.ndarray, diameter_ang: float) -> Tuple[float, float]:
    """Return contrast and apparent diameter in angstrom from a profile (S,) and its scatter; zeros when unsure."""
    peak = int(np.argmax(np.abs(rise[:-2]) / scatter[:-2]))
    if abs(rise[peak]) < SURE * scatter[peak]:
        return 0.0, 0.0
    sign = np.sign(rise[peak])
    below = np.flatnonzero(sign * rise[peak:] < EDGE * abs(rise[peak]))
    if not len(below):
        return float(rise[:peak + 1].mean()), REACH * diameter_ang
    last = peak + int(below[0])
    high, low = sign * rise[last - 1], sign * rise[last]
    edge = last - 1 + (high - EDGE * abs(rise[peak])) / (high - low)
    return float(rise[:last].mean()), float(edge * STEP * diameter_ang)
