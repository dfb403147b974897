"""Take a tilt series of a specimen and reconstruct it: projection, CTF, noise, filtered back-projection.

One geometry serves both ways. The specimen is tilted about the y axis through the volume's centre, so that voxel
(z, x) is seen on the detector at ``u = (x - xc) cos(a) + (z - zc) sin(a) + uc``, with every centre at (n - 1) / 2.
The volume is treated as one period of a specimen that goes on in x, as a field of view is a part of a larger slab:
tilted images then have no artificial edge.

Image stacks are (T, U, Y) float32: tilt, detector pixel across the tilt axis, pixel along it. A pixel is a voxel wide.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
from typing import Callable, Iterable, List, Sequence, TypeVar, Union

import numpy as np
from scipy import fft, sparse

_FINE = 4  # detector oversampling when voxels are spread onto it
_BACK = 2  # detector oversampling when images are read back
_MARGIN_PX = 16
_COPIES = 4
Floats = Union[Sequence[float], np.ndarray]
A = TypeVar("A")
B = TypeVar("B")


@dataclasses.dataclass(frozen=True)
class Microscope:
    """What the images suffer from.

    Parameters
    ----------
    defocus_um : float
        Underfocus in micrometres.
    snr : float
        Variance of the noise-free untilted image (gold left out) over that of the noise.
    voltage_kv, cs_mm, amplitude_contrast, b_factor_ang2 : float
        Accelerating voltage, spherical aberration, amplitude contrast (0 to 1), envelope exp(-B k^2 / 4).
    mean_free_path_ang : float
        Electrons that meet this thickness more of ice lose a factor e of the signal.
    defocus_spread_um : float
        Standard deviation of the defocus from image to image.
    """

    defocus_um: float = 3.0
    snr: float = 0.1
    voltage_kv: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.07
    b_factor_ang2: float = 300.0
    mean_free_path_ang: float = 3000.0
    defocus_spread_um: float = 0.05


def tilt_angles_deg(tilt_range_deg: float, tilt_step_deg: float) -> np.ndarray:
    """Return the tilt angles (T,) in degrees, symmetric about 0, none beyond the range."""
    count = math.floor(tilt_range_deg / tilt_step_deg + 1e-9)
    return tilt_step_deg * np.arange(-count, count + 1)


def detector_width_px(shape_zyx: Sequence[int]) -> int:
    """Return the number of detector pixels U that sees every voxel of the volume at any tilt, with a margin."""
    reach = math.hypot(shape_zyx[0] - 1, shape_zyx[2] - 1) / 2
    return int(fft.next_fast_len(2 * (math.ceil(reach) + _MARGIN_PX), real=True))


def _detector_positions(shape_zyx: Sequence[int], angle_deg: float, shift_x_vox: float = 0.0) -> np.ndarray:
    """Return the detector position (Z, X) in pixels of each voxel column at one tilt."""
    depth, width = shape_zyx[0], shape_zyx[2]
    angle = math.radians(angle_deg)
    z = (np.arange(depth) - (depth - 1) / 2)[:, None]
    x = (np.arange(width) - (width - 1) / 2 + shift_x_vox)[None, :]
    return x * math.cos(angle) + z * math.sin(angle) + (detector_width_px(shape_zyx) - 1) / 2


def project(volume_zyx: np.ndarray, angles_deg: Floats) -> np.ndarray:
    """Return the line integrals of a volume at each tilt.

    Voxels are spread linearly onto a four times finer detector; the spreading is undone and the image cropped to the
    detector's own band in Fourier space, which is the projection of the band-limited volume (Fourier slice).

    Parameters
    ----------
    volume_zyx : (Z, Y, X) float32
        The specimen; goes on periodically in x. Not modified.
    angles_deg : (T,) float
        Tilt angles in degrees.

    Returns
    -------
    (T, U, Y) float32
        Sums along the beam, in density times voxels.
    """
    columns = np.ascontiguousarray(volume_zyx.transpose(0, 2, 1), dtype=np.float32).reshape(-1, volume_zyx.shape[1])
    images = _in_threads(lambda angle: _project_one(columns, volume_zyx.shape, float(angle)), angles_deg)
    return np.stack(images)


def _project_one(columns: np.ndarray, shape_zyx: Sequence[int], angle_deg: float) -> np.ndarray:
    """Return one projection (U, Y) float32 of voxel columns (Z * X, Y)."""
    width = detector_width_px(shape_zyx)
    fine = np.zeros((_FINE * width, columns.shape[1]), np.float32)
    for copy in _copies(shape_zyx, angle_deg, width):
        positions = _FINE * _detector_positions(shape_zyx, angle_deg, copy * shape_zyx[2]).ravel()
        seen = (positions >= 0) & (positions < _FINE * width - 1)
        if seen.any():
            fine += _spreading(positions, seen, _FINE * width) @ columns
    spectrum = fft.rfft(fine, axis=0)[: width // 2 + 1]
    spectrum /= (np.sinc(fft.rfftfreq(width) / _FINE) ** 2).astype(np.float32)[:, None]
    return fft.irfft(spectrum, n=width, axis=0)


def _copies(shape_zyx: Sequence[int], angle_deg: float, width: int) -> range:
    """Return the indices of the periodic copies in x that the detector sees, a few at most."""
    cosine = max(math.cos(math.radians(angle_deg)), 1e-3)
    reach = (width + shape_zyx[0] * abs(math.sin(math.radians(angle_deg)))) / (2 * cosine)
    count = min(_COPIES, math.ceil(max(0.0, reach / shape_zyx[2] - 0.5)))
    return range(-count, count + 1)


def _spreading(positions: np.ndarray, seen: np.ndarray, n_pixels: int) -> sparse.csc_matrix:
    """Return the matrix (n_pixels, N) that shares each seen point out between its two neighbouring pixels."""
    kept = positions[seen]
    left = np.floor(kept).astype(np.int32)
    right_share = (kept - left).astype(np.float32)
    weights = np.stack([1 - right_share, right_share], axis=1).ravel()
    rows = np.stack([left, left + 1], axis=1).ravel()
    starts = np.concatenate([[0], 2 * np.cumsum(seen)]).astype(np.int32)
    return sparse.csc_matrix((weights, rows, starts), shape=(n_pixels, len(positions)))


def ctf(shape_px: Sequence[int], voxel_size_ang: float, defocus_um: float, scope: Microscope) -> np.ndarray:
    """Return the contrast transfer function on the half-plane of a real FFT.

    Parameters
    ----------
    shape_px : (2,) int
        Image shape (U, Y).
    voxel_size_ang : float
        Pixel size in angstrom.
    defocus_um : float
        Underfocus in micrometres.
    scope : Microscope
        Voltage, aberration, amplitude contrast and envelope.

    Returns
    -------
    (U, Y // 2 + 1) float32
        Negative at low frequency: dense matter is dark in underfocus.
    """
    volt = scope.voltage_kv * 1e3
    wavelength_ang = 12.2643 / math.sqrt(volt * (1 + 0.978466e-6 * volt))
    k2 = fft.fftfreq(shape_px[0], voxel_size_ang)[:, None] ** 2 + fft.rfftfreq(shape_px[1], voxel_size_ang)[None] ** 2
    phase = math.pi * wavelength_ang * k2 * (defocus_um * 1e4 - 0.5 * scope.cs_mm * 1e7 * wavelength_ang ** 2 * k2)
    phase += math.asin(scope.amplitude_contrast)
    return (-np.sin(phase) * np.exp(-0.25 * scope.b_factor_ang2 * k2)).astype(np.float32)


def expose(images_tuy: np.ndarray, angles_deg: Floats, voxel_size_ang: float, scope: Microscope,
           thickness_ang: float, noise_sd: float, rng: np.random.Generator) -> np.ndarray:
    """Return projections as the microscope records them: CTF, weaker signal at high tilt, white noise.

    Parameters
    ----------
    images_tuy : (T, U, Y) float32
        Projections. Not modified.
    angles_deg : (T,) float
        Tilt angles in degrees.
    voxel_size_ang : float
        Pixel size in angstrom.
    scope : Microscope
        The imaging conditions.
    thickness_ang : float
        Thickness of the untilted slab in angstrom.
    noise_sd : float
        Standard deviation of the noise.
    rng : numpy.random.Generator
        Source of defocus errors and noise.
    """
    defoci_um = scope.defocus_um + scope.defocus_spread_um * rng.standard_normal(len(images_tuy))
    shape_px = images_tuy.shape[1:]
    out = rng.standard_normal(images_tuy.shape, dtype=np.float32) * np.float32(noise_sd)

    def add_signal(index: int) -> None:
        cosine = max(math.cos(math.radians(float(angles_deg[index]))), 1e-3)
        signal = math.exp(-thickness_ang * (1 / cosine - 1) / scope.mean_free_path_ang)
        transfer = ctf(shape_px, voxel_size_ang, float(defoci_um[index]), scope) * np.float32(signal)
        out[index] += fft.irfft2(fft.rfft2(images_tuy[index]) * transfer, s=shape_px)

    _in_threads(add_signal, range(len(images_tuy)))
    return out


def noise_for(volume_zyx: np.ndarray, voxel_size_ang: float, scope: Microscope) -> float:
    """Return the standard deviation of noise that gives the wanted signal-to-noise ratio.

    The signal is the untilted noise-free image of everything but gold (density above 1 is cut off), so that a few
    beads do not raise the noise. A volume without any density gets 1.
    """
    image = project(np.minimum(volume_zyx, 1), [0.0])[0]
    seen = fft.irfft2(fft.rfft2(image) * ctf(image.shape, voxel_size_ang, scope.defocus_um, scope), s=image.shape)
    signal_sd = float(seen.std())
    return signal_sd / math.sqrt(scope.snr) if signal_sd > 0 else 1.0


def ramp_filter(width: int, cutoff: float = 0.35, fall_off: float = 0.05) -> np.ndarray:
    """Return the weighting (2 * width // 2 + 1,) of frequencies in cycles per pixel, for images padded to twice.

    The ramp is the transform of its own kernel on the pixel grid, so that it keeps the mean; above ``cutoff`` it falls
    off as a Gaussian of standard deviation ``fall_off``.
    """
    n = 2 * width
    offset = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.where(offset % 2 == 1, -1 / (math.pi * np.maximum(offset, 1)) ** 2, 0.0)
    kernel[0] = 0.25
    frequency = fft.rfftfreq(n)
    return fft.rfft(kernel).real * np.exp(-0.5 * (np.maximum(frequency - cutoff, 0) / fall_off) ** 2)


def back_project(images_tuy: np.ndarray, angles_deg: Floats, shape_zyx: Sequence[int]) -> np.ndarray:
    """Return the filtered back-projection of a tilt series.

    Parameters
    ----------
    images_tuy : (T, U, Y) float32
        Images, U as :func:`detector_width_px` says. Not modified.
    angles_deg : (T,) float
        Tilt angles in degrees, equally spaced.
    shape_zyx : (3,) int
        Shape of the volume.

    Returns
    -------
    (Z, Y, X) float32
        Density; with all of 180 degrees it is the projected one, with less it lacks the missing wedge.
    """
    n_tilts, width, height = images_tuy.shape
    step = math.radians(abs(float(angles_deg[1]) - float(angles_deg[0]))) if n_tilts > 1 else 1.0
    weights = (step * _BACK * ramp_filter(width)).astype(np.float32)[:, None]
    fine = np.empty((n_tilts, _BACK * width, height), np.float32)

    def weight(index: int) -> None:
        spectrum = fft.rfft(images_tuy[index], n=2 * width, axis=0) * weights
        fine[index] = fft.irfft(spectrum, n=2 * _BACK * width, axis=0)[: _BACK * width]

    _in_threads(weight, range(n_tilts))
    positions = np.stack([_BACK * _detector_positions(shape_zyx, float(a)) for a in angles_deg], axis=-1)
    flat = fine.reshape(-1, height)
    out = np.empty((shape_zyx[0], height, shape_zyx[2]), np.float32)

    def fill(plane: int) -> None:
        out[plane] = (_reading(positions[plane], _BACK * width) @ flat).T

    _in_threads(fill, range(shape_zyx[0]))
    return out


def _reading(positions_xt: np.ndarray, n_pixels: int) -> sparse.csr_matrix:
    """Return the matrix (X, T * n_pixels) that sums the images' linear interpolation at positions (X, T) over tilts."""
    n_points, n_tilts = positions_xt.shape
    left = np.floor(positions_xt).astype(np.int32)
    right_share = (positions_xt - left).astype(np.float32)
    left += (np.arange(n_tilts, dtype=np.int32) * n_pixels)[None]
    weights = np.stack([1 - right_share, right_share], axis=-1).ravel()
    columns = np.stack([left, left + 1], axis=-1).ravel()
    starts = np.arange(0, 2 * n_points * n_tilts + 1, 2 * n_tilts, dtype=np.int32)
    return sparse.csr_matrix((weights, columns, starts), shape=(n_points, n_tilts * n_pixels))


def reconstruct(volume_zyx: np.ndarray, voxel_size_ang: float, angles_deg: Floats, scope: Microscope,
                rng: np.random.Generator) -> np.ndarray:
    """Return the tomogram of a specimen: tilt series, microscope and back-projection in one.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) float32
        Density above that of ice.
    voxel_size_ang : float
        Voxel size in angstrom.
    angles_deg : (T,) float
        Tilt angles in degrees.
    scope : Microscope
        The imaging conditions.
    rng : numpy.random.Generator
        Source of noise and of defocus errors.

    Returns
    -------
    (Z, Y, X) float32
        Dense matter is dark.
    """
    noise_sd = noise_for(volume_zyx, voxel_size_ang, scope)
    images_tuy = project(volume_zyx, angles_deg)
    thickness_ang = volume_zyx.shape[0] * voxel_size_ang
    images_tuy = expose(images_tuy, angles_deg, voxel_size_ang, scope, thickness_ang, noise_sd, rng)
    images_tuy -= images_tuy.mean(axis=(1, 2), keepdims=True)
    return back_project(images_tuy, angles_deg, volume_zyx.shape)


def n_threads() -> int:
    """Return how many threads simulate: OMP_NUM_THREADS where it is set, else one per core, eight at most."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isdigit() and int(given):
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def _in_threads(work: Callable[[A], B], items: Iterable[A]) -> List[B]:
    """Return work(item) of each item, in order, computed by as many threads as this process may use."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=n_threads()) as pool:
        return list(pool.map(work, items))
