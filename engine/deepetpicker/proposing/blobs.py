"""Blobs of the particle's size: difference of Gaussians at several scales, gold and borders left out."""

from __future__ import annotations

import dataclasses
import functools
from typing import List, Tuple

import numpy as np

from deepetpicker.config import ProposeOptions
from deepetpicker.errors import InputError
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.resample import open_working_volume

WORKING_DIAMETER = 12.0  # voxels across a particle where blobs are looked for
SCALES = (0.8, 1.0, 1.25)  # of the diameter
RATIO = 1.6  # of the two Gaussians: nearly the Laplacian
CLIP = 4.0  # grey values beyond so many standard deviations count as so many: a bead is no better than a particle
BEAD, BEAD_REACH = 8.0, 0.6  # standard deviations of a bead's core, and how far it reaches, in particle radii
APART = 0.5  # blobs closer than this share of the diameter are one
FALL = 4.0  # response, in robust standard deviations, at which the score is 1 - exp(-1/2)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A tomogram on the grid where candidates are looked for.

    Attributes
    ----------
    grey_zyx : (Z, Y, X) float32
        Normalised grey values.
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
        """
        if diameter_ang < 4 * volume.voxel_size_ang:
            raise InputError(f"{volume.name}: expected a particle of at least 4 voxels across, got {diameter_ang:g} "
                             f"angstrom at {volume.voxel_size_ang:g} angstrom/voxel: check the diameter (angstrom) and "
                             "the voxel size")
        voxel = max(diameter_ang / WORKING_DIAMETER, volume.voxel_size_ang)
        grid = WorkingGrid(volume.shape_zyx, volume.voxel_size_ang, voxel)
        return cls(open_working_volume(volume, grid).planes(0, grid.shape_zyx[0]), grid, diameter_ang / voxel / 2)

    @functools.cached_property
    def response_zyx(self) -> np.ndarray:
        """How bright each place is against its surroundings, (Z, Y, X), see :func:`blob_response`."""
        return blob_response(self)

    def voxels(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return the nearest voxels (N, 3) int of positions (N, 3) in the tomogram's voxels, inside the grid."""
        nearest = np.rint(self.grid.to_working(positions_zyx_vox)).astype(int).reshape(-1, 3)
        return np.clip(nearest, 0, np.array(self.grey_zyx.shape) - 1)


class BlobFinder:
    """Finds blobs, one tomogram after the other.

    Parameters
    ----------
    options : ProposeOptions
        Contrast.
    """

    def __init__(self, options: ProposeOptions) -> None:
        self.contrast = options.contrast
        self.warnings: List[str] = []

    def __call__(self, volume: Volume, scene: Scene, most: int) -> CoordinateTable:
        """Return the strongest blobs of a tomogram and its scene, see :func:`find_blobs`."""
        return find_blobs(scene, most, self.contrast)


def find_blobs(scene: Scene, most: int, contrast: str = "auto") -> CoordinateTable:
    """Return the strongest blobs of the particle's size, best first, in the tomogram's voxels.

    Parameters
    ----------
    scene : Scene
        The tomogram.
    most : int
        Largest number of blobs, >= 1.
    contrast : str
        ``"dark"`` or ``"bright"`` particles on their surroundings; ``"auto"`` takes what stands out more.

    Returns
    -------
    CoordinateTable
        Sub-voxel positions of class 1; the score grows from 0 to 1 with the response over its scatter.
    """
    response = scene.response_zyx
    if contrast == "auto":
        contrast = stronger_contrast(response)
    response = -response if contrast == "dark" else response
    voxels, heights = separate_peaks(response, APART * 2 * scene.radius_vox, most)
    positions = scene.grid.to_input(voxels + peak_offsets(response, voxels))
    scores = 1 - np.exp(-0.5 * (heights / FALL) ** 2)
    return CoordinateTable(positions, np.ones(len(positions), np.int64), scores)


def blob_response(scene: Scene) -> np.ndarray:
    """Return how bright each place is against its surroundings (Z, Y, X), in robust standard deviations.

    Of several scales the one with the largest absolute response counts. Beads and what they reach are 0.
    """
    from scipy import ndimage

    grey = np.clip(scene.grey_zyx, -CLIP, CLIP)
    best = np.zeros(grey.shape, np.float32)
    for scale in SCALES:
        sigma = scene.radius_vox * scale / np.sqrt(3)  # a ball of this radius has this standard deviation along an axis
        inner, outer = (ndimage.gaussian_filter(grey, s, truncate=3.0) for s in (sigma, RATIO * sigma))
        one = inner - outer
        one /= max(1.4826 * float(np.median(np.abs(one - np.median(one)))), 1e-12)
        best = np.where(np.abs(one) > np.abs(best), one, best)
    beads = np.abs(ndimage.gaussian_filter(scene.grey_zyx, 0.7)) > BEAD
    if beads.any():
        best[ndimage.distance_transform_edt(~beads) < BEAD_REACH * scene.radius_vox] = 0
    return best


def stronger_contrast(response_zyx: np.ndarray) -> str:
    """Return ``"dark"`` or ``"bright"``: which end of the responses (Z, Y, X) reaches farther."""
    low, high = np.quantile(response_zyx, (0.001, 0.999))
    return "dark" if -low >= high else "bright"


def separate_peaks(response_zyx: np.ndarray, distance_vox: float, most: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return the highest local maxima above 0 that are at least a distance apart, best first.

    Parameters
    ----------
    response_zyx : (Z, Y, X) float32
        Map.
    distance_vox : float
        Smallest distance between two peaks, in its voxels.
    most : int
        Largest number of peaks.

    Returns
    -------
    tuple
        Voxels (N, 3) int and heights (N,).
    """
    from scipy import ndimage
    from scipy.spatial import cKDTree

    tops = np.argwhere((response_zyx == ndimage.maximum_filter(response_zyx, 3)) & (response_zyx > 0))
    heights = response_zyx[tuple(tops.T)]
    order = np.lexsort((*tops.T[::-1], -heights))
    tops, heights = tops[order], heights[order]
    tree, gone, kept = (cKDTree(tops) if len(tops) else None), np.zeros(len(tops), bool), []
    for row in range(len(tops)):
        if gone[row] or tree is None:
            continue
        kept.append(row)
        if len(kept) == most:
            break
        gone[tree.query_ball_point(tops[row], distance_vox)] = True
    return tops[kept].reshape(-1, 3), heights[kept]


def peak_offsets(response_zyx: np.ndarray, voxels_zyx: np.ndarray) -> np.ndarray:
    """Return by how much (N, 3) parabolas through neighbours move peaks (N, 3), at most half a voxel."""
    out = np.zeros(voxels_zyx.shape)
    for axis, step in enumerate(np.eye(3, dtype=int)):
        size = response_zyx.shape[axis]
        inner = (voxels_zyx[:, axis] > 0) & (voxels_zyx[:, axis] < size - 1)
        low, mid, high = (response_zyx[tuple((voxels_zyx[inner] + k * step).T)].astype(float) for k in (-1, 0, 1))
        bend = np.minimum(low - 2 * mid + high, -1e-12)
        out[inner, axis] = np.clip(0.5 * (low - high) / bend, -0.5, 0.5)
    return out
