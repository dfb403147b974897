"""From a click to the particle's centre: uphill to the blob of the particle's size, then to its centre of density."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError

REACH = 0.25        # how far the centre may lie from the click, in diameters; half of a particle lies farther off
REACH_VOX = 2.0     # but so far at least: nobody clicks more exactly
AGREEMENT = 0.1     # how far the centre of density may lie from the blob's summit, in diameters
LEAST_VOX = 3.0     # blobs narrower than this are noise
MOST_VOX = 12.0     # larger ones are looked for in a coarser copy
WINDOW = 0.5        # standard deviation of the weights of density, in diameters
BALL, SHELL = 1.15, (1.1, 1.6)  # what is weighed and what it is compared with, in radii
STEPS, STILL_VOX = 20, 0.01


def snap(volume_zyx: np.ndarray, position_zyx_vox: Sequence[float], diameter_vox: float) -> np.ndarray:
    """Return the centre of density at a click, (3,) z, y, x in voxels.

    How far a ball of the particle's diameter stands out of a shell of its surroundings (a difference of Gaussians) is
    followed uphill from the click, dark or bright as it is there; the centre of density about the summit is the
    particle's. The click stays where it is when nothing stands out, when the summit lies more than a quarter of a
    diameter away, and when summit and centre of density disagree: then what is there is no compact particle of that
    diameter, such as one of two balls.

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
    if not (np.isfinite(diameter_vox) and diameter_vox > 0):
        raise InputError(f"a particle needs a diameter > 0 voxels, got {diameter_vox}")
    click = np.asarray(position_zyx_vox, float)
    size = max(float(diameter_vox), LEAST_VOX)
    half = int(np.ceil(1.5 * size)) + 1
    low = np.clip(np.rint(click).astype(int) - half, 0, None)
    high = np.minimum(np.rint(click).astype(int) + half + 1, volume_zyx.shape)
    if (high - low < 3).any():
        return click
    grey, factor = _working_copy(np.array(volume_zyx[tuple(map(slice, low, high))], np.float32), size)
    start = (click - low + 0.5) / factor - 0.5
    found = _centre(grey, start, size / factor.max())
    return click if found is None else np.asarray((found + 0.5) * factor - 0.5 + low)


def _working_copy(block: np.ndarray, size: float) -> Tuple[np.ndarray, np.ndarray]:
    """Return what was read about its median, coarser for large particles, and how many voxels make one of it, (3,)."""
    from scipy.ndimage import gaussian_filter, zoom

    known = np.isfinite(block)
    grey = np.nan_to_num(block - np.median(block[known]) if known.any() else block)
    if size <= MOST_VOX:
        return grey, np.ones(3)
    coarse = zoom(gaussian_filter(grey, size / MOST_VOX / 2), MOST_VOX / size, order=1, grid_mode=True, mode="nearest")
    return coarse, np.array(grey.shape) / np.array(coarse.shape)


def _centre(grey: np.ndarray, start: np.ndarray, size: float) -> Optional[np.ndarray]:
    """Return the centre of density near a place, (3,), or None where there is none that can be trusted."""
    from scipy.ndimage import gaussian_filter

    response = gaussian_filter(grey, 0.3 * size) - gaussian_filter(grey, 0.6 * size)
    first = np.clip(np.rint(start).astype(int), 0, np.array(grey.shape) - 1)
    sign = np.sign(response[tuple(first)])
    if abs(response[tuple(first)]) <= 1e-6 * max(float(np.abs(grey).max()), 1e-30):
        return None
    summit = _summit(sign * response, first)
    centre = _centre_of_density(sign * grey, summit, size)
    reach = max(REACH * size, REACH_VOX)
    if np.linalg.norm(summit - start) > reach or np.linalg.norm(centre - summit) > AGREEMENT * size:
        return None
    return centre


def _summit(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return where the steepest way from a voxel ends, between the voxels by parabolas, (3,)."""
    while True:
        low = np.maximum(at - 1, 0)
        around = values[tuple(map(slice, low, at + 2))]
        best = np.array(np.unravel_index(int(around.argmax()), around.shape)) + low
        if (best == at).all():
            break
        at = best
    found = at.astype(float)
    for axis in range(3):
        if 0 < at[axis] < values.shape[axis] - 1:
            step = np.eye(3, dtype=int)[axis]
            before, here, after = (float(values[tuple(at + d * step)]) for d in (-1, 0, 1))
            bend = before - 2 * here + after
            if bend < 0:
                found[axis] += float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
    return found


def _centre_of_density(grey: np.ndarray, start: np.ndarray, size: float) -> np.ndarray:
    """Return the centre of what is brighter than the shell around it, by mean shift from a place, (3,)."""
    centre = start.copy()
    axes = np.ogrid[tuple(map(slice, grey.shape))]
    for _ in range(STEPS):
        offsets = [axis - at for axis, at in zip(axes, centre)]
        distance = np.sqrt(sum(offset ** 2 for offset in offsets))
        shell = (distance > SHELL[0] * size / 2) & (distance < SHELL[1] * size / 2)
        weight = np.exp(-0.5 * (distance / (WINDOW * size)) ** 2) * (distance < BALL * size / 2)
        for offset in offsets:  # at the tomogram's border as much is left out on the other side
            weight = weight * (np.abs(offset) < min(-offset.min(), offset.max()) + 0.5)
        weight = weight * (grey - (grey[shell].mean() if shell.any() else 0.0))
        total = float(weight.sum())
        if total <= 0:
            break
        step = np.array([float((weight * offset).sum()) / total for offset in offsets])
        centre = centre + step * min(1.0, AGREEMENT * size / max(float(np.linalg.norm(step)), 1e-9))
        if np.linalg.norm(step) < STILL_VOX or np.linalg.norm(centre - start) > 2 * AGREEMENT * size:
            break
    return centre
