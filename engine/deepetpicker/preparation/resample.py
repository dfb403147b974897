"""From the tomogram's voxels to the working grid, in slabs, and the source of voxels that everything else reads.

Each axis is filtered and decimated by a matrix whose row ``w`` holds a windowed sinc about the place of working voxel
``w`` on the input grid. A row depends on ``w`` alone, so results do not depend on how a volume is cut into slabs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pathlib
from typing import List, Optional, Protocol, Sequence, Tuple, Union

import numpy as np

from deepetpicker.geometry import Shape, WorkingGrid
from deepetpicker.io.atomic import atomic_output
from deepetpicker.io.volumes import Volume, release_pages
from deepetpicker.preparation.normalise import Intensity, intensity_of_sample, normalise, robust_intensity

log = logging.getLogger(__name__)

LOBES = 3
_BLOCK = 32
_CHUNK_BYTES = 32 << 20
IN_MEMORY_BYTES = 64 << 20
_SAMPLE_PLANES = 8

Slices = Tuple[slice, slice, slice]


class Voxels(Protocol):
    """What a source of voxels must have: a shape, planes and boxes, float32."""

    @property
    def shape_zyx(self) -> Shape:
        """Shape (3,) in voxels."""

    def planes(self, z0: int, z1: int) -> np.ndarray:
        """Return planes z0 up to z1, (z1-z0, Y, X) float32."""

    def read(self, slices_zyx: Slices) -> np.ndarray:
        """Return a box, float32."""


class AxisWeights:
    """The filter of one axis: for each working voxel the input voxels it is made of, with their weights.

    Parameters
    ----------
    n_in, n_out : int
        Voxels of the axis on the input and on the working grid.
    factor : float
        Working over input voxel size, >= 1.
    """

    def __init__(self, n_in: int, n_out: int, factor: float) -> None:
        centres = (np.arange(n_out) + 0.5) * factor - 0.5
        half = LOBES * factor
        first = np.ceil(centres - half).astype(int)
        taps = int(np.floor(2 * half)) + 1
        places = first[:, None] + np.arange(taps)
        t = (places - centres[:, None]) / factor
        weights = np.where(np.abs(t) < LOBES, np.sinc(t) * np.sinc(t / LOBES), 0.0)
        weights /= weights.sum(1, keepdims=True)
        period = places % (2 * n_in)
        self.index = np.where(period < n_in, period, 2 * n_in - 1 - period)
        self.weights = weights
        self.n_in, self.n_out = n_in, n_out

    def span(self, lo: int, hi: int) -> Tuple[int, int]:
        """Return the first and one past the last input voxel that working voxels lo up to hi need."""
        part = self.index[lo:hi]
        return int(part.min()), int(part.max()) + 1

    def dense(self, lo: int, hi: int) -> Tuple[int, int, np.ndarray]:
        """Return the input span (first, end) of working voxels lo up to hi and their weights (hi-lo, end-first)."""
        first, end = self.span(lo, hi)
        matrix = np.zeros((hi - lo, end - first))
        np.add.at(matrix, (np.arange(hi - lo)[:, None], self.index[lo:hi] - first), self.weights[lo:hi])
        return first, end, matrix.astype(np.float32)

    def blocks(self) -> List[Tuple[int, int, int, int, np.ndarray]]:
        """Return (lo, hi, first, end, weights) for runs of working voxels that together cover the axis."""
        cuts = [(lo, min(lo + _BLOCK, self.n_out)) for lo in range(0, self.n_out, _BLOCK)]
        return [(lo, hi, *self.dense(lo, hi)) for lo, hi in cuts]


class Resampler:
    """Anti-aliased resampling of a tomogram to its working grid, slab by slab.

    Parameters
    ----------
    grid : WorkingGrid
        Factor 1 passes planes through.
    source : WorkingGrid, optional
        How the voxels that are given to it lie to the working grid, when they are not those of grid: a coarser version
        of the tomogram.

    Notes
    -----
    Lanczos-3 stretched by the factor, reflected at the volume's outer edge: a constant stays that constant, and a
    blob keeps its centre. Consecutive slabs reuse the planes they share.
    """

    def __init__(self, grid: WorkingGrid, source: Optional[WorkingGrid] = None) -> None:
        self.grid = grid
        source = source or grid
        self.factor, self._input_shape = source.factor, source.input_shape_zyx
        self._held: Tuple[int, np.ndarray] = (0, np.empty((0, 0, 0), np.float32))
        self._owner = 0
        if self.factor != 1:
            z, y, x = (AxisWeights(n, m, self.factor) for n, m in zip(self._input_shape, grid.shape_zyx))
            self._z, self._y, self._x = z, y.blocks(), x.blocks()

    def slab(self, volume_zyx: np.ndarray, z0: int, z1: int, fill: float = 0.0) -> np.ndarray:
        """Return working planes z0 up to z1, (z1-z0, Yw, Xw) float32.

        Parameters
        ----------
        volume_zyx : (Z, Y, X) of any numeric type
            The tomogram on its input grid, usually a memory map; only the planes needed are read.
        z0, z1 : int
            Working planes, 0 <= z0 < z1 <= Zw.
        fill : float
            Grey value that replaces NaN and infinite voxels, the tomogram's mean.
        """
        if self.factor == 1:
            return _finite(np.asarray(volume_zyx[z0:z1], np.float32), fill)
        first, end, matrix = self._z.dense(z0, z1)
        planes = self._reduced(volume_zyx, first, end, fill)
        flat = matrix @ planes.reshape(len(planes), -1)
        return flat.reshape(z1 - z0, *self.grid.shape_zyx[1:])

    def _reduced(self, volume_zyx: np.ndarray, first: int, end: int, fill: float) -> np.ndarray:
        """Return input planes first up to end on the working grid in y and x, (end-first, Yw, Xw) float32."""
        held_first, held = self._held
        owner = hash((id(volume_zyx), fill))
        out = np.empty((end - first, *self.grid.shape_zyx[1:]), np.float32)
        start = first
        if owner == self._owner and held_first <= first < held_first + len(held):
            common = held[first - held_first:first - held_first + len(out)]
            out[:len(common)] = common
            start += len(common)
        step = max(1, _CHUNK_BYTES // (4 * int(np.prod(self._input_shape[1:]))))
        for lo in range(start, end, step):
            hi = min(lo + step, end)
            self._shrink(_finite(np.asarray(volume_zyx[lo:hi], np.float32), fill), out[lo - first:hi - first])
            release_pages(volume_zyx)
        self._held, self._owner = (first, out), owner
        return out

    def _shrink(self, planes_zyx: np.ndarray, out_zyx: np.ndarray) -> None:
        """Write planes (Z, Y, X), filtered and decimated along y and x, into out (Z, Yw, Xw)."""
        rows = np.ascontiguousarray(planes_zyx).reshape(-1, planes_zyx.shape[2])
        narrow = np.empty((len(rows), out_zyx.shape[2]), np.float32)
        for lo, hi, first, end, weights in self._x:
            narrow[:, lo:hi] = rows[:, first:end] @ weights.T
        narrow = narrow.reshape(*planes_zyx.shape[:2], -1)
        for lo, hi, first, end, weights in self._y:
            out_zyx[:, lo:hi] = np.matmul(weights, narrow[:, first:end])


def _finite(block: np.ndarray, fill: float) -> np.ndarray:
    """Return the float32 block with NaN and infinite voxels replaced by fill (a copy only if there are any)."""
    with np.errstate(over="ignore", invalid="ignore"):
        clean = np.isfinite(block.sum())
    return block if clean else np.where(np.isfinite(block), block, np.float32(fill))


class WorkingVolume:
    """The normalised tomogram on its working grid: random access and planes.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) of any numeric type
        The tomogram on its input grid, usually a memory map.
    grid : WorkingGrid
        Its working grid.
    intensity : Intensity
        Statistics on the working grid.
    array_zyx : (Zw, Yw, Xw) float16 or float32, optional
        The whole result when it was computed before; else planes are computed when asked for.
    resampler : Resampler, optional
        One that is in use already.
    """

    def __init__(self, volume_zyx: np.ndarray, grid: WorkingGrid, intensity: Intensity,
                 array_zyx: Optional[np.ndarray] = None, resampler: Optional[Resampler] = None) -> None:
        self.grid, self.intensity = grid, intensity
        self._volume, self._array = volume_zyx, array_zyx
        self._resampler = resampler or Resampler(grid)

    @property
    def shape_zyx(self) -> Shape:
        """Shape (3,) of the working grid in voxels."""
        return self.grid.shape_zyx

    def planes(self, z0: int, z1: int) -> np.ndarray:
        """Return normalised working planes z0 up to z1, (z1-z0, Yw, Xw) float32."""
        if self._array is not None:
            planes = np.array(self._array[z0:z1], np.float32)
            release_pages(self._array)
            return planes
        planes = normalise(self._resampler.slab(self._volume, z0, z1, self.intensity.mean), self.intensity)
        release_pages(self._volume)
        return planes

    def read(self, slices_zyx: Slices) -> np.ndarray:
        """Return a normalised box, float32, owning its memory.

        Parameters
        ----------
        slices_zyx : three slices
            Inside the working grid, step 1. Cheap when the factor is 1 or the volume is cached.
        """
        mapped = self._volume if self._array is None else self._array
        if self._array is not None or self._resampler.factor == 1:
            box = mapped[slices_zyx]
            box = np.array(box, np.float32) if self._array is not None else normalise(box, self.intensity)
            release_pages(mapped)
            return box
        z, y, x = slices_zyx
        return self.planes(z.start, z.stop)[:, y, x].copy()


class Crop:
    """A box of another source of planes, as a source of planes.

    Parameters
    ----------
    source : Voxels
        Where planes come from.
    slices_zyx : three slices
        The box, inside the source, step 1.
    """

    def __init__(self, source: Voxels, slices_zyx: Slices) -> None:
        self.source, self.slices_zyx = source, slices_zyx

    @property
    def shape_zyx(self) -> Shape:
        """Shape (3,) of the box in voxels."""
        z, y, x = (s.stop - s.start for s in self.slices_zyx)
        return z, y, x

    def planes(self, z0: int, z1: int) -> np.ndarray:
        """Return planes z0 up to z1 of the box, (z1-z0, Y, X) float32."""
        z, y, x = self.slices_zyx
        return self.source.planes(z.start + z0, z.start + z1)[:, y, x]

    def read(self, slices_zyx: Slices) -> np.ndarray:
        """Return a box of the box, float32."""
        z, y, x = (slice(o.start + s.start, o.start + s.stop) for o, s in zip(self.slices_zyx, slices_zyx))
        return self.source.read((z, y, x))


def working_intensity(volume_zyx: np.ndarray, grid: WorkingGrid, name: str,
                      resampler: Optional[Resampler] = None) -> Intensity:
    """Return the robust statistics of a tomogram on its working grid.

    Resampling averages noise away, so the standard deviation must be that of the working grid: else a model would see
    the same specimen at other strengths when the tomogram comes at another voxel size.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) of any numeric type
        The tomogram on its input grid.
    grid : WorkingGrid
        Its working grid.
    name : str
        The tomogram's name or path, for messages.
    resampler : Resampler, optional
        One that is in use already.

    Raises
    ------
    InputError
        For a constant tomogram or one without a finite voxel.
    """
    whole = robust_intensity(volume_zyx, name)
    resampler = resampler or Resampler(grid)
    if resampler.factor == 1:
        return whole
    depth = grid.shape_zyx[0]
    picked = sorted({int((k + 0.5) * depth / _SAMPLE_PLANES) for k in range(min(depth, _SAMPLE_PLANES))})
    sample = np.concatenate([resampler.slab(volume_zyx, z, z + 1, whole.mean).ravel() for z in picked])
    return intensity_of_sample(sample, name)


def open_working_volume(volume: Union[np.ndarray, Volume], grid: WorkingGrid, intensity: Optional[Intensity] = None,
                        cache_dir: Optional[Union[str, pathlib.Path]] = None, name: str = "",
                        in_memory_bytes: int = IN_MEMORY_BYTES) -> WorkingVolume:
    """Return the source of normalised working-grid voxels of a tomogram.

    Parameters
    ----------
    volume : io.volumes.Volume or (Z, Y, X) array
        The tomogram; it is not modified. Of one with several resolutions the coarsest is read that is not coarser than
        the working grid.
    grid : WorkingGrid
        Its working grid.
    intensity : Intensity, optional
        Statistics on the working grid; measured when absent.
    cache_dir : path, optional
        Folder for the resampled volume, which makes :meth:`WorkingVolume.read` cheap: a float16 ``.npy`` file that is
        memory-mapped, or, when it is small, plain memory and no file. Without it nothing is held, and
        :meth:`WorkingVolume.planes` computes the planes it is asked for.
    name : str
        The tomogram's name, for messages and the file; default: the volume's path.
    in_memory_bytes : int
        A larger resampled volume goes to the file.

    Raises
    ------
    OutputError
        If there is no room for the resampled volume in cache_dir.
    """
    name = name or str(getattr(volume, "path", "the tomogram"))
    volume_zyx, resampler = _read_from(volume, grid)
    intensity = intensity or working_intensity(volume_zyx, grid, name, resampler)
    source = WorkingVolume(volume_zyx, grid, intensity, resampler=resampler)
    if cache_dir is None or resampler.factor == 1:
        return source
    array = _cached(source, pathlib.Path(cache_dir), name, in_memory_bytes)
    return WorkingVolume(volume_zyx, grid, intensity, array)  # a resampler of its own: this one holds many planes


def _read_from(volume: Union[np.ndarray, Volume], grid: WorkingGrid) -> Tuple[np.ndarray, Resampler]:
    """Return the voxels to read, of a tomogram with several resolutions those of one, and their resampler."""
    if not isinstance(volume, Volume):
        return volume, Resampler(grid)
    level = volume.level(grid.working_voxel_ang)
    z, y, x = level.data_zyx.shape
    source = WorkingGrid((z, y, x), level.voxel_size_ang, grid.working_voxel_ang)
    if grid.factor == 1 or (source.factor == 1 and source.input_shape_zyx != grid.shape_zyx):
        return volume.data_zyx, Resampler(grid)
    return level.data_zyx, Resampler(grid, source)


def _cached(source: WorkingVolume, folder: pathlib.Path, name: str, in_memory_bytes: int) -> np.ndarray:
    """Return the whole source as float16 (Z, Y, X): in memory when small, else a memory-mapped file in folder."""
    shape = source.shape_zyx
    if 2 * int(np.prod(shape)) <= in_memory_bytes:
        return _fill(source, np.empty(shape, np.float16))
    key = repr((name, source.grid, source.intensity.mean, source.intensity.std))
    path = folder / f"working_{hashlib.sha1(key.encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        with atomic_output(path) as part:
            array = np.lib.format.open_memmap(part, "w+", np.float16, shape)
            _allocate(part)
            _fill(source, array).flush()  # type: ignore[attr-defined]
            del array
        log.info("%s: resampled to %s voxels", name, "x".join(map(str, shape)))
    return np.load(path, mmap_mode="r")


def _allocate(path: pathlib.Path) -> None:
    """Give a sparse file its place on the disk: writing to a map of it would end the process when the disk is full."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)


def _fill(source: WorkingVolume, array: np.ndarray, step: int = 16) -> np.ndarray:
    """Write every plane of the source into the array (Z, Y, X) and return it."""
    for z0 in range(0, len(array), step):
        z1 = min(z0 + step, len(array))
        array[z0:z1] = source.planes(z0, z1)
        release_pages(array)
    return array


def resample_bytes(grid: WorkingGrid, step: int = 16) -> int:
    """Return the bytes that resampling a volume takes while it runs; 0 when nothing is resampled."""
    if grid.factor == 1:
        return 0
    planes = round((step + 2 * LOBES) * grid.factor) + 2
    _, height, width = grid.shape_zyx
    return 4 * height * width * (2 * planes + 2 * step) + 3 * _CHUNK_BYTES + IN_MEMORY_BYTES


def whole(shape_zyx: Sequence[int]) -> Slices:
    """Return the slices of a whole volume of shape_zyx (3,)."""
    z, y, x = (slice(0, int(n)) for n in shape_zyx)
    return z, y, x
