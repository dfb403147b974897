"""Blobs of the particle's size: difference of Gaussians at several scales, gold and borders left out."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

from deepetpicker.config import ProposeOptions
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume, release_pages
from deepetpicker.preparation.scene import Scene, slabs

APART = 0.5  # blobs closer than this share of the diameter are one
FALL = 4.0  # response, in robust standard deviations, at which the score is 1 - exp(-1/2)


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
    sign = -1 if (scene.contrast if contrast == "auto" else contrast) == "dark" else 1
    voxels, heights = separate_peaks(scene.response_zyx, APART * 2 * scene.radius_vox, most, sign)
    positions = scene.grid.to_input(voxels + peak_offsets(scene.response_zyx, voxels, sign))
    scores = 1 - np.exp(-0.5 * (heights / FALL) ** 2)
    return CoordinateTable(positions, np.ones(len(positions), np.int64), scores)


def separate_peaks(response_zyx: np.ndarray, distance_vox: float, most: int,
                   sign: int = 1) -> Tuple[np.ndarray, np.ndarray]:
    """Return the highest local maxima above 0 that are at least a distance apart, best first.

    Parameters
    ----------
    response_zyx : (Z, Y, X) float
        Map.
    distance_vox : float
        Smallest distance between two peaks, in its voxels.
    most : int
        Largest number of peaks.
    sign : int
        -1 for the deepest minima below 0 instead; their depths are returned as heights.

    Returns
    -------
    tuple
        Voxels (N, 3) int and heights (N,).
    """
    from scipy.spatial import cKDTree

    tops, heights = _tops(response_zyx, sign)
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


def _tops(response_zyx: np.ndarray, sign: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return the local maxima above 0 of a map (Z, Y, X) times a sign, voxels (N, 3) and heights (N,)."""
    from scipy import ndimage

    places, heights = [np.empty((0, 3), int)], [np.empty(0, np.float32)]
    for z0, z1 in slabs(response_zyx.shape):
        first = max(0, z0 - 1)
        part = sign * response_zyx[first:z1 + 1].astype(np.float32)
        is_top = ((part == ndimage.maximum_filter(part, 3)) & (part > 0))[z0 - first:z1 - first]
        found = np.argwhere(is_top) + (z0, 0, 0)
        places.append(found)
        heights.append(part[tuple((found - (first, 0, 0)).T)])
        release_pages(response_zyx)
    return np.concatenate(places), np.concatenate(heights)


def peak_offsets(response_zyx: np.ndarray, voxels_zyx: np.ndarray, sign: int = 1) -> np.ndarray:
    """Return by how much (N, 3) parabolas through neighbours move peaks (N, 3), at most half a voxel; -1: minima."""
    out = np.zeros(voxels_zyx.shape)
    for axis, step in enumerate(np.eye(3, dtype=int)):
        size = response_zyx.shape[axis]
        inner = (voxels_zyx[:, axis] > 0) & (voxels_zyx[:, axis] < size - 1)
        low, mid, high = (sign * response_zyx[tuple((voxels_zyx[inner] + k * step).T)].astype(float)
                          for k in (-1, 0, 1))
        bend = np.minimum(low - 2 * mid + high, -1e-12)
        out[inner, axis] = np.clip(0.5 * (low - high) / bend, -0.5, 0.5)
    return out
