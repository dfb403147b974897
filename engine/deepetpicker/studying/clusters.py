"""From the voxels of a segmentation to particles by mean shift, as DeepFinder does (Moebel et al. 2021)."""

from __future__ import annotations

import numpy as np

from deepetpicker.io.coordinates import CoordinateTable

MOST_STEPS = 50
APART = 1.5  # radii between two centres


def segmented(probability_czyx: np.ndarray) -> np.ndarray:
    """Return the most probable class of each voxel, (Z, Y, X) int: 1 for the first channel, 0 for background.

    Parameters
    ----------
    probability_czyx : (C, Z, Y, X) float
        Of each class; what is left to 1 is that of background.
    """
    best = probability_czyx.argmax(0)
    is_particle = probability_czyx.max(0) > 1 - probability_czyx.sum(0)
    return np.where(is_particle, best + 1, 0)


def mean_shift(mask_zyx: np.ndarray, radius_vox: float) -> CoordinateTable:
    """Return the clusters of the voxels of a mask, class 1, best first.

    Every voxel walks to the mean of the voxels within a radius, again and again; where walks end are the centres. Of
    two centres within one and a half radii that with more voxels about it stays, so that the place where two balls
    touch is none. A cluster is the voxels whose nearest centre it is; its score grows from 0 to 1 with their number,
    0.5 for a ball of the radius.

    Parameters
    ----------
    mask_zyx : (Z, Y, X) bool
        Voxels of one class.
    radius_vox : float
        Of the walks, in voxels.
    """
    from scipy import ndimage, signal
    from scipy.spatial import cKDTree

    voxels = np.argwhere(mask_zyx)
    if not len(voxels):
        return CoordinateTable.empty()
    half = int(np.ceil(radius_vox))
    offsets = np.ogrid[-half:half + 1, -half:half + 1, -half:half + 1]
    kernel = (sum(o * o for o in offsets) <= radius_vox ** 2).astype(np.float32)
    inside = mask_zyx.astype(np.float32)
    count = np.maximum(np.rint(signal.fftconvolve(inside, kernel, "same")), 1)
    axes = np.ogrid[tuple(slice(0, n) for n in mask_zyx.shape)]
    means = [signal.fftconvolve(inside * axis, kernel, "same") / count for axis in axes]
    at = voxels
    for _ in range(MOST_STEPS):
        moved = np.rint(np.stack([mean[tuple(at.T)] for mean in means], axis=1)).astype(int)
        moved = np.clip(moved, 0, np.array(mask_zyx.shape) - 1)
        if np.array_equal(moved, at):
            break
        at = moved
    ends = np.unique(at, axis=0)
    heights = count[tuple(ends.T)]
    ends = ends[np.argsort(-heights, kind="stable")]
    tree, gone, kept = cKDTree(ends), np.zeros(len(ends), bool), []
    for row in range(len(ends)):
        if not gone[row]:
            kept.append(row)
            gone[tree.query_ball_point(ends[row], APART * radius_vox)] = True
    nearest = cKDTree(ends[kept]).query(voxels)[1]
    centres = np.array([ndimage.mean(voxels[:, k], nearest, np.arange(len(kept))) for k in range(3)]).T
    sizes = np.bincount(nearest, minlength=len(kept))
    scores = 1 - 0.5 ** (sizes / kernel.sum())
    filled = sizes > 0
    table = CoordinateTable(centres[filled], np.ones(int(filled.sum()), np.int64), scores[filled])
    return table.sorted_by_score()
