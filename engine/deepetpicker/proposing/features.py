"""What a place of a tomogram looks like, in a few numbers that do not depend on how a particle lies.

Mean and scatter of the grey value in concentric shells, and how the shells differ between poles and equator: the
missing wedge makes the beam's axis the one direction that is not like the others. The last is the blob response.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

from deepetpicker.proposing.blobs import CLIP, Scene

EDGES = np.linspace(0.0, 1.6, 9)  # of the shells, in particle radii
POLAR = 0.6  # cosine of the angle to the beam above which a voxel lies at the poles
_CHUNK = 256


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
    grey = np.pad(np.clip(scene.grey_zyx, -CLIP, CLIP), half, mode="symmetric")
    steps = np.argwhere(masks.any(0))
    weights = np.stack([m[masks.any(0)] / m.sum() for m in (*masks, *polar)]).T.astype(np.float32)  # (M, S + P)
    index = np.ravel_multi_index(tuple(steps.T), grey.shape)
    voxels = scene.voxels(positions_zyx_vox)
    first = np.ravel_multi_index(tuple(voxels.T), grey.shape)
    flat, n = grey.ravel(), len(masks)
    out = [np.empty((0, n_features() - 1), np.float32)]
    for lo in range(0, len(first), _CHUNK):
        box = flat[first[lo:lo + _CHUNK, None] + index]
        mean, square = box @ weights, box ** 2 @ weights[:, 1:n]
        scatter = np.sqrt(np.maximum(square - mean[:, 1:n] ** 2, 0))
        poles, equator = mean[:, n::2], mean[:, n + 1::2]
        out.append(np.concatenate([mean[:, :n], scatter, poles - equator], 1))
    response = scene.response_zyx[tuple(voxels.T)].astype(np.float32)
    return np.concatenate([np.concatenate(out), response[:, None]], 1)


def _shells(radius_vox: float) -> Tuple[np.ndarray, np.ndarray, int]:
    """Return the shells (S, E, E, E) bool, the poles and equator of the outer ones in turn (P, E, E, E), half edge."""
    half = int(np.ceil(EDGES[-1] * radius_vox))
    axis = np.arange(-half, half + 1) / radius_vox
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2)
    shells = np.stack([(distance >= low) & (distance < high) for low, high in zip(EDGES, EDGES[1:])])
    is_polar = np.abs(axis)[:, None, None] > POLAR * np.maximum(distance, 1e-9)
    parts = [part for shell in shells[2:] for part in (shell & is_polar, shell & ~is_polar)]
    return shells, np.stack(parts), half
