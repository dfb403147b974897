"""Template matching: locally normalised cross-correlation with a map in many orientations, by Fourier transforms.

The score of a place is the correlation of template and tomogram inside a ball about it, both with mean 0 and deviation
1 there (Roseman 2003, Ultramicroscopy 94:225), and the best over all orientations.
"""

from __future__ import annotations

import math
from typing import Iterator, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

MASK_SHARE = 1.1  # of the particle's radius: the ball in which template and tomogram are compared


def box_edge(radius_vox: float) -> int:
    """Return the odd edge of the box that holds the ball about a particle, in voxels."""
    return 2 * math.ceil(MASK_SHARE * radius_vox) + 1


def ball(radius_vox: float) -> np.ndarray:
    """Return the ball in which a particle is compared, (N, N, N) bool."""
    half = box_edge(radius_vox) // 2
    z, y, x = np.ogrid[-half:half + 1, -half:half + 1, -half:half + 1]
    return np.asarray(z * z + y * y + x * x <= (MASK_SHARE * radius_vox) ** 2)


def in_box(density_zyx: np.ndarray, edge: int) -> np.ndarray:
    """Return a density of odd edges cut or filled up with 0 to an odd edge, its centre kept."""
    out = np.zeros((edge,) * 3, np.float32)
    half = [min(n, edge) // 2 for n in density_zyx.shape]
    source = tuple(slice(n // 2 - h, n // 2 + h + 1) for n, h in zip(density_zyx.shape, half))
    out[tuple(slice(edge // 2 - h, edge // 2 + h + 1) for h in half)] = density_zyx[source]
    return out


def orientations(number: int) -> np.ndarray:
    """Return rotations (N, 3, 3) of zyx that cover all orientations evenly.

    A super-Fibonacci spiral on the sphere of unit quaternions (Alexa 2022, CVPR).
    """
    from scipy.spatial.transform import Rotation

    step = np.arange(number) + 0.5
    inner, outer = np.sqrt(step / number), np.sqrt(1 - step / number)
    a, b = 2 * np.pi * step / math.sqrt(2), 2 * np.pi * step / 1.533751168755204288118041
    quaternions = np.stack([inner * np.sin(a), inner * np.cos(a), outer * np.sin(b), outer * np.cos(b)], axis=1)
    return np.asarray(Rotation.from_quat(quaternions).as_matrix())


def rotated(density_zyx: np.ndarray, number: int) -> Iterator[np.ndarray]:
    """Yield a density (N, N, N) in so many orientations about its centre; the first of one is as it is."""
    from scipy import ndimage

    if number == 1:
        yield density_zyx
        return
    smooth, centre = ndimage.spline_filter(density_zyx, 3), (np.array(density_zyx.shape) - 1) / 2
    for turn in orientations(number):
        yield ndimage.affine_transform(smooth, turn, centre - turn @ centre, order=3, prefilter=False)


def behind_wedge(density_zyx: np.ndarray, tilt_range_deg: float) -> np.ndarray:
    """Return a density as a tilt series about y shows it: without what lies in the missing wedge, same shape.

    Parameters
    ----------
    density_zyx : (Z, Y, X) float
        Not modified.
    tilt_range_deg : float
        Largest tilt angle in degrees.
    """
    if tilt_range_deg >= 90:
        return density_zyx
    z, x = (np.abs(np.fft.fftfreq(n)) for n in (density_zyx.shape[0], density_zyx.shape[2]))
    seen = z[:, None, None] <= math.tan(math.radians(tilt_range_deg)) * x + 1e-9
    return np.asarray(np.fft.ifftn(np.fft.fftn(density_zyx) * seen).real)


def correlation(grey_zyx: np.ndarray, templates: Iterator[np.ndarray], radius_vox: float,
                device: torch.device) -> np.ndarray:
    """Return the best locally normalised correlation of each place, (Z, Y, X) float32 from -1 to 1.

    Parameters
    ----------
    grey_zyx : (Z, Y, X) float32
        Tomogram with mean about 0; it is continued by 0.
    templates : iterator of (N, N, N) float
        N from :func:`box_edge`; what lies outside the ball does not count.
    radius_vox : float
        Radius of the particle in voxels.
    device : torch.device
        Where to compute.
    """
    mask = ball(radius_vox)
    padded = [_fast(n + mask.shape[0] // 2) for n in grey_zyx.shape]
    image = torch.as_tensor(grey_zyx, dtype=torch.float32, device=device)
    spectrum, squares = (torch.fft.rfftn(one, s=padded) for one in (image, image ** 2))
    whole = _spectrum(mask.astype(np.float32), padded, device)
    total = torch.fft.irfftn(spectrum * whole, s=padded)
    spread = torch.fft.irfftn(squares * whole, s=padded) - total ** 2 / float(mask.sum())
    scale = spread.clamp(min=1e-3 * float(spread.mean())).rsqrt()
    best = torch.full(padded, -1.0, device=device)
    for template in templates:
        inside = np.where(mask, template - template[mask].mean(), 0)
        inside = inside / max(float(np.sqrt((inside ** 2).sum())), 1e-12)
        torch.maximum(best, torch.fft.irfftn(spectrum * _spectrum(inside, padded, device), s=padded) * scale, out=best)
    z, y, x = grey_zyx.shape
    return np.asarray(best[:z, :y, :x].cpu().numpy())


def _spectrum(box_zyx: np.ndarray, padded: Sequence[int], device: torch.device) -> Tensor:
    """Return the conjugate spectrum of a box (N, N, N) whose centre is moved to the first voxel of a larger one."""
    large, half = torch.zeros(*padded, device=device), box_zyx.shape[0] // 2
    n = box_zyx.shape[0]
    large[:n, :n, :n] = torch.as_tensor(box_zyx, dtype=torch.float32, device=device)
    return torch.fft.rfftn(torch.roll(large, (-half,) * 3, (0, 1, 2))).conj()


def _fast(length: int) -> int:
    """Return the next length that a Fourier transform likes: 2, 3 and 5 its only factors, and even."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1 and length % 2 == 0:
            return length
        length += 1


def mean_at(grey_zyx: np.ndarray, positions_zyx_vox: np.ndarray, edge: int) -> Tuple[np.ndarray, int]:
    """Return the mean of boxes (edge, edge, edge) about positions (N, 3), and of how many; outside is 0."""
    from scipy import ndimage

    offsets = np.stack(np.meshgrid(*[np.arange(edge) - edge // 2] * 3, indexing="ij"))
    boxes = [ndimage.map_coordinates(grey_zyx, offsets + position[:, None, None, None], order=1)
             for position in positions_zyx_vox]
    return (np.mean(boxes, axis=0) if boxes else np.zeros((edge,) * 3)), len(boxes)
