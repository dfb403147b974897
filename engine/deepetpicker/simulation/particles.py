"""Particles ready to be placed: sampled at the simulation's voxel size, from phantoms or from the user's maps."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from typing import List, Sequence, Tuple, Union

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from deepetpicker.config import SimulateOptions
from deepetpicker.errors import InputError, suggestion
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.simulation import phantoms
from deepetpicker.simulation.shapes import MASK_LEVEL, Phantom

PathLike = Union[str, "os.PathLike[str]"]

MAP_LEVEL = 0.15
"""Share of a user map's highest density below which a voxel is taken for solvent."""

_DUST_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Particle:
    """One class of particle on the simulation's grid.

    Parameters
    ----------
    name : str
        Class name.
    diameter_ang : float
        Largest extent in angstrom.
    density_zyx : (N, N, N) float32
        Density, about 0 to 1; N is odd and the centre of mass is at (N - 1) / 2.
    mask_zyx : (N, N, N) bool
        The particle's own voxels, its centre always among them.
    """

    name: str
    diameter_ang: float
    density_zyx: np.ndarray
    mask_zyx: np.ndarray


def load_particles(options: SimulateOptions) -> List[Particle]:
    """Return the particles of a simulation in the order of their class ids.

    Parameters
    ----------
    options : SimulateOptions
        ``maps`` come first, then ``phantoms``; neither means every phantom.

    Raises
    ------
    InputError
        For an unknown phantom, an unusable map, two classes of the same name or a particle larger than the volume.
    """
    wanted = [str(name) for name in options.phantoms]
    unknown = [name for name in wanted if name not in phantoms.names()]
    if unknown:
        raise InputError(f"phantoms must be among {', '.join(phantoms.names())}, got {unknown[0]!r}"
                         + suggestion(unknown[0], phantoms.names()))
    if not wanted and not options.maps:
        wanted = list(phantoms.names())
    found = [from_map(str(path), options.voxel_size) for path in options.maps]
    found += [from_phantom(phantoms.phantom(name), options.voxel_size) for name in wanted]
    class_names = [particle.name for particle in found]
    for name in class_names:
        if class_names.count(name) > 1:
            raise InputError(f"every particle needs a name of its own, got {name!r} more than once: rename a map or "
                             "leave it out")
    return found


def from_phantom(phantom: Phantom, voxel_size_ang: float) -> Particle:
    """Return a built-in phantom sampled at a voxel size in angstrom."""
    density_zyx = phantom.density(voxel_size_ang)
    return Particle(phantom.name, phantom.diameter_ang, density_zyx, filled_mask(density_zyx > MASK_LEVEL))


def from_map(path: PathLike, voxel_size_ang: float) -> Particle:
    """Return a particle made from a density map (MRC), named after the file.

    Solvent is removed: voxels below ``MAP_LEVEL`` of the highest density, or within four standard deviations of the
    values on the map's faces, and pieces smaller than a tenth of the largest. The rest is scaled to about 0 to 1,
    moved so that its centre of mass is the box centre, and resampled with anti-aliasing.

    Parameters
    ----------
    path : path
        MRC file with bright particle density and a voxel size in its header.
    voxel_size_ang : float
        Voxel size of the simulation in angstrom.

    Raises
    ------
    InputError
        If the header has no voxel size, the map holds nothing or the density is dark instead of bright.
    """
    volume = _open_map(path)
    density_zyx, level = _without_solvent(np.asarray(volume.data_zyx, dtype=np.float32), str(path))
    resampled_zyx = _resample(density_zyx, volume.voxel_size_ang / voxel_size_ang)
    mask_zyx = resampled_zyx > level
    if not mask_zyx.any():
        raise InputError(f"the particle in {path} vanishes at {voxel_size_ang} angstrom per voxel: use smaller voxels")
    diameter_ang = extent_vox(density_zyx > level) * volume.voxel_size_ang
    return Particle(pathlib.Path(path).stem, round(diameter_ang, 1), resampled_zyx, filled_mask(mask_zyx))


def _open_map(path: PathLike) -> Volume:
    """Return the opened map; raise InputError if it is unreadable or has no voxel size."""
    try:
        return open_volume(path)
    except InputError as error:
        open_volume(path, voxel_size_ang=1.0)  # raises again if something else is wrong with the file
        raise InputError(f"a map needs its voxel size in the header, found none in {path}: set it first") from error


