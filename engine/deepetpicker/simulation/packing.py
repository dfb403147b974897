"""Place particles, vesicles and gold beads at random without overlap; all work is done in local boxes."""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deepetpicker.simulation.particles import Particle

GAP_VOX = 2
"""Voxels kept free around every particle, and between a particle and the volume's border."""

GOLD_DENSITY = 8.0
MEMBRANE_DENSITY = 0.75
_GOLD_RADIUS_ANG = (40.0, 60.0)
_VESICLE_RADIUS_ANG = (180.0, 420.0)
_LEAFLET_OFFSET_ANG = 18.0
_LEAFLET_SIGMA_ANG = 8.0
_TRIES = 300
_GIVE_UP_AFTER = 4

Box = Tuple[slice, slice, slice]
Ints = Union[Sequence[int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where one particle is.

    Parameters
    ----------
    class_index : int
        0-based index into the list of particles.
    position_zyx_vox : tuple of 3 float
        The particle's centre; an integer is a voxel centre.
    rot_tilt_psi_deg : tuple of 3 float
        Intrinsic ZYZ Euler angles of the rotation (in x, y, z) that turns the particle into its place.
    """

    class_index: int
    position_zyx_vox: Tuple[float, float, float]
    rot_tilt_psi_deg: Tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Scene:
    """A packed specimen.

    Parameters
    ----------
    density_zyx : (Z, Y, X) float32
        Density above that of ice; a particle has about 1.
    instances_zyx : (Z, Y, X) int16
        1-based index into ``placements``, 0 elsewhere.
    placements : list of Placement
        In the order of ``instances_zyx``.
    n_gold, n_vesicles : int
        Distractors placed.
    """

    density_zyx: np.ndarray
    instances_zyx: np.ndarray
    placements: List[Placement]
    n_gold: int
    n_vesicles: int


class _Canvas:
    """The volume under construction: density, instances and the voxels that are taken (all (Z, Y, X))."""

    def __init__(self, shape_zyx: Sequence[int], voxel_size_ang: float) -> None:
        self.shape_zyx = tuple(int(n) for n in shape_zyx)
        self.voxel_size_ang = voxel_size_ang
        self.density_zyx = np.zeros(self.shape_zyx, np.float32)
        self.instances_zyx = np.zeros(self.shape_zyx, np.int16)
        self.taken_zyx = np.zeros(self.shape_zyx, bool)


def pack(shape_zyx: Sequence[int], voxel_size_ang: float, particles: Sequence[Particle], counts: Sequence[int],
         rng: np.random.Generator, n_gold: int = 0, n_vesicles: int = 0) -> Scene:
    """Return a specimen with randomly rotated particles at random fractional positions.

    Two particles are at least ``GAP_VOX`` voxels apart, their centres at least half a diameter. Large classes are
    placed first; what does not fit is left out.

    Parameters
    ----------
    shape_zyx : (3,) int
        Shape of the volume in voxels.
    voxel_size_ang : float
        Voxel size in angstrom, that of the particles.
    particles : sequence of Particle
        The classes.
    counts : sequence of int
        How many to place of each class.
    rng : numpy.random.Generator
        The only source of chance.
    n_gold, n_vesicles : int
        Distractors to place; a vesicle may be cut by the border and goes on at the opposite side in x.
    """
    canvas = _Canvas(shape_zyx, voxel_size_ang)
    vesicles = sum(_place_vesicle(canvas, rng) for _ in range(n_vesicles))
    gold = sum(_place_gold(canvas, rng) for _ in range(n_gold))
    placements: List[Placement] = []
    by_size = sorted(range(len(particles)), key=lambda i: (-int(particles[i].mask_zyx.sum()), i))
    for class_index in by_size:
        stamp, failed = _Stamp(particles[class_index], voxel_size_ang), 0
        for _ in range(counts[class_index]):
            found = stamp.place(canvas, rng, len(placements) + 1)
            failed = 0 if found else failed + 1
            if found:
                placements.append(Placement(class_index, *found))
            elif failed >= _GIVE_UP_AFTER:
                break
    return Scene(canvas.density_zyx, canvas.instances_zyx, placements, gold, vesicles)


class _Stamp:
    """A particle class, prepared for many rotations."""

    def __init__(self, particle: Particle, voxel_size_ang: float) -> None:
        self.half = particle.density_zyx.shape[0] // 2 + 1
        self.spline_zyx = ndimage.spline_filter(np.pad(particle.density_zyx, 1), order=3, output=np.float32)
        self.mask_zyx = np.pad(particle.mask_zyx, 1).astype(np.float32)
        self.core_vox = particle.diameter_ang / voxel_size_ang / 4

    def place(self, canvas: _Canvas, rng: np.random.Generator, number: int
              ) -> Optional[Tuple[Tuple[float, float, float], Tuple[float, float, float]]]:
        """Rotate, find a free place and draw the particle there as instance ``number``.

        Returns
        -------
        (position_zyx_vox, rot_tilt_psi_deg) or None
            None when no free place was found; the canvas is unchanged then.
        """
        rotation = random_rotation(rng)
        fraction = rng.uniform(-0.5, 0.5, 3)
        mask = self._turned(self.mask_zyx, rotation, fraction, 1) > 0.5
        distance2 = _squared_distance(mask.shape, self.half, fraction)
        core, kept = _trim(mask | (distance2 <= self.core_vox ** 2))
        mask = mask[kept]
        corner = _free_corner(canvas.taken_zyx, core, rng)
        if corner is None:
            return None
        density = np.maximum(self._turned(self.spline_zyx, rotation, fraction, 3), 0)
        shift = corner - np.array([s.start for s in kept])
        source, target = _overlap(density.shape, shift, canvas.shape_zyx)
        canvas.density_zyx[target] += density[source]
        inside = _box(corner, mask.shape)
        canvas.instances_zyx[inside][mask] = number
        _take(canvas.taken_zyx, core, corner)
        z, y, x = (float(v) for v in shift + self.half + fraction)
        rot, tilt, psi = (float(v) for v in rotation.as_euler("ZYZ", degrees=True))
        return (z, y, x), (rot, tilt, psi)

    def _turned(self, volume_zyx: np.ndarray, rotation: Rotation, fraction: np.ndarray, order: int) -> np.ndarray:
        """Return the cube rotated about its centre and shifted by a fraction of a voxel (3,), same shape, float32."""
        inverse_zyx = rotation.as_matrix()[::-1, ::-1].T
        offset = self.half - inverse_zyx @ (self.half + fraction)
        return ndimage.affine_transform(volume_zyx, inverse_zyx, offset, order=order, mode="constant",
                                        prefilter=False, output=np.float32)


def random_rotation(rng: np.random.Generator) -> Rotation:
    """Return a rotation drawn uniformly from SO(3): a normalised quaternion of four normal numbers."""
    return Rotation.from_quat(rng.standard_normal(4))


def _trim(mask: np.ndarray) -> Tuple[np.ndarray, Box]:
    """Return the mask cut to its bounding box, and that box."""
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    return mask[box], box


def _squared_distance(shape: Sequence[int], half: int, fraction: np.ndarray) -> np.ndarray:
    """Return the squared distance in voxels from the shifted centre of a cube, of the given shape (3,)."""
    z, y, x = (np.arange(n) - half - f for n, f in zip(shape, fraction))
    out: np.ndarray = z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2
    return out


def _free_corner(taken_zyx: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Optional[np.ndarray]:
    """Return a random lowest corner (3,) at which the mask touches no taken voxel, or None."""
    room = np.array(taken_zyx.shape) - mask.shape - 2 * GAP_VOX + 1
    if room.min() < 1:
        return None
    points = np.argwhere(mask)
    points = points[rng.permutation(len(points))[:24]]  # a quick look at a few voxels spares most full tests
    corners = rng.integers(GAP_VOX, room + GAP_VOX, (_TRIES, 3))
    probes = (corners[:, None] + points).reshape(-1, 3).T
    hopeful = ~taken_zyx[tuple(probes)].reshape(_TRIES, -1).any(axis=1)
    for corner in corners[hopeful]:
        if not (taken_zyx[_box(corner, mask.shape)] & mask).any():
            return corner
    return None


def _box(corner: Ints, shape: Ints) -> Box:
    """Return the slices of a box from its lowest corner (3,) and its shape (3,)."""
    z, y, x = (slice(int(a), int(a) + int(n)) for a, n in zip(corner, shape))
    return z, y, x


def _overlap(inner_shape: Ints, shift: Ints, outer_shape: Ints) -> Tuple[Box, Box]:
    """Return the part of an array that falls into a larger one when its corner is put at shift, and where."""
    low = [max(0, -int(s)) for s in shift]
    high = [min(int(n), int(m) - int(s)) for n, s, m in zip(inner_shape, shift, outer_shape)]
    size = [b - a for a, b in zip(low, high)]
    return _box(low, size), _box([a + int(s) for a, s in zip(low, shift)], size)


def _take(taken_zyx: np.ndarray, mask: np.ndarray, corner: Ints) -> None:
    """Mark the mask, grown by GAP_VOX, as taken; its lowest corner (3,) lies at least GAP_VOX inside the volume."""
    padded = np.pad(mask, GAP_VOX)
    grown = ndimage.distance_transform_edt(~padded) <= GAP_VOX
    taken_zyx[_box(np.asarray(corner) - GAP_VOX, padded.shape)] |= grown


def _place_gold(canvas: _Canvas, rng: np.random.Generator) -> bool:
    """Draw one gold bead at a free place; return False when there was none."""
    radius = rng.uniform(*_GOLD_RADIUS_ANG) / canvas.voxel_size_ang
    fraction = rng.uniform(-0.5, 0.5, 3)
    half = int(np.ceil(radius)) + 1
    distance = np.sqrt(_squared_distance((2 * half + 1,) * 3, half, fraction))
    mask = distance <= radius + 0.5
    corner = _free_corner(canvas.taken_zyx, mask, rng)
    if corner is None:
        return False
    canvas.density_zyx[_box(corner, mask.shape)] += GOLD_DENSITY * np.clip(radius + 0.5 - distance, 0, 1)
    _take(canvas.taken_zyx, mask, corner)
    return True


def _place_vesicle(canvas: _Canvas, rng: np.random.Generator) -> bool:
    """Draw one slightly ellipsoidal double-layered membrane; return False when no free place was found."""
    voxel = canvas.voxel_size_ang
    largest = min(_VESICLE_RADIUS_ANG[1], 0.35 * min(canvas.shape_zyx[1:]) * voxel)
    smallest = min(_VESICLE_RADIUS_ANG[0], 0.6 * largest)
    for _ in range(20):
        radii = rng.uniform(smallest, largest) * rng.uniform(0.85, 1.15, 3) / voxel
        centre = rng.uniform(0, np.array(canvas.shape_zyx) - 1)
        turn = random_rotation(rng).as_matrix()
        reach = radii.max() + (_LEAFLET_OFFSET_ANG + 4 * _LEAFLET_SIGMA_ANG) / voxel + GAP_VOX
        low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
        low[:2], high[:2] = np.maximum(low[:2], 0), np.minimum(high[:2], canvas.shape_zyx[:2])
        axes = [np.arange(a, b) for a, b in zip(low, high)]
        axes[2] = axes[2][: canvas.shape_zyx[2]]
        from_surface_ang = voxel * _ellipsoid_distance(axes, centre, radii, turn)
        shell = np.abs(from_surface_ang) < _LEAFLET_OFFSET_ANG + 2 * _LEAFLET_SIGMA_ANG
        where = np.ix_(axes[0], axes[1], axes[2] % canvas.shape_zyx[2])
        if (canvas.taken_zyx[where] & shell).any():
            continue
        leaflets = np.exp(-0.5 * ((np.abs(from_surface_ang) - _LEAFLET_OFFSET_ANG) / _LEAFLET_SIGMA_ANG) ** 2)
        canvas.density_zyx[where] += (MEMBRANE_DENSITY * leaflets).astype(np.float32)
        canvas.taken_zyx[where] |= ndimage.distance_transform_edt(~shell) <= GAP_VOX if shell.any() else shell
        return True
    return False


def _ellipsoid_distance(axes: Sequence[np.ndarray], centre: np.ndarray, radii: np.ndarray, turn: np.ndarray
                        ) -> np.ndarray:
    """Return the signed distance in voxels (Z, Y, X) of a grid of voxel indices from a rotated ellipsoid."""
    points = np.stack(np.meshgrid(*(a - c for a, c in zip(axes, centre)), indexing="ij"), -1) @ turn
    scaled = np.sqrt(((points / radii) ** 2).sum(-1))
    gradient = np.sqrt(((points / radii ** 2) ** 2).sum(-1))
    return scaled * (scaled - 1) / np.maximum(gradient, 1e-9)
