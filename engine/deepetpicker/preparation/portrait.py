"""What a tomogram looks like to a network, in a few numbers that tell it from tomograms of another kind.

Grain is how much of the deviation is left in blocks of 2 and 4 working voxels: it follows from the voxel size, the
filtering and the noise, hardly from what is in the tomogram. The standing-out values are quantiles of the tomogram
band-passed at the size of the particles: dark particles make the low ones extreme, and nothing does where there are
none.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Mapping, Sequence, Tuple

import numpy as np

from deepetpicker.preparation.resample import Voxels

SAMPLE_VOXELS = 3_000_000
BLOCKS = (2, 4)  # in larger ones the particles count, not only the noise
QUANTILES = (0.001, 0.01, 0.05, 0.95, 0.99, 0.999)
ACROSS = 6  # voxels across a particle in the band-passed sample
BROADER = 1.6  # of two Gaussians whose difference passes the band
MIRRORED = 0.5  # grey values fit so many times better when they are turned round


@dataclasses.dataclass(frozen=True)
class Portrait:
    """A tomogram in a few numbers.

    Attributes
    ----------
    grain : tuple of float
        Standard deviation of the means of blocks of 2 and 4 voxels, in that of the voxels.
    standing_out : tuple of float
        Quantiles at ``QUANTILES`` of the band-passed sample, in robust deviations.
    """

    grain: Tuple[float, ...]
    standing_out: Tuple[float, ...]

    def to_dict(self) -> Dict[str, Any]:
        """Return the numbers as JSON-ready values."""
        return {"grain": list(self.grain), "standing_out": list(self.standing_out)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Portrait:
        """Return what :meth:`to_dict` wrote."""
        return cls(*(tuple(float(v) for v in content.get(key) or ()) for key in ("grain", "standing_out")))


def portrait(source: Voxels, diameter_vox: float) -> Portrait:
    """Return the portrait of a tomogram, from a box of about three million voxels in its middle.

    Parameters
    ----------
    source : Voxels
        Normalised voxels on the working grid.
    diameter_vox : float
        Diameter of the largest particle in working voxels.
    """
    from scipy.ndimage import gaussian_filter

    sample = source.read(_middle(source.shape_zyx, diameter_vox))
    spread = max(float(sample.std()), 1e-9)
    grain = tuple(round(float(block_means(sample, edge).std()) / spread, 4) for edge in BLOCKS
                  if min(sample.shape) >= 2 * edge)
    edge = max(1, int(diameter_vox / ACROSS))
    small = block_means(sample, edge)
    sigma = diameter_vox / edge / 2 / 3**0.5
    passed = gaussian_filter(small, sigma) - gaussian_filter(small, BROADER * sigma)
    passed -= np.median(passed)
    deviation = max(1.4826 * float(np.median(np.abs(passed))), 1e-9)
    return Portrait(grain, tuple(round(float(q), 3) for q in np.quantile(passed / deviation, QUANTILES)))


def _middle(shape_zyx: Sequence[int], diameter_vox: float) -> Tuple[slice, slice, slice]:
    """Return a box in the middle, deep enough for particles."""
    depth = min(shape_zyx[0], max(32, int(4 * diameter_vox)))
    width = max(32, int((SAMPLE_VOXELS / depth) ** 0.5))
    z, y, x = (slice((n - length) // 2, (n - length) // 2 + length)
               for n, length in zip(shape_zyx, (depth, min(shape_zyx[1], width), min(shape_zyx[2], width))))
    return z, y, x


def block_means(voxels_zyx: np.ndarray, edge: int) -> np.ndarray:
    """Return the means of cubic blocks, (Z // edge, Y // edge, X // edge); what is left over at the end is dropped."""
    z, y, x = (max(1, n // edge) for n in voxels_zyx.shape)
    cut = voxels_zyx[:z * edge, :y * edge, :x * edge]
    if min(voxels_zyx.shape) < edge:
        return cut
    return np.asarray(cut.reshape(z, edge, y, edge, x, edge).mean((1, 3, 5)))


def is_mirrored(quantiles: Sequence[float], started: Sequence[float]) -> bool:
    """Return True if normalised grey values fit those a model was trained on clearly better with their sign changed.

    Parameters
    ----------
    quantiles, started : (Q,) float
        At the same probabilities, which lie evenly about 1/2; empty when not known.
    """
    if not len(quantiles) or len(quantiles) != len(started):
        return False
    ours, theirs = np.asarray(quantiles, float), np.asarray(started, float)
    apart, turned = np.abs(ours - theirs).max(), np.abs(-ours[::-1] - theirs).max()
    return bool(apart > 0.1 and turned < MIRRORED * apart)
