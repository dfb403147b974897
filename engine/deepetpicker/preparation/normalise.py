"""The two numbers that bring every tomogram to mean 0 and standard deviation 1.

Gold beads, hot voxels, NaN and infinite voxels must not decide these numbers, so they come from the voxels that
remain after sigma clipping about the median, on a regular sample of bounded size.
"""

from __future__ import annotations

import dataclasses
from typing import Tuple

import numpy as np

from deepetpicker.errors import InputError
from deepetpicker.io.volumes import release_pages

CLIP_SIGMA = 5.0
LIMIT_SIGMA = 10.0
SAMPLE_VOXELS = 4_000_000
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


@dataclasses.dataclass(frozen=True)
class Intensity:
    """Robust statistics of a tomogram.

    Attributes
    ----------
    mean, std : float
        In the tomogram's own grey values.
    quantiles : tuple of float
        Of the normalised voxels, at the probabilities ``QUANTILES``, so that tomograms can be compared.
    """

    mean: float
    std: float
    quantiles: Tuple[float, ...] = ()


def strided_sample(volume_zyx: np.ndarray, limit: int = SAMPLE_VOXELS) -> np.ndarray:
    """Return a regular sample of at most about ``limit`` voxels, (N,) float32, the same every time.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) of any numeric type
        May be a memory map: planes and rows are skipped, so that only a part of the file is read.
    limit : int
        Number of voxels.
    """
    z = volume_zyx.shape[0]
    step_z = max(1, min(z // 16, int(np.ceil(volume_zyx.size / limit))))
    step_y = max(1, int(np.ceil(volume_zyx.size / step_z / limit)))
    picked = [np.asarray(volume_zyx[k, (k // step_z) % step_y::step_y], np.float32) for k in range(0, z, step_z)]
    sample = np.concatenate([p.ravel() for p in picked]) if picked else np.empty(0, np.float32)
    release_pages(volume_zyx)
    return sample


def intensity_of_sample(sample: np.ndarray, name: str, is_real: bool = True) -> Intensity:
    """Return the sigma-clipped mean and standard deviation of a sample of voxels.

    Parameters
    ----------
    sample : (N,) float32
        Grey values; NaN and infinite ones are ignored.
    name : str
        The tomogram's name or path, for the message.
    is_real : bool
        The voxels were stored as real numbers: then a value that more than half of them share is padding and ignored.

    Raises
    ------
    InputError
        If no voxel is finite or all have the same value.
    """
    finite = np.asarray(sample, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        raise InputError(f"expected a tomogram with numbers in it, got only NaN or infinite voxels in {name}: "
                         "reconstruct or export it again")
    median = float(np.median(finite))
    spread = 1.4826 * float(np.median(np.abs(finite - median)))
    if spread == 0 and is_real and (finite != median).mean() > 0.01:
        finite = finite[finite != median]
        median = float(np.median(finite))
        spread = 1.4826 * float(np.median(np.abs(finite - median)))
    spread = spread or float(finite.std())
    if not spread > abs(median) * 1e-7:
        raise InputError(f"expected a tomogram with contrast, got the constant {median:g} everywhere in {name}: "
                         "check that this is the reconstruction and not an empty mask")
    mean, std = _clipped(finite, median, spread)
    normal = np.clip((finite - mean) / std, -LIMIT_SIGMA, LIMIT_SIGMA)
    return Intensity(mean, std, tuple(round(float(q), 4) for q in np.quantile(normal, QUANTILES)))


def _clipped(values: np.ndarray, centre: float, spread: float) -> Tuple[float, float]:
    """Return mean and standard deviation of the values (N,) within CLIP_SIGMA of the centre, iterated to rest."""
    for _ in range(5):
        kept = values[np.abs(values - centre) <= CLIP_SIGMA * spread]
        new = float(kept.std())
        if kept.size < 2 or new == 0:
            break
        settled = abs(new - spread) < 1e-4 * spread
        centre, spread = float(kept.mean()), new
        if settled:
            break
    return centre, spread


def robust_intensity(volume_zyx: np.ndarray, name: str = "the tomogram") -> Intensity:
    """Return the robust statistics of a whole tomogram, from about four million voxels at most.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) of any numeric type
        May be a memory map.
    name : str
        The tomogram's name or path, for messages.

    Raises
    ------
    InputError
        For a constant tomogram or one without a finite voxel, naming it.
    """
    return intensity_of_sample(strided_sample(volume_zyx), name, np.issubdtype(volume_zyx.dtype, np.floating))


def normalise(block_zyx: np.ndarray, intensity: Intensity) -> np.ndarray:
    """Return (block - mean) / std as float32 of the same shape.

    NaN becomes 0, the mean; values beyond 10 standard deviations are clipped to 10 (a gold bead stays the darkest
    thing around, but cannot drown the network's first layer), and so are infinite ones.

    Parameters
    ----------
    block_zyx : (Z, Y, X) of any numeric type
        Not modified.
    intensity : Intensity
        Of the whole tomogram.
    """
    out = np.asarray(block_zyx).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        out -= np.float32(intensity.mean)
        out *= np.float32(1.0 / intensity.std)
    np.clip(out, -LIMIT_SIGMA, LIMIT_SIGMA, out=out)
    if np.isnan(out.sum()):
        np.nan_to_num(out, copy=False, nan=0.0)
    return out
