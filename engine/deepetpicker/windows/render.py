"""From voxels to the grey picture of one view: slab, smoothing, contrast, zoom. The data are never touched."""

from __future__ import annotations

import dataclasses
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.io.volumes import release_pages
from deepetpicker.windows.scene import AXES

KEPT_BYTES = 192 * 2 ** 20  # tomograms up to this size stay in memory once seen
TOUCHED_BYTES = 96 * 2 ** 20  # of larger ones, so much is in memory at once
PLANE_EDGE = 256            # edge of what is looked at for the contrast of a whole tomogram, in voxels
SAMPLED = 20_000            # pixels that are looked at for the contrast
OUTSIDE = 235               # grey beside the tomogram
OUTSIDE_CROP = 62           # in crops, which lie on a dark ground: bright would pass for density
_GREYS = np.arange(256, dtype=np.uint32)
_COLOURS = (_GREYS * 0x010101 | 0xFF000000).astype("<u4")  # grey -> red, green, blue, alpha


@dataclasses.dataclass(frozen=True)
class Look:
    """How slices are shown.

    Parameters
    ----------
    average : int
        Planes averaged on each side of the shown one.
    smooth_vox : float
        Standard deviation of the Gaussian low-pass within the plane, in shown voxels; 0 for none.
    clipped_percent : float
        Share of the pixels that become quite black, and quite white.
    inverted : bool
        True shows high values dark.
    """

    average: int = 1
    smooth_vox: float = 0.0
    clipped_percent: float = 0.5
    inverted: bool = False


