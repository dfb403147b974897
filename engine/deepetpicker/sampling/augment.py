"""Random mirroring, rotation, scaling and elastic deformation of a training patch, as one resampling.

A warp says for every voxel of the patch where in the tomogram its value comes from, relative to the patch's centre.
Everything geometric is in these offsets, so the image is interpolated once, and the patch is read with the margin that
it needs: no corner is empty.
"""

from __future__ import annotations

import dataclasses
from typing import Optional, Tuple

import numpy as np
import torch
from torch.nn import functional

CONTROL_POINTS = 5


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far patches may be changed.

    Attributes
    ----------
    mirror : bool
        Mirror each axis with probability 1/2.
    rotation_deg : float
        Largest rotation about each axis, degrees; 0 is off.
    elastic : float
        Largest elastic displacement as a share of the patch's edge; 0 is off.
    scaling : float
        Largest change of scale; 0 is off.
    probability : float
        Of an interpolated patch; the others are only mirrored and keep their noise as it is.
    """

    mirror: bool = True
    rotation_deg: float = 15.0
    elastic: float = 0.05
    scaling: float = 0.05
    probability: float = 0.5


@dataclasses.dataclass(frozen=True)
class Warp:
    """One random change of a patch.

    Attributes
    ----------
    mirrored_zyx : (3,) bool
        Axes that are mirrored.
    matrix_zyx : (3, 3) or None
        Patch offset to tomogram offset, mirroring left out; None is the identity.
    control_dzyx : (3, K, K, K) or None
        Control points of the elastic displacement, in voxels.
    """

    mirrored_zyx: Tuple[bool, bool, bool] = (False, False, False)
    matrix_zyx: Optional[np.ndarray] = None
    control_dzyx: Optional[np.ndarray] = None

    @property
    def is_exact(self) -> bool:
        """True when no voxel has to be interpolated."""
        return self.matrix_zyx is None and self.control_dzyx is None

    def offsets(self, size: int) -> np.ndarray:
        """Return where each voxel of a patch comes from, (3, N, N, N) float32, relative to the patch's centre.

        Parameters
        ----------
        size : int
            Edge N of the patch. Its centre lies at (N - 1) / 2.
        """
        line = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
        axes = [-line if m else line for m in self.mirrored_zyx]
        matrix = np.eye(3, dtype=np.float32) if self.matrix_zyx is None else self.matrix_zyx.astype(np.float32)
        out = np.empty((3, size, size, size), np.float32)
        for d in range(3):
            plane = matrix[d, 1] * axes[1][:, None] + matrix[d, 2] * axes[2][None, :]
            np.add((matrix[d, 0] * axes[0])[:, None, None], plane[None], out=out[d])
        if self.control_dzyx is not None:
            out += smooth_field(self.control_dzyx, size)
        return out


def random_warp(rng: np.random.Generator, size: int, options: Augmentation) -> Warp:
    """Return a random warp for a patch.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness.
    size : int
        Edge of the patch in voxels, which the elastic displacement is a share of.
    options : Augmentation
        Limits.
    """
    mirrored = tuple(bool(m) for m in rng.random(3) < 0.5) if options.mirror else (False, False, False)
    interpolate, choices = rng.random() < options.probability, rng.random(3) < 0.5
    if not interpolate:
        return Warp(mirrored)  # type: ignore[arg-type]
    matrix: Optional[np.ndarray] = None
    if options.rotation_deg and choices[0]:
        matrix = rotation_matrix(np.deg2rad(rng.uniform(-options.rotation_deg, options.rotation_deg, 3)))
    if options.scaling and choices[1]:
        scale = rng.uniform(1 - options.scaling, 1 + options.scaling)
        matrix = (np.eye(3) if matrix is None else matrix) / scale
    control = None
    if options.elastic and choices[2]:
        reach = options.elastic * size * rng.random()
        control = rng.uniform(-reach, reach, (3, CONTROL_POINTS, CONTROL_POINTS, CONTROL_POINTS))
    return Warp(mirrored, matrix, control)  # type: ignore[arg-type]


def rotation_matrix(angles_zyx_rad: np.ndarray) -> np.ndarray:
    """Return the (3, 3) matrix on (z, y, x) of rotations about the x, then the y, then the z axis (3,) radians."""
    out = np.eye(3)
    for axis, angle in enumerate(angles_zyx_rad):
        i, j = [a for a in range(3) if a != axis]
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        out = out @ one
    return out


def smooth_field(control_dzyx: np.ndarray, size: int) -> np.ndarray:
    """Return the cubic B-spline through the control points' cage, (3, N, N, N) float32.

    Parameters
    ----------
    control_dzyx : (3, K, K, K)
        Displacements in voxels, spread evenly from one face of the patch to the other; nothing exceeds the largest.
    size : int
        Edge N of the patch.
    """
    k = control_dzyx.shape[1]
    t = np.linspace(0, k - 1, size)[:, None] - np.arange(-1, k + 1)[None, :]
    a = np.abs(t)
    basis = np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.where(a < 2, (2 - a) ** 3 / 6, 0.0))
    weights = basis[:, 1:-1].copy()
    weights[:, 0] += basis[:, 0]
    weights[:, -1] += basis[:, -1]
    w = weights.astype(np.float32)
    field = control_dzyx.astype(np.float32) @ w.T
    field = np.matmul(w, field)
    return np.tensordot(field, w, axes=(1, 1)).transpose(0, 3, 1, 2)


def fold(coordinates: np.ndarray, lo: int, hi: int) -> np.ndarray:
    """Return coordinates reflected about voxels lo and hi-1 until all lie within [lo, hi - 1].

    The same reflection fills tiles that hang over the volume when picking.

    Parameters
    ----------
    coordinates : array of float or int
        Places along one axis.
    lo, hi : int
        First voxel and one past the last.
    """
    if coordinates.size and coordinates.min() >= lo and coordinates.max() <= hi - 1:
        return coordinates
    last = hi - lo - 1
    if last == 0:
        return np.full_like(coordinates, lo)
    out: np.ndarray = lo + last - np.abs(np.mod(coordinates - lo, 2 * last) - last)
    return out


def sample(box_czyx: np.ndarray, coordinates_dzyx: np.ndarray, nearest: bool) -> np.ndarray:
    """Return the box's values at fractional places.

    Parameters
    ----------
    box_czyx : (C, Z, Y, X)
        Values; converted to float32.
    coordinates_dzyx : (3, N, N, N) float32
        z, y and x of each place, in voxels of the box, inside it.
    nearest : bool
        Take the nearest voxel, for labels; else interpolate trilinearly.

    Returns
    -------
    (C, N, N, N) float32
    """
    grid = np.empty((*coordinates_dzyx.shape[1:], 3), np.float32)
    for d, n in enumerate(box_czyx.shape[1:]):
        np.multiply(coordinates_dzyx[d], np.float32(2 / max(n - 1, 1)), out=grid[..., 2 - d])
    grid -= 1
    source = torch.from_numpy(np.ascontiguousarray(box_czyx, np.float32))[None]
    out = functional.grid_sample(source, torch.from_numpy(grid)[None], mode="nearest" if nearest else "bilinear",
                                 padding_mode="border", align_corners=True)
    return out[0].numpy()
