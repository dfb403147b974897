"""What a place of a tomogram looks like, in a few numbers that do not depend on how a particle lies.

Mean and scatter of the grey value in concentric shells, and how the shells differ between poles and equator: the
missing wedge makes the beam's axis the one direction that is not like the others. The last is the blob response.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

from deepetpicker.io.volumes import release_pages
from deepetpicker.preparation.scene import CLIP, Scene

EDGES = np.linspace(0.0, 1.6, 9)  # of the shells, in particle radii
POLAR = 0.6  # cosine of the angle to the beam above which a voxel lies at the poles
_CHUNK = 32  # places at once: each touches some hundred pages of a mapped file


def n_features() -> int:
    """Return the number of features of a place."""
    shells = len(EDGES) - 1
    return shells + (shells - 1) + (shells - 2) + 1


def features_at(scene: Scene, positions_zyx_vox: np.ndarray) -> np.ndarray:
    """Return the features (N, F) float32 of places of a tomogram.

    Parameters
    ----------
    scene : Scene
        The tomogram.
    positions_zyx_vox : (N, 3) float
        Places in the tomogram's voxels; N may be 0, and places outside are taken at the border.
    """
    masks, polar, half = _shells(scene.radius_vox)
    steps = np.argwhere(masks.any(0)) - half
    weights = np.stack([m[masks.any(0)] / m.sum() for m in (*masks, *polar)]).T.astype(np.float32)  # (M, S + P)
    voxels, n = scene.voxels(positions_zyx_vox), len(masks)
    out = [np.empty((0, n_features() - 1), np.float32)]
    for lo in range(0, len(voxels), _CHUNK):
        box = _around(scene.grey_zyx, voxels[lo:lo + _CHUNK], steps)
        mean, square = box @ weights, box ** 2 @ weights[:, 1:n]
        scatter = np.sqrt(np.maximum(square - mean[:, 1:n] ** 2, 0))
        poles, equator = mean[:, n::2], mean[:, n + 1::2]
        out.append(np.concatenate([mean[:, :n], scatter, poles - equator], 1))
    response = scene.response_zyx[tuple(voxels.T)].astype(np.float32)
    release_pages(scene.response_zyx)
    return np.concatenate([np.concatenate(out), response[:, None]], 1)


def _around(grey_zyx: np.ndarray, voxels_zyx: np.ndarray, steps_zyx: np.ndarray) -> np.ndarray:
    """Return the clipped grey values (N, M) at steps (M, 3) from voxels (N, 3), reflected at the border."""
    index = []
    for axis, size in enumerate(grey_zyx.shape):
        period = (voxels_zyx[:, None, axis] + steps_zyx[:, axis]) % (2 * size)
        index.append(np.where(period < size, period, 2 * size - 1 - period))
    box = np.clip(grey_zyx[tuple(index)].astype(np.float32), -CLIP, CLIP)
    release_pages(grey_zyx)
    return box


def _shells(radius_vox: float) -> Tuple[np.ndarray, np.ndarray, int]:
    """Return the shells (S, E, E, E) bool, the poles and equator of the outer ones in turn (P, E, E, E), half edge."""
    half = int(np.ceil(EDGES[-1] * radius_vox))
    axis = np.arange(-half, half + 1) / radius_vox
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2)
    shells = np.stack([(distance >= low) & (distance < high) for low, high in zip(EDGES, EDGES[1:])])
    is_polar = np.abs(axis)[:, None, None] > POLAR * np.maximum(distance, 1e-9)
    parts = [part for shell in shells[2:] for part in (shell & is_polar, shell & ~is_polar)]
    return shells, np.stack(parts), half