def read_plane(volume_zyx: np.ndarray, cut: Tuple[int, int], part: Tuple[slice, slice], average: int = 0) -> np.ndarray:
    """Return a part of a plane as (up, right) float32, averaged with its neighbours on each side.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) array
        May be mapped into memory: only what is needed is read.
    cut : tuple of int
        Axis that is cut (0 z, 1 y, 2 x) and the plane.
    part : tuple of slice
        Voxels to the right and upwards.
    average : int
        Planes on each side.
    """
    axis, plane = cut
    right, up = AXES[axis]
    window: List[Any] = [slice(None)] * 3
    window[right], window[up] = part
    window[axis] = slice(max(plane - average, 0), plane + average + 1)
    if axis == 0 or volume_zyx.nbytes <= KEPT_BYTES:
        image = _mean(volume_zyx[tuple(window)], axis)
    else:  # a cut across the planes touches all of them: a few at a time, so that few are in memory
        rows = range(*window[0].indices(volume_zyx.shape[0]))
        count = max(1, TOUCHED_BYTES // (volume_zyx.nbytes // volume_zyx.shape[0] * rows.step))
        pieces = []
        for first in range(0, len(rows), count):
            some = rows[first:first + count]
            window[0] = slice(some.start, some.stop, some.step)
            pieces.append(_mean(volume_zyx[tuple(window)], axis))
            release_pages(volume_zyx)
        image = np.concatenate(pieces)
    if volume_zyx.nbytes > KEPT_BYTES:
        release_pages(volume_zyx)
    return image.T if axis == 2 else image


def _mean(slab: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean of a few planes along an axis, float32, a copy."""
    image = np.array(slab[(slice(None),) * axis + (0,)], dtype=np.float32)
    for other in range(1, slab.shape[axis]):
        image += slab[(slice(None),) * axis + (other,)]
    image /= slab.shape[axis]
    return image


def grey_limits(image: np.ndarray, clipped_percent: float) -> Tuple[float, float]:
    """Return the grey values of black and white, when so many percent of the pixels are clipped at either end."""
    step = max(1, int(np.sqrt(image.size / SAMPLED)))
    known = image[::step, ::step]
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, (clipped_percent, 100 - clipped_percent))
    return float(low), float(high) if high > low else float(low) + 1.0


def view_picture(volume_zyx: np.ndarray, cut: Tuple[int, int], window: Sequence[float], size_px: Tuple[int, int],
                 look: Look, limits: Optional[Tuple[float, float]] = None, outside: int = OUTSIDE) -> np.ndarray:
    """Return the picture of a part of a plane, (height, width, 4) uint8, top row first.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) array
        Voxels, mapped into memory.
    cut : tuple of int
        Axis that is cut (0 z, 1 y, 2 x) and the plane.
    window : (4,) sequence of float
        Left, right, lower and upper edge in voxels (the first voxel reaches from -0.5 to 0.5); may lie outside.
    size_px : tuple of int
        Width and height in pixels.
    look : Look
        Slab, low-pass, contrast.
    limits : tuple of float, optional
        Grey values of black and white; default: those of the part itself.
    outside : int
        Grey of what lies beside the tomogram.
    """
    right, up = AXES[cut[0]]
    across = _Side(window[0], window[1], size_px[0], volume_zyx.shape[right])
    upward = _Side(window[2], window[3], size_px[1], volume_zyx.shape[up])
    picture = np.full((size_px[1], size_px[0]), outside, np.uint8)
    if not (across.inside.any() and upward.inside.any()):
        return _coloured(picture)
    margin = int(np.ceil(3 * look.smooth_vox))
    image = read_plane(volume_zyx, cut, (across.part(margin), upward.part(margin)), look.average)
    image = np.nan_to_num(image, copy=False) if not np.isfinite(image).all() else image
    if look.smooth_vox > 0:
        from scipy.ndimage import gaussian_filter

        image = gaussian_filter(image, [look.smooth_vox / side.step for side in (upward, across)])
    greys = _stretched(_greys(image, *(limits or grey_limits(image, look.clipped_percent))), (upward, across), margin)
    rows, columns = np.flatnonzero(upward.inside), np.flatnonzero(across.inside)
    picture[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] = 255 - greys if look.inverted else greys
    return _coloured(picture)


class _Side:
    """How one side of a view is sampled: which pixels are inside, and which voxels they mix."""

    def __init__(self, low: float, high: float, pixels: int, count: int) -> None:
        centres = low + (np.arange(pixels) + 0.5) * (high - low) / pixels
        self.count = count
        self.inside = (centres >= -0.5) & (centres <= count - 0.5)
        self.step = max(1, int((high - low) / pixels))
        self.pixel_vox = (high - low) / pixels
        self.at = centres[self.inside]

    def part(self, margin: int) -> slice:
        """Return the voxels to read."""
        first = max(int(self.at[0]) - margin - self.step, 0)
        return slice(first, min(int(self.at[-1]) + margin + 2 * self.step + 1, self.count), self.step)

    def edges(self, margin: int, read: int) -> Tuple[float, float]:
        """Return where the first pixel begins and the last one ends, counted in voxels that were read."""
        half, start = self.pixel_vox / 2, self.part(margin).start
        ends = ((self.at[0] - half - start) / self.step + 0.5, (self.at[-1] + half - start) / self.step + 0.5)
        return max(float(ends[0]), 0.0), min(float(ends[1]), float(read))


def _greys(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return an image (H, W) as greys from 0 to 255 between two values, uint8; the image is overwritten."""
    image -= low
    image *= 255 / (high - low)
    np.clip(image, 0, 255, out=image)
    return image.astype(np.uint8)


def _stretched(greys: np.ndarray, sides: Tuple[_Side, _Side], margin: int) -> np.ndarray:
    """Return greys (H, W) interpolated linearly to the pixels of two sides, rows and columns, uint8."""
    from PIL import Image

    (top, bottom), (left, right) = (side.edges(margin, n) for side, n in zip(sides, greys.shape))
    height, width = (len(side.at) for side in sides)
    return np.asarray(Image.fromarray(greys).resize((width, height), Image.Resampling.BILINEAR,
                                                    (left, top, right, bottom)))


def _coloured(greys: np.ndarray) -> np.ndarray:
    """Return greys (H, W), lowest row first, as (H, W, 4) red, green, blue, alpha, top row first."""
    return np.ascontiguousarray(_COLOURS[greys[::-1]]).view(np.uint8).reshape(*greys.shape, 4)


def crop_greys(volume_zyx: np.ndarray, centre_zyx_vox: Sequence[float], half_vox: float, pixels: int,
               look: Look, axis: int = 0, limits: Optional[Tuple[float, float]] = None) -> np.ndarray:
    """Return the grey square about a point in one plane through it, (pixels, pixels) uint8, top row first.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) array
        Voxels.
    centre_zyx_vox : (3,) sequence of float
        Centre in voxels.
    half_vox : float
        Half of the edge in voxels.
    pixels : int
        Edge of the picture.
    look : Look
        Slab, low-pass, contrast.
    axis : int
        Axis that is cut.
    limits : tuple of float, optional
        Grey values of black and white; default: those of the square itself.
    """
    right, up = AXES[axis]
    plane = int(np.clip(round(centre_zyx_vox[axis]), 0, volume_zyx.shape[axis] - 1))
    window = (centre_zyx_vox[right] - half_vox, centre_zyx_vox[right] + half_vox,
              centre_zyx_vox[up] - half_vox, centre_zyx_vox[up] + half_vox)
    return view_picture(volume_zyx, (axis, plane), window, (pixels, pixels), look, limits, OUTSIDE_CROP)[..., 0]


def plane_limits(volume_zyx: np.ndarray, look: Look) -> Tuple[float, float]:
    """Return the grey values of black and white that fit a whole tomogram (Z, Y, X), from its middle.

    So little is read that a page with crops of a hundred tomograms costs no more than the crops.
    """
    z, y, x = (n // 2 for n in volume_zyx.shape)
    half = PLANE_EDGE // 2
    plane = volume_zyx[max(z - look.average, 0):z + look.average + 1, max(y - half, 0):y + half,
                       max(x - half, 0):x + half]
    image = np.nan_to_num(_mean(plane, 0))
    if look.smooth_vox > 0:
        from scipy.ndimage import gaussian_filter

        image = gaussian_filter(image, look.smooth_vox)
    return grey_limits(image, look.clipped_percent)
