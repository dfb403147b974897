"""Smooth densities built from ellipsoids and tubes, which can be sampled at any voxel size.

A phantom is a list of solid parts and of cavities. Each part is a signed distance (negative inside) with a soft edge.
Lengths are in angstrom, points are (..., 3) in z, y, x, and the origin is the phantom's centre of mass.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from deepetpicker.errors import InputError

EDGE_ANG = 4.0
"""Standard deviation of a part's soft edge, in angstrom."""

MASK_LEVEL = 0.3
"""Density above which a voxel belongs to a particle; a solid part has density 0.7 to 1."""

_SAMPLING_ANG = 5.0  # larger voxels are averages of samples no farther apart


@dataclasses.dataclass(frozen=True)
class Ellipsoid:
    """A solid ellipsoid.

    Parameters
    ----------
    centre_zyx_ang : (3,) float
        Centre.
    radii_ang : (3,) float
        Half axes along the columns of ``axes_zyx``.
    axes_zyx : (3, 3) float
        Orthonormal directions of the half axes, one per column.
    weight : float
        Density inside, 0 to 1.
    """

    centre_zyx_ang: np.ndarray
    radii_ang: np.ndarray
    axes_zyx: np.ndarray
    weight: float = 1.0

    def distance_ang(self, points_zyx_ang: np.ndarray) -> np.ndarray:
        """Return the signed distance of points (..., 3) to the surface (exact to first order near it), (...)."""
        kind = points_zyx_ang.dtype
        scaled_axes = (self.axes_zyx / self.radii_ang).astype(kind)
        local = (points_zyx_ang - self.centre_zyx_ang.astype(kind)) @ scaled_axes
        scaled = np.sqrt(np.einsum("...i,...i", local, local))
        local /= self.radii_ang.astype(kind)
        gradient = np.sqrt(np.einsum("...i,...i", local, local))
        inside = -float(np.min(self.radii_ang))
        return np.where(gradient > 1e-9, scaled * (scaled - 1) / np.maximum(gradient, 1e-9), inside)

    def bounds_zyx_ang(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest corner, each (3,), of a box that holds the ellipsoid."""
        half = np.sqrt(((self.axes_zyx * self.radii_ang) ** 2).sum(1))
        return self.centre_zyx_ang - half, self.centre_zyx_ang + half

    def moved(self, matrix_zyx: np.ndarray, shift_zyx_ang: ArrayLike = (0, 0, 0)) -> Ellipsoid:
        """Return the ellipsoid rotated by a (3, 3) matrix about the origin and then shifted by (3,) angstrom."""
        return dataclasses.replace(self, centre_zyx_ang=matrix_zyx @ self.centre_zyx_ang + np.asarray(shift_zyx_ang),
                                   axes_zyx=matrix_zyx @ self.axes_zyx)


@dataclasses.dataclass(frozen=True)
class Tube:
    """A round tube with round ends along a chain of points; two points make a rod, a closed chain a ring.

    Parameters
    ----------
    points_zyx_ang : (N, 3) float
        The chain, N >= 2.
    radius_ang : float
        Half thickness.
    weight : float
        Density inside, 0 to 1.
    """

    points_zyx_ang: np.ndarray
    radius_ang: float
    weight: float = 1.0

    def distance_ang(self, points_zyx_ang: np.ndarray) -> np.ndarray:
        """Return the exact signed distance of points (..., 3) to the surface, (...)."""
        chain = self.points_zyx_ang.astype(points_zyx_ang.dtype)
        nearest = np.full(points_zyx_ang.shape[:-1], np.inf, points_zyx_ang.dtype)
        for start, end in zip(chain[:-1], chain[1:]):
            along, away = end - start, points_zyx_ang - start
            away -= np.clip(away @ along / (along @ along), 0, 1)[..., None] * along
            nearest = np.minimum(nearest, np.einsum("...i,...i", away, away))
        return np.sqrt(nearest) - self.radius_ang

    def bounds_zyx_ang(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest corner, each (3,), of a box that holds the tube."""
        return self.points_zyx_ang.min(0) - self.radius_ang, self.points_zyx_ang.max(0) + self.radius_ang

    def moved(self, matrix_zyx: np.ndarray, shift_zyx_ang: ArrayLike = (0, 0, 0)) -> Tube:
        """Return the tube rotated by a (3, 3) matrix about the origin and then shifted by (3,) angstrom."""
        return dataclasses.replace(self, points_zyx_ang=self.points_zyx_ang @ matrix_zyx.T + np.asarray(shift_zyx_ang))


Part = Union[Ellipsoid, Tube]


@dataclasses.dataclass(frozen=True)
class Phantom:
    """A particle defined in code.

    Parameters
    ----------
    name : str
        What the user calls it.
    description : str
        One line for people.
    symmetry : str
        Point group: C1, C2, D7, O, I.
    diameter_ang : float
        Largest distance between two points of the density above MASK_LEVEL, in angstrom.
    solid : tuple of Part
        Where there is density; parts may overlap. The origin must be the centre of mass, see :meth:`centred`.
    cavities : tuple of Part
        Carved out of the solid parts.
    """

    name: str
    description: str
    symmetry: str
    diameter_ang: float
    solid: Tuple[Part, ...]
    cavities: Tuple[Part, ...] = ()

    def density(self, voxel_size_ang: float) -> np.ndarray:
        """Return the density on a grid of the given voxel size.

        Parameters
        ----------
        voxel_size_ang : float
            Voxel size in angstrom, > 0.

        Returns
        -------
        (N, N, N) float32
            In z, y, x, 0 to 1, 0 at the border; N is odd and the centre of mass is at voxel (N - 1) / 2. Every rotation
            about the centre fits into the cube.

        Raises
        ------
        InputError
            If the voxel size is not positive.
        """
        if not voxel_size_ang > 0:
            raise InputError(f"the voxel size must be > 0 angstrom, got {voxel_size_ang}")
        parts = 2 * math.ceil((voxel_size_ang / _SAMPLING_ANG - 1) / 2) + 1 if voxel_size_ang > _SAMPLING_ANG else 1
        size = 2 * math.ceil((_reach_ang(self.solid) + 3 * EDGE_ANG) / voxel_size_ang) + 1
        fine_zyx = _render(self.solid, self.cavities, size * parts, voxel_size_ang / parts)
        return fine_zyx.reshape(size, parts, size, parts, size, parts).mean(axis=(1, 3, 5), dtype=np.float32)


    def centred(self) -> Phantom:
        """Return the phantom moved so that its centre of mass is the origin."""
        size = 2 * math.ceil((_reach_ang(self.solid) + 3 * EDGE_ANG) / _SAMPLING_ANG) + 1
        mass = _render(self.solid, self.cavities, size, _SAMPLING_ANG).astype(np.float64)
        axis_ang = (np.arange(size) - size // 2) * _SAMPLING_ANG
        centre = [(mass.sum(others) * axis_ang).sum() / mass.sum() for others in ((1, 2), (0, 2), (0, 1))]
        shift, same = -np.array(centre), np.eye(3)
        return dataclasses.replace(self, solid=tuple(p.moved(same, shift) for p in self.solid),
                                   cavities=tuple(p.moved(same, shift) for p in self.cavities))


def _reach_ang(parts: Sequence[Part]) -> float:
    """Return a distance in angstrom from the origin beyond which no part has density."""
    reach = 0.0
    for part in parts:
        if isinstance(part, Tube):
            reach = max(reach, float(np.linalg.norm(part.points_zyx_ang, axis=1).max() + part.radius_ang))
        else:
            reach = max(reach, float(np.linalg.norm(part.centre_zyx_ang) + part.radii_ang.max()))
    return reach


def _render(solid: Sequence[Part], cavities: Sequence[Part], size: int, voxel_size_ang: float) -> np.ndarray:
    """Return the union of the solid parts less the cavities, (size, size, size) float32; the origin is the centre."""
    axis_ang = ((np.arange(size) - (size - 1) / 2) * voxel_size_ang).astype(np.float32)
    empty = np.ones((size,) * 3)
    carved = np.ones_like(empty)
    for target, part in [(empty, p) for p in solid] + [(carved, p) for p in cavities]:
        low, high = part.bounds_zyx_ang()
        box = tuple(slice(*np.searchsorted(axis_ang, (a - 4 * EDGE_ANG, b + 4 * EDGE_ANG)))
                    for a, b in zip(low, high))
        points = np.stack(np.meshgrid(*(axis_ang[s] for s in box), indexing="ij"), -1)
        target[box] *= 1 - part.weight * _soft_step(part.distance_ang(points))
    return ((1 - empty) * carved).astype(np.float32)


def _soft_step(distance_ang: np.ndarray) -> np.ndarray:
    """Return 1 inside, 0 outside, 1/2 on the surface: the Gaussian integral of the signed distance, same shape."""
    return ndtr(-distance_ang / EDGE_ANG)
