"""Weak labels: simple masks drawn around particle centres.

A label says which voxels certainly belong to a particle. Its diameter is smaller than the particle's, so that a centre
is all the annotation there has to be.
"""

from __future__ import annotations

import math
from typing import Mapping, Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError

KINDS = ("tball", "ball", "cubic")
SMALLEST_LABEL, LARGEST_LABEL = 5, 13
LABEL_SHARE = 0.45
KNOWN_SHARE = 0.75
_EPS = 1e-6


def default_label_diameter(particle_diameter_vox: float) -> float:
    """Return the label's diameter for a particle, in working voxels.

    The odd number nearest to 0.45 of the particle's diameter, at least 5 and at most 13, never above the particle's
    own diameter.

    Parameters
    ----------
    particle_diameter_vox : float
        In working voxels, > 0.
    """
    odd = 2 * round((LABEL_SHARE * particle_diameter_vox - 1) / 2) + 1
    odd = min(max(odd, SMALLEST_LABEL), LARGEST_LABEL)
    largest_odd = 2 * math.floor((particle_diameter_vox - 1) / 2) + 1
    return float(max(1, min(odd, largest_odd)))


def inside(offsets_zyx: Sequence[np.ndarray], diameter_vox: float, kind: str) -> Tuple[np.ndarray, np.ndarray]:
    """Tell which voxels belong to the label of a particle.

    Parameters
    ----------
    offsets_zyx : three arrays that broadcast to (Z, Y, X)
        Voxel minus centre along each axis.
    diameter_vox : float
        Diameter d of the label.
    kind : str
        ``cubic``: the cube of side d. ``ball``: the ball of diameter d. ``tball``: the part of the cube within
        sqrt(2) * (d - 1) / 2 of the centre.

    Returns
    -------
    tuple of (Z, Y, X) arrays
        bool, inside the label; float, squared distance to the centre.

    Notes
    -----
    The cube takes its lower faces in and leaves its upper ones out, so that it is d voxels wide wherever its centre
    lies between voxels (integer d).
    """
    z, y, x = offsets_zyx
    square = z * z + y * y + x * x
    if kind == "ball":
        return square <= (diameter_vox / 2) ** 2 + _EPS, square
    half = diameter_vox / 2
    cube = [(o >= -half - _EPS) & (o < half - _EPS) for o in offsets_zyx]
    mask = cube[0] & cube[1] & cube[2]
    if kind == "tball":
        mask = mask & (square <= (diameter_vox - 1) ** 2 / 2 + _EPS)
    return mask, square


def draw_label(shape_zyx: Sequence[int], positions_zyx_vox: np.ndarray, class_ids: np.ndarray,
               label_diameters_vox: Mapping[int, float], kind: str = "tball",
               origin_zyx: Sequence[int] = (0, 0, 0)) -> np.ndarray:
    """Return the label of a box: for each voxel the class of the particle it belongs to, 0 for background.

    Parameters
    ----------
    shape_zyx : (3,) int
        Shape of the box.
    positions_zyx_vox : (N, 3)
        Particle centres in the frame of the volume; may be fractional, and outside the box.
    class_ids : (N,) int
        Class of each particle, 1 to 255.
    label_diameters_vox : mapping
        Class id to the label's diameter.
    kind : str
        ``tball``, ``ball`` or ``cubic``.
    origin_zyx : (3,) int
        Volume index of the box's first voxel.

    Returns
    -------
    (Z, Y, X) uint8
        Where labels overlap, a voxel belongs to the nearer centre (of equally near ones to the first in the table).
        Labels are cut at the box's borders.

    Raises
    ------
    InputError
        For an unknown kind or a class without a diameter.
    """
    if kind not in KINDS:
        raise InputError(f"label must be one of {', '.join(KINDS)}, got {kind!r}")
    label = np.zeros(tuple(shape_zyx), np.uint8)
    nearest = np.full(label.shape, np.inf)
    centres = np.asarray(positions_zyx_vox, float).reshape(-1, 3) - np.asarray(origin_zyx, float)
    ids = np.asarray(class_ids, int).ravel()
    missing = sorted(set(ids.tolist()) - set(label_diameters_vox))
    if missing:
        raise InputError(f"no label diameter for class {', '.join(map(str, missing))}: give every class a diameter")
    radii = np.array([label_diameters_vox[i] / 2 + 1 for i in ids.tolist()]).reshape(-1, 1)
    near = np.all((centres > -radii) & (centres < np.array(label.shape) + radii), axis=1)
    for k in np.flatnonzero(near):
        box, offsets = _window(centres[k], float(radii[k, 0]), label.shape)
        mask, square = inside(offsets, label_diameters_vox[int(ids[k])], kind)
        mask = mask & (square < nearest[box])
        label[box][mask] = ids[k]
        nearest[box][mask] = square[mask]
    return label


def known_mask(shape_zyx: Sequence[int], positions_zyx_vox: np.ndarray, diameters_vox: np.ndarray,
               origin_zyx: Sequence[int] = (0, 0, 0)) -> np.ndarray:
    """Return where the label can be trusted when only a part of the particles was annotated.

    Around an annotated centre both the label and the shell about it are known: as far as three quarters of the
    particle's diameter, where the label of a touching neighbour could begin.

    Parameters
    ----------
    shape_zyx : (3,) int
        Shape of the box.
    positions_zyx_vox : (N, 3)
        Annotated centres in the frame of the volume.
    diameters_vox : (N,) or float
        Particle diameters (not the labels') in voxels.
    origin_zyx : (3,) int
        Volume index of the box's first voxel.

    Returns
    -------
    (Z, Y, X) bool
    """
    radii = KNOWN_SHARE * np.broadcast_to(np.asarray(diameters_vox, float), (len(positions_zyx_vox),))
    return balls(shape_zyx, positions_zyx_vox, radii, origin_zyx)


def balls(shape_zyx: Sequence[int], centres_zyx_vox: np.ndarray, radii_vox: np.ndarray,
          origin_zyx: Sequence[int] = (0, 0, 0)) -> np.ndarray:
    """Return the voxels of a box that lie in any of some balls, (Z, Y, X) bool.

    Parameters
    ----------
    shape_zyx : (3,) int
        Shape of the box.
    centres_zyx_vox : (N, 3)
        In the frame of the volume; may be outside the box.
    radii_vox : (N,)
        In voxels.
    origin_zyx : (3,) int
        Volume index of the box's first voxel.
    """
    found = np.zeros(tuple(shape_zyx), bool)
    centres = np.asarray(centres_zyx_vox, float).reshape(-1, 3) - np.asarray(origin_zyx, float)
    for centre, radius in zip(centres, radii_vox):
        box, (z, y, x) = _window(centre, float(radius), found.shape)
        found[box] |= z * z + y * y + x * x <= radius**2 + _EPS
    return found


def _window(centre_zyx: np.ndarray, radius: float, shape_zyx: Sequence[int]
            ) -> Tuple[Tuple[slice, slice, slice], Tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the slices of the box within radius of the centre, and voxel minus centre along each axis."""
    slices, offsets = [], []
    for axis, (c, n) in enumerate(zip(centre_zyx, shape_zyx)):
        lo, hi = max(0, math.ceil(c - radius)), min(n, math.floor(c + radius) + 1)
        lo, hi = min(lo, n), max(hi, min(lo, n))
        slices.append(slice(lo, hi))
        offsets.append((np.arange(lo, hi) - c).reshape([-1 if a == axis else 1 for a in range(3)]))
    return (slices[0], slices[1], slices[2]), (offsets[0], offsets[1], offsets[2])