def _without_solvent(density_zyx: np.ndarray, path: str) -> Tuple[np.ndarray, float]:
    """Return the map scaled to about 0 to 1 with solvent set to 0, same shape, and the level that separates them."""
    faces = np.concatenate([np.take(density_zyx, index, axis).ravel() for axis in range(3) for index in (0, -1)])
    solvent, spread = float(np.median(faces)), float(np.std(faces))
    top, bottom = (float(np.percentile(density_zyx, q)) for q in (99.99, 0.01))
    if not top - bottom > 0 or not np.isfinite([top, bottom, spread]).all():
        raise InputError(f"a map must hold density, but {path} is constant or not finite")
    if solvent - bottom > top - solvent:
        raise InputError(f"the particle must be brighter than the solvent, but {path} is dark (solvent {solvent:g}, "
                         f"range {bottom:g} to {top:g}): invert its contrast")
    level = max(MAP_LEVEL, 4 * spread / (top - solvent))
    scaled_zyx = (density_zyx - solvent) / (top - solvent)
    if level >= 1:
        raise InputError(f"no particle stands out from the solvent in {path}: use a map whose faces are empty")
    labels_zyx, count = ndimage.label(scaled_zyx > level)
    sizes = np.bincount(labels_zyx.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = ndimage.binary_dilation((sizes >= _DUST_SHARE * sizes.max())[labels_zyx])
    return np.where(kept & (scaled_zyx > 0), scaled_zyx, 0).astype(np.float32), level


def _resample(density_zyx: np.ndarray, factor: float) -> np.ndarray:
    """Return the density at ``factor`` times as many voxels per length in an odd cube about its centre of mass."""
    centre = np.array(ndimage.center_of_mass(density_zyx))
    away = np.linalg.norm(np.argwhere(density_zyx > 0) - centre, axis=1).max()
    half = math.ceil(away * factor) + 2
    sigma = 0.5 * math.sqrt(max(factor ** -2 - 1, 0))
    smooth = ndimage.gaussian_filter(density_zyx, sigma, mode="constant") if sigma > 0 else density_zyx
    out = ndimage.affine_transform(smooth, np.eye(3) / factor, offset=centre - half / factor,
                                   output_shape=(2 * half + 1,) * 3, order=3, mode="constant")
    return np.maximum(out, 0).astype(np.float32)


def filled_mask(mask_zyx: np.ndarray) -> np.ndarray:
    """Return the mask with holes filled, closed just as far as its centre voxel needs to be inside.

    A shell or a ring has its centre in a hole, yet a pick at the centre is right: it must hit the particle's mask.

    Parameters
    ----------
    mask_zyx : (N, N, N) bool
        Where there is density, N odd. Not modified.

    Returns
    -------
    (N, N, N) bool
        Holds the input, and the centre voxel with its 26 neighbours.
    """
    middle = tuple(slice(n // 2 - 1, n // 2 + 2) for n in mask_zyx.shape)
    closed = ndimage.binary_fill_holes(mask_zyx)
    radius = 0
    while not closed[middle].all() and radius < max(mask_zyx.shape) // 2:
        radius += 1
        padded = np.pad(mask_zyx, radius + 1)
        grown = ndimage.distance_transform_edt(~padded) <= radius
        shrunk = ndimage.distance_transform_edt(grown) > radius
        inner = tuple(slice(radius + 1, -radius - 1) for _ in range(3))
        closed = ndimage.binary_fill_holes(shrunk[inner] | mask_zyx)
    closed[middle] = True
    return closed


def extent_vox(mask_zyx: np.ndarray) -> float:
    """Return the largest extent of a (Z, Y, X) bool mask in voxels: farthest voxel centres plus one; 0 if empty."""
    inner = ndimage.binary_erosion(mask_zyx)
    points: np.ndarray = np.argwhere(mask_zyx & ~inner).astype(float)
    if len(points) < 2:
        return float(len(points))
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError:  # flat or straight: few points, compared directly
        points = points[:: max(1, len(points) // 2000)]
    return float(pdist(points).max()) + 1


def check_fit(particles: Sequence[Particle], shape_zyx: Sequence[int], voxel_size_ang: float, gap_vox: int) -> None:
    """Raise InputError if a particle does not fit into the volume in every orientation with a gap around it."""
    room_ang = (min(shape_zyx) - 2 * gap_vox) * voxel_size_ang
    for particle in particles:
        if particle.diameter_ang > room_ang:
            raise InputError(
                f"{particle.name} is {particle.diameter_ang:g} angstrom across, but the volume leaves {room_ang:g} "
                f"({'x'.join(map(str, shape_zyx))} voxels of {voxel_size_ang:g}): use a larger shape, larger voxels "
                "or another particle")
