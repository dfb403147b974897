"""From a click to the particle's centre: the strongest blob of the particle's size near it."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from deepetpicker.errors import InputError

REACH = 0.5        # how far the centre may lie from the click, in diameters
LEAST_VOX = 3.0    # blobs narrower than this are noise
MOST_VOX = 12.0    # larger ones are looked for in a coarser copy


def snap(volume_zyx: np.ndarray, position_zyx_vox: Sequence[float], diameter_vox: float) -> np.ndarray:
    """Return the centre of density nearest to a click, (3,) z, y, x in voxels.

    The density is compared with a ball of the particle's diameter in a shell of its surroundings (a difference of
    Gaussians), dark or bright, whichever is stronger; the best place within half a diameter of the click is refined
    between the voxels. Where nothing stands out the click stays where it is.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) array
        Tomogram; only what lies around the click is read.
    position_zyx_vox : (3,) sequence of float
        The click.
    diameter_vox : float
        Diameter of the particle in voxels.

    Raises
    ------
    InputError
        If the diameter is not a number above 0.
    """
    from scipy.ndimage import gaussian_filter, zoom

    if not (np.isfinite(diameter_vox) and diameter_vox > 0):
        raise InputError(f"a particle needs a diameter > 0 voxels, got {diameter_vox}")
    click = np.asarray(position_zyx_vox, float)
    size = max(float(diameter_vox), LEAST_VOX)
    half = int(np.ceil(1.5 * size)) + 1
    low = np.clip(np.rint(click).astype(int) - half, 0, None)
    high = np.minimum(np.rint(click).astype(int) + half + 1, volume_zyx.shape)
    if (high - low < 3).any():
        return click
    block = np.array(volume_zyx[tuple(slice(a, b) for a, b in zip(low, high))], np.float32)
    block = np.nan_to_num(block - np.nanmedian(block[np.isfinite(block)]) if np.isfinite(block).any() else block)
    binning = max(1.0, size / MOST_VOX)
    if binning > 1:
        before = np.array(block.shape)
        block = zoom(gaussian_filter(block, binning / 2), 1 / binning, order=1, grid_mode=True, mode="nearest")
        factor = before / np.array(block.shape)
    else:
        factor = np.ones(3)
    radius = size / binning / 2
    response = gaussian_filter(block, 0.6 * radius) - gaussian_filter(block, 1.2 * radius)
    start = (click - low + 0.5) / factor - 0.5
    distance = np.sqrt(sum((axis - s) ** 2 for axis, s in zip(np.ogrid[tuple(map(slice, block.shape))], start)))
    near = distance <= 2 * REACH * radius
    if not near.any() or np.abs(response[near]).max() <= 1e-6 * max(float(np.abs(block).max()), 1e-30):
        return click
    strength = np.where(near, np.abs(response), -1.0)
    best = np.array(np.unravel_index(int(strength.argmax()), strength.shape))
    signed = response * np.sign(response[tuple(best)])
    return np.asarray((_refined(signed, best) + 0.5) * factor - 0.5 + low)


def _refined(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the maximum of the parabolas through a voxel and its neighbours along each axis, (3,)."""
    found = at.astype(float)
    for axis in range(3):
        if 0 < at[axis] < values.shape[axis] - 1:
            step = np.eye(3, dtype=int)[axis]
            before, here, after = (float(values[tuple(at + d * step)]) for d in (-1, 0, 1))
            bend = before - 2 * here + after
            if bend < 0:
                found[axis] += float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
    return found
