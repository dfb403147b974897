"""A tomogram on the grid where candidates are looked for, and how far each place stands out there.

All of it is computed slab by slab. What is larger than 64 MB lies in a scratch file without a name, so that the memory
taken does not grow with the depth of the tomogram.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from typing import List, Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError, OutputError
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.volumes import Volume, release_pages
from deepetpicker.preparation.resample import open_working_volume

WORKING_DIAMETER = 12.0  # voxels across a particle where blobs are looked for
SCALES = (0.8, 1.0, 1.25)  # of the diameter
RATIO = 1.6  # of the two Gaussians: nearly the Laplacian
CLIP = 4.0  # grey values beyond so many standard deviations count as so many: a bead is no better than a particle
BEAD, BEAD_REACH = 8.0, 0.6  # standard deviations of a bead's core, and how far it reaches, in particle radii
BEAD_SIGMA = 0.7  # voxels
TRUNCATE = 3.0  # standard deviations at which Gaussians end
IN_MEMORY_BYTES = 64 << 20
SLAB_BYTES = 24 << 20
RESAMPLED_PLANES = 16  # at once: many planes of a fine tomogram make one
SAMPLED_PLANES = 16  # tell how much responses scatter
CONTRAST_VOXELS, CONTRAST_PLANES = 4_000_000, 16  # about so many, but no fewer planes, tell what stands out more
ALIKE = 1.25  # simulated particles reach 1.4 to 1.7 times farther than the other contrast


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A tomogram on the grid where candidates are looked for.

    Attributes
    ----------
    grey_zyx : (Z, Y, X) float
        Normalised grey values, float32 in memory or float16 in a scratch file.
    grid : WorkingGrid
        Its mapping to the tomogram's voxels.
    radius_vox : float
        Particle radius on this grid.
    """

    grey_zyx: np.ndarray
    grid: WorkingGrid
    radius_vox: float

    @classmethod
    def open(cls, volume: Volume, diameter_ang: float) -> Scene:
        """Return a tomogram resampled so that a particle of diameter_ang is about 12 voxels across.

        Raises
        ------
        InputError
            If the particle has fewer than 4 voxels across, or the tomogram has no contrast.
        OutputError
            If there is no room for the scratch file of a large one.
        """
        if diameter_ang < 4 * volume.voxel_size_ang:
            raise InputError(f"{volume.name}: expected a particle of at least 4 voxels across, got {diameter_ang:g} "
                             f"angstrom at {volume.voxel_size_ang:g} angstrom/voxel: check the diameter (angstrom) and "
                             "the voxel size")
        voxel = max(diameter_ang / WORKING_DIAMETER, volume.voxel_size_ang)
        grid = WorkingGrid(volume.shape_zyx, volume.voxel_size_ang, voxel)
        source, grey = open_working_volume(volume, grid), scratch_array(grid.shape_zyx)
        for z0, z1 in slabs(grid.shape_zyx, RESAMPLED_PLANES):
            grey[z0:z1] = source.planes(z0, z1)
            release_pages(grey)
        return cls(grey, grid, diameter_ang / voxel / 2)

    @functools.cached_property
    def response_zyx(self) -> np.ndarray:
        """How bright each place is against its surroundings, (Z, Y, X), see :func:`blob_response`."""
        return blob_response(self)

    @functools.cached_property
    def reach(self) -> Tuple[float, float]:
        """How far the darkest and the brightest thousandth of the places stand out, in standard deviations."""
        response, sample = self.response_zyx, []
        for z in spread(len(response), max(CONTRAST_PLANES, CONTRAST_VOXELS // response[0].size)):
            sample.append(np.array(response[z], np.float32).ravel())
            release_pages(response)
        low, high = np.quantile(np.concatenate(sample), (0.001, 0.999))
        return -float(low), float(high)

    @property
    def contrast(self) -> str:
        """``"dark"`` or ``"bright"``: what stands out more among places of the particle's size."""
        return "dark" if self.reach[0] >= self.reach[1] else "bright"

    @property
    def is_ambiguous(self) -> bool:
        """Whether dark and bright places stand out about alike, so that nobody should trust :attr:`contrast`."""
        return max(self.reach) < ALIKE * min(self.reach)

    def voxels(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return the nearest voxels (N, 3) int of positions (N, 3) in the tomogram's voxels, inside the grid."""
        nearest = np.rint(self.grid.to_working(positions_zyx_vox)).astype(int).reshape(-1, 3)
        return np.clip(nearest, 0, np.array(self.grey_zyx.shape) - 1)


def scratch_array(shape_zyx: Sequence[int]) -> np.ndarray:
    """Return an array (Z, Y, X) to fill: float32 in memory when it is small, else float16 in a file without a name.

    Raises
    ------
    OutputError
        If there is no room for the file.
    """
    size = int(np.prod(shape_zyx, dtype=np.int64))
    if 4 * size <= IN_MEMORY_BYTES:
        return np.empty(tuple(shape_zyx), np.float32)
    try:
        with tempfile.TemporaryFile(prefix="deepetpicker_") as stream:
            if hasattr(os, "posix_fallocate"):  # writing to a map of a sparse file ends the process on a full disk
                os.posix_fallocate(stream.fileno(), 0, 2 * size)
            return np.memmap(stream, np.float16, "r+" if hasattr(os, "posix_fallocate") else "w+", 0, tuple(shape_zyx))
    except OSError as error:
        raise OutputError(error.errno, f"expected {2 * size / 1e9:.1f} GB of free space for a scratch file in "
                          f"{tempfile.gettempdir()}: {error.strerror}; free space or choose another folder (TMPDIR)"
                          ) from error


def spread(n: int, most: int) -> np.ndarray:
    """Return at most so many of n planes, evenly spread, all of them where there are no more."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def slabs(shape_zyx: Sequence[int], most: int = 1 << 30) -> List[Tuple[int, int]]:
    """Return first plane, and one past the last, of slabs of at most so many that together are a volume (3,)."""
    depth, height, width = (int(n) for n in shape_zyx)
    step = max(1, min(depth, most, SLAB_BYTES // (4 * height * width)))
    return [(z0, min(z0 + step, depth)) for z0 in range(0, depth, step)]


class _Scale:
    """A difference of two Gaussians in units of its scatter in white noise, also where the border cuts it.

    Parameters
    ----------
    grey_zyx : (Z, Y, X) float
        Grey values, continued by reflection. There a place and its mirror image count as one, which makes noise stand
        out at edges and corners; it is divided by how much.
    sigma_vox : float
        Standard deviation of the inner Gaussian.
    """

    def __init__(self, grey_zyx: np.ndarray, sigma_vox: float) -> None:
        self.grey_zyx, self.sigmas = grey_zyx, (sigma_vox, RATIO * sigma_vox)
        axes = [[gaussian_rows(n, sigma) for sigma in self.sigmas] for n in grey_zyx.shape]
        self._z = axes[0]
        self._squares = [[(a * a).sum(1), (b * b).sum(1), (a * b).sum(1)] for a, b in axes]
        self.unit = 1.0

    def planes(self, z0: int, z1: int) -> np.ndarray:
        """Return planes z0 up to z1, (z1-z0, Y, X) float32."""
        inner, outer = (self._smooth(rows[z0:z1], sigma) for rows, sigma in zip(self._z, self.sigmas))
        release_pages(self.grey_zyx)
        inner -= outer
        inner /= self._scatter(z0, z1) * np.float32(self.unit)
        return inner

    def _smooth(self, rows: np.ndarray, sigma_vox: float) -> np.ndarray:
        """Return planes smoothed along all axes, (n, Y, X) float32, from the weights (n, Z) of their input planes."""
        from scipy import ndimage

        used = np.flatnonzero(rows.any(0))
        first, end = int(used[0]), int(used[-1]) + 1
        weights = rows[:, first:end].astype(np.float32)
        out = np.empty((len(rows), *self.grey_zyx.shape[1:]), np.float32)
        step = max(1, SLAB_BYTES // (4 * (end - first) * out.shape[2]))
        for y in range(0, out.shape[1], step):
            part = np.clip(self.grey_zyx[first:end, y:y + step].astype(np.float32), -CLIP, CLIP)
            out[:, y:y + step] = (weights @ part.reshape(end - first, -1)).reshape(len(rows), -1, out.shape[2])
        for axis in (1, 2):
            ndimage.gaussian_filter1d(out, sigma_vox, axis, output=out, truncate=TRUNCATE)
        return out

    def _scatter(self, z0: int, z1: int) -> np.ndarray:
        """Return the standard deviation in white noise of unit strength, (z1-z0, Y, X) float32."""
        z, y, x = ([part.astype(np.float32) for part in axis] for axis in self._squares)
        one, other, both = (z[k][z0:z1, None, None] * y[k][:, None] * x[k] for k in range(3))
        one += other
        one -= 2 * both
        return np.sqrt(np.maximum(one, 1e-12))


def gaussian_rows(n: int, sigma_vox: float) -> np.ndarray:
    """Return the weights (n, n) of a Gaussian along an axis of n voxels that is continued by reflection."""
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter1d(np.eye(n), sigma_vox, 0, truncate=TRUNCATE))


def blob_response(scene: Scene) -> np.ndarray:
    """Return how bright each place is against its surroundings (Z, Y, X), in robust standard deviations.

    Of several scales the one with the largest absolute response counts. Beads and what they reach are 0.
    """
    grey = scene.grey_zyx
    scales = [_Scale(grey, scene.radius_vox * scale / np.sqrt(3)) for scale in SCALES]  # a ball's standard deviation
    for one in scales:
        values = np.concatenate([one.planes(z, z + 1).ravel() for z in spread(len(grey), SAMPLED_PLANES)])
        one.unit = max(1.4826 * float(np.median(np.abs(values - np.median(values)))), 1e-12)
    out = scratch_array(grey.shape)
    for z0, z1 in slabs(grey.shape):
        best = scales[0].planes(z0, z1)
        for more in scales[1:]:
            other = more.planes(z0, z1)
            np.copyto(best, other, where=np.abs(other) > np.abs(best))
        best[near_beads(scene, z0, z1)] = 0
        out[z0:z1] = best
        release_pages(out)
        release_pages(grey)
    return out


def near_beads(scene: Scene, z0: int, z1: int) -> np.ndarray:
    """Return where beads reach in planes z0 up to z1, (z1-z0, Y, X) bool."""
    from scipy import ndimage

    halo = int(np.ceil(BEAD_REACH * scene.radius_vox)) + 4  # four: how far the smoothing reaches
    first, end = max(0, z0 - halo), min(len(scene.grey_zyx), z1 + halo)
    grey = scene.grey_zyx[first:end].astype(np.float32)
    beads = np.abs(ndimage.gaussian_filter(grey, BEAD_SIGMA)) > BEAD
    if not beads.any():
        return np.zeros((z1 - z0, *beads.shape[1:]), bool)
    return np.asarray(ndimage.distance_transform_edt(~beads) < BEAD_REACH * scene.radius_vox)[z0 - first:z1 - first]
