"""MRC files written slab by slab, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Any, Optional, Tuple, Type, Union

import numpy as np

from deepetpicker import __version__
from deepetpicker.errors import InputError, OutputError
from deepetpicker.io.atomic import atomic_output
from deepetpicker.io.volumes.reading import HEADER_BYTES, MODES

PathLike = Union[str, "os.PathLike[str]"]


class VolumeWriter:
    """Write an MRC volume slab by slab; the file gets its name when every plane is there, else nothing remains.

    Use it as a context manager.

    Parameters
    ----------
    path : path
        Final name.
    shape_zyx : (3,) tuple of int
        Shape in voxels.
    dtype : numpy type
        float32, float16, int8, int16 or uint16.
    voxel_size_ang : float
        Voxel size in angstrom; 0 when unknown.

    Raises
    ------
    InputError
        For a shape or type that MRC cannot hold.
    OutputError
        If the file cannot be written, or the block ends with planes missing.
    """

    def __init__(self, path: PathLike, shape_zyx: Tuple[int, int, int], dtype: Any, voxel_size_ang: float) -> None:
        self._path = pathlib.Path(path)
        self._shape = tuple(int(n) for n in shape_zyx)
        self._dtype = np.dtype(dtype).newbyteorder("=")
        if len(self._shape) != 3 or min(self._shape) < 1:
            raise InputError(f"a volume needs three sizes >= 1, got {shape_zyx}")
        if self._dtype.str[1:] not in MODES.values():
            raise InputError(f"an MRC file cannot hold {self._dtype}: use one of float32, float16, int8, int16, uint16")
        self._mode = {code: mode for mode, code in MODES.items()}[self._dtype.str[1:]]
        self._voxel_size_ang = float(voxel_size_ang)
        self._stack = contextlib.ExitStack()
        self._written = np.zeros(self._shape[0], dtype=bool)
        self._moments = _Moments()
        self._temporary: Optional[pathlib.Path] = None

    def __enter__(self) -> VolumeWriter:
        """Create the temporary file with its header."""
        import mrcfile

        self._temporary = self._stack.enter_context(atomic_output(self._path))
        try:
            with mrcfile.new_mmap(self._temporary, self._shape, mrc_mode=self._mode, overwrite=True) as mrc:
                mrc.set_volume()
                mrc.voxel_size = self._voxel_size_ang
            self._stream = self._stack.enter_context(open(self._temporary, "rb+"))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, z0: int, slab_zyx: np.ndarray) -> None:
        """Write (n, Y, X) planes starting at plane z0, each plane once, in any order.

        Raises
        ------
        InputError
            If the slab does not fit or a plane was written before.
        """
        slab = np.asarray(slab_zyx)
        if slab.ndim != 3 or slab.shape[1:] != self._shape[1:] or not 0 <= z0 <= self._shape[0] - slab.shape[0]:
            raise InputError(f"a slab of shape {slab.shape} at plane {z0} does not fit a volume of {self._shape}")
        if self._written[z0:z0 + len(slab)].any():
            raise InputError(f"planes {z0} to {z0 + len(slab)} of {self._path} were written before")
        slab = np.ascontiguousarray(slab, dtype=self._dtype)
        self._stream.seek(HEADER_BYTES + z0 * self._shape[1] * self._shape[2] * self._dtype.itemsize)
        self._stream.write(slab.data if slab.size else b"")
        self._moments.add(slab)
        self._written[z0:z0 + len(slab)] = True

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any) -> bool:
        """Complete the header and rename the file, or remove it after an error."""
        try:
            if error is None:
                self._finish()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        return bool(self._stack.__exit__(kind, error, trace))

    def _finish(self) -> None:
        """Write the statistics and the label into the header."""
        import mrcfile

        missing = np.flatnonzero(~self._written)
        if len(missing):
            raise OutputError(f"{self._path} was not written: {len(missing)} planes are missing, first {missing[0]}")
        self._stream.close()
        with mrcfile.mmap(self._temporary, mode="r+") as mrc:
            mrc.header.dmin, mrc.header.dmax = self._moments.low, self._moments.high
            mrc.header.dmean, mrc.header.rms = self._moments.mean, self._moments.deviation
            mrc.header.label = np.zeros_like(mrc.header.label)
            mrc.header.label[0], mrc.header.nlabl = f"deepetpicker {__version__}".encode("ascii"), 1


class _Moments:
    """Minimum, maximum, mean and standard deviation of finite values, gathered slab by slab in float64."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0
        self.low, self.high = 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        """Take in more values; NaN and infinities are left out."""
        for plane in values:
            finite = np.isfinite(plane)
            flat = (plane if finite.all() else plane[finite]).astype(np.float64).ravel()
            if not flat.size:
                continue
            low, high, mean = float(flat.min()), float(flat.max()), float(flat.mean())
            self.low, self.high = (min(low, self.low), max(high, self.high)) if self.count else (low, high)
            total, shift = self.count + flat.size, mean - self.mean
            flat -= mean
            self._squares += float(np.square(flat, out=flat).sum()) + shift ** 2 * self.count * flat.size / total
            self.mean += shift * flat.size / total
            self.count = total

    @property
    def deviation(self) -> float:
        """Standard deviation of everything taken in; 0 when nothing was."""
        return float(np.sqrt(self._squares / self.count)) if self.count else 0.0


def write_volume(path: PathLike, data_zyx: np.ndarray, voxel_size_ang: float) -> None:
    """Write a (Z, Y, X) array as an MRC file, complete or not at all.

    Parameters
    ----------
    path : path
        Final name.
    data_zyx : (Z, Y, X) array
        Real numbers. float64 becomes float32; integers take the smallest MRC type that holds them exactly.
    voxel_size_ang : float
        Voxel size in angstrom; 0 when unknown.

    Raises
    ------
    InputError
        If the array is not 3D or of a type that MRC cannot hold.
    OutputError
        If the file cannot be written.
    """
    data = np.asarray(data_zyx)
    if data.ndim != 3 or data.size == 0:
        raise InputError(f"a volume must be 3D and not empty, got the shape {data.shape}")
    shape = (data.shape[0], data.shape[1], data.shape[2])
    with VolumeWriter(path, shape, _storage_type(data), voxel_size_ang) as writer:
        for z in range(len(data)):
            writer.write(z, data[z:z + 1])


def _storage_type(data: np.ndarray) -> np.dtype:
    """Return the MRC type that holds the values."""
    if data.dtype == np.bool_:
        return np.dtype(np.int8)
    if data.dtype.kind == "f":
        return np.dtype(np.float16 if data.dtype.itemsize == 2 else np.float32)
    if data.dtype.kind not in "iu":
        raise InputError(f"an MRC file cannot hold {data.dtype}: use real numbers")
    low, high = int(data.min()), int(data.max())
    for kind in (np.int8, np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max and np.dtype(kind).itemsize <= data.dtype.itemsize:
            return np.dtype(kind)
    if max(-low, high) > 2 ** 24 and data.dtype.itemsize > 2:
        raise InputError(f"an MRC file cannot hold integers up to {max(-low, high)} exactly: use float32")
    return np.dtype(np.int16 if data.dtype.itemsize == 1 else np.float32)
