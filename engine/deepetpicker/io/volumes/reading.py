"""Tomograms: MRC files as memory-mapped arrays, OME-Zarr folders as arrays that are read by blocks.

The header of an MRC file is read here, with mrcfile's definition of it, so that a damaged file gives a message instead
of a large allocation, and a file that is only slightly off (map ID, machine stamp) can still be used.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import mmap
import os
import pathlib
from typing import Any, List, Tuple, Union

import numpy as np

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.plainfile import check_plain
from deepetpicker.io.volumes.ngff import Level, is_ngff, read_ngff
from deepetpicker.io.voxelsize import Given, resolve_voxel_size

PathLike = Union[str, "os.PathLike[str]"]
log = logging.getLogger(__name__)

VOLUME_SUFFIXES = (".mrc", ".rec", ".map", ".mrcs", ".st")
HEADER_BYTES = 1024
IMOD_STAMP = 1146047817
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_NO_MAPS = (errno.ENODEV, errno.EOPNOTSUPP, errno.ENOSYS)
_REFUSED_MODES = {3: "complex integers", 4: "complex numbers (a Fourier transform)", 16: "RGB colours",
                  101: "4-bit integers"}


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """A tomogram on disk, mapped into memory and read on demand.

    Parameters
    ----------
    name : str
        Name of the tomogram.
    path : pathlib.Path
        File it lies in, or folder.
    data_zyx : (Z, Y, X) memory map
        Any real numeric type and byte order; read-only. Of an OME-Zarr folder what reads blocks when they are asked
        for, at the finest resolution.
    voxel_size_ang : float
        Voxel size in angstrom, > 0.
    warnings : tuple of str
        What was odd about the file.
    coarser : tuple of Level
        The same tomogram at coarser resolutions, where the folder holds some.
    """

    name: str
    path: pathlib.Path
    data_zyx: np.ndarray
    voxel_size_ang: float
    warnings: Tuple[str, ...] = ()
    coarser: Tuple[Level, ...] = ()

    def level(self, voxel_size_ang: float) -> Level:
        """Return the coarsest version that is not coarser than a voxel size in angstrom, else the tomogram itself."""
        fit = [one for one in self.coarser if one.voxel_size_ang <= voxel_size_ang * 1.001]
        return max(fit, key=lambda one: one.voxel_size_ang, default=Level(self.voxel_size_ang, self.data_zyx))

    @property
    def overview_zyx(self) -> np.ndarray:
        """The coarsest version (Z, Y, X), for what does not ask for detail; of an MRC file the tomogram itself."""
        return self.level(float("inf")).data_zyx

    @property
    def shape_zyx(self) -> Tuple[int, int, int]:
        """Shape in voxels, (Z, Y, X)."""
        z, y, x = self.data_zyx.shape
        return int(z), int(y), int(x)

    def read(self, z0: int, z1: int) -> np.ndarray:
        """Return planes z0 to z1 - 1 as (z1 - z0, Y, X) native float32; NaN and infinities are kept.

        Raises
        ------
        InputError
            If the planes are not inside the volume.
        """
        if not 0 <= z0 <= z1 <= self.data_zyx.shape[0]:
            raise InputError(f"{self.name}: planes {z0} to {z1} are outside 0 to {self.data_zyx.shape[0]}")
        planes = np.array(self.data_zyx[z0:z1], dtype=np.float32, order="C")
        release_pages(self.data_zyx)
        return planes

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle the path, not the voxels, so that worker processes map the file themselves."""
        return open_volume, (str(self.path), self.voxel_size_ang, self.name)


def release_pages(mapped_zyx: np.ndarray) -> None:
    """Give a memory map's pages back, so that a scan holds only what it works on; the system's cache keeps them.

    Parameters
    ----------
    mapped_zyx : (Z, Y, X)
        A file mapped into memory, read-only or shared; any other array is left alone.
    """
    mapped = getattr(mapped_zyx, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def open_volume(path: PathLike, voxel_size_ang: Given = 0.0, name: str = "", quiet: bool = False) -> Volume:
    """Map an MRC file (.mrc, .rec, .map) into memory, or open an OME-Zarr folder (.zarr).

    Parameters
    ----------
    path : path
        File or folder to open.
    voxel_size_ang : float or mapping
        Voxel size in angstrom, or what several sources say of it (:func:`~deepetpicker.io.voxelsize.given_sizes`); it
        wins over the header. 0 takes the header's.
    name : str
        Name for messages; default: that of :func:`tomogram_name`.
    quiet : bool
        True logs nothing of what is odd about the file.

    Returns
    -------
    Volume

    Raises
    ------
    InputError
        If the file is missing, the voxel size is unknown or differs between axes by more than 1 %, or an OME-Zarr
        folder is given and zarr is not installed.
    FormatError
        If the file is empty, truncated, no MRC file, or does not hold one real-valued 3D volume.
    """
    file = pathlib.Path(path)
    title = name or tomogram_name(file)
    if is_ngff(file):
        contents = read_ngff(file, voxel_size_ang)
        own, coarser, warnings = contents.levels[0], contents.levels[1:], list(contents.warnings)
        data, voxel = own.data_zyx, own.voxel_size_ang
    else:
        coarser = ()
        data, voxel, warnings = _open_mrc(file, voxel_size_ang)
    for text in warnings if not quiet else ():
        log.warning("%s: %s", title, text)
    return Volume(title, file, data, voxel, tuple(warnings), coarser)


def tomogram_name(path: PathLike) -> str:
    """Return the name of a tomogram: its file's without the suffix, ``.ome.zarr`` being one."""
    file = pathlib.PurePath(path)
    return file.name[:-len(".ome.zarr")] if file.name.lower().endswith(".ome.zarr") else file.stem


def _open_mrc(file: pathlib.Path, voxel_size_ang: Given) -> Tuple[np.ndarray, float, List[str]]:
    """Return the voxels of an MRC file, mapped, their size in angstrom and what is odd about the file."""
    raw, size = _read_header_bytes(file)
    header, warnings = _parse_header(raw, size, file)
    dtype = _voxel_type(header, raw, file)
    _check_layout(header, file)
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    offset = HEADER_BYTES + int(header["nsymbt"])
    expected = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size < expected:
        raise FormatError(f"{file} is truncated: expected {expected} bytes for {_dims(shape)} voxels, found {size}; "
                          "copy the file again")
    if size > expected:
        warnings.append(f"the file is {size - expected} bytes longer than its header says")
    voxel, more = resolve_voxel_size(voxel_size_ang, _header_sizes(header), str(file))
    try:
        mapped = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
    except OSError as error:
        if error.errno not in _NO_MAPS:
            raise
        raise InputError(f"cannot read {file} in parts: expected a file system that maps files into memory, which this "
                         f"one does not ({error.strerror}): copy the tomogram to another disk") from error
    except ValueError as error:  # numpy finds it shorter than it was a moment ago
        raise FormatError(f"{file} is truncated: it was cut while it was opened; copy the file again") from error
    return mapped, voxel, warnings + more


def _read_header_bytes(file: pathlib.Path) -> Tuple[bytes, int]:
    """Return the first 1024 bytes and the file size, or say why there are none."""
    check_plain(file, "a tomogram (.mrc, .rec, .map)")
    if file.is_dir():
        raise InputError(f"expected a tomogram (.mrc, .rec, .map, or a folder .zarr), got a folder: {file}")
    try:
        with open(file, "rb") as stream:
            raw, size = stream.read(HEADER_BYTES), os.fstat(stream.fileno()).st_size
    except FileNotFoundError as error:
        raise InputError(f"no such tomogram: {file}") from error
    except OSError as error:
        raise InputError(f"cannot read the tomogram {file}: {error.strerror or error}") from error
    if not raw:
        raise FormatError(f"{file} is empty (0 bytes): copy the file again")
    if raw[:2] == b"\x1f\x8b" or raw[:3] == b"BZh":
        raise FormatError(f"{file} is compressed: unpack it first (gunzip or bunzip2)")
    if len(raw) < HEADER_BYTES:
        raise FormatError(f"{file} is not an MRC file or is truncated: expected at least {HEADER_BYTES} bytes, found "
                          f"{size}")
    return raw, size


def _parse_header(raw: bytes, size: int, file: pathlib.Path) -> Tuple[np.void, List[str]]:
    """Return the header in its byte order and what is odd about it."""
    from mrcfile.dtypes import HEADER_DTYPE

    orders = {b"\x44": "<", b"\x11": ">"}
    stamped = orders.get(raw[212:213])
    has_id = raw[208:211] == b"MAP"
    warnings = [] if has_id else ["the map ID is missing; used because the file size agrees with the header"]
    if stamped is None:
        warnings.append("the machine stamp is not valid; the byte order was found by trying")
    for order in (stamped or "<", "<" if stamped == ">" else ">"):
        header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        if not _plausible(header):
            continue
        mode, voxels = int(header["mode"]), int(header["nx"]) * int(header["ny"]) * int(header["nz"])
        expected = HEADER_BYTES + int(header["nsymbt"]) + voxels * np.dtype(MODES.get(mode, "u1")).itemsize
        if not has_id and (mode not in MODES or size != expected):
            continue
        if stamped is not None and order != stamped:
            warnings.append("the machine stamp does not match the byte order; the order that fits was used")
        return header, warnings
    raise FormatError(f"{file} is not an MRC file (no valid header found): expected .mrc, .rec or .map; convert other "
                      "formats to MRC first")


def _plausible(header: np.void) -> bool:
    """Tell whether sizes, mode and extended header length can be true."""
    sizes = [int(header[n]) for n in ("nx", "ny", "nz")]
    return (min(sizes) > 0 and max(sizes) < 10 ** 7 and int(header["nsymbt"]) >= 0
            and (int(header["mode"]) in MODES or int(header["mode"]) in _REFUSED_MODES))


def _voxel_type(header: np.void, raw: bytes, file: pathlib.Path) -> np.dtype:
    """Return the numpy type of the voxels, with the file's byte order."""
    mode = int(header["mode"])
    if mode in _REFUSED_MODES:
        raise FormatError(f"{file} holds {_REFUSED_MODES[mode]} (MRC mode {mode}): expected real numbers (modes "
                          f"{', '.join(map(str, MODES))}); convert it to float32 first")
    order = header.dtype["nx"].str[0]
    if mode == 0:
        stamp, flags = np.frombuffer(raw, order + "i4", count=2, offset=152)
        return np.dtype("u1" if stamp == IMOD_STAMP and not flags & 1 else "i1")
    return np.dtype(order + MODES[mode])


def _check_layout(header: np.void, file: pathlib.Path) -> None:
    """Refuse anything but one 3D volume with the axes in the usual order."""
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    if min(shape) < 2:
        what = "a single plane (2D)" if shape[0] == 1 else "no 3D volume"
        raise FormatError(f"{file} holds {what}: {_dims(shape)} voxels; expected a reconstructed tomogram with x, y "
                          "and z > 1")
    axes = tuple(int(header[n]) for n in ("mapc", "mapr", "maps"))
    if axes not in ((1, 2, 3), (0, 0, 0)):
        raise FormatError(f"{file} stores its axes in the order {axes} (mapc, mapr, maps): expected (1, 2, 3); write "
                          "it anew with columns along x, rows along y and sections along z")
    mz = int(header["mz"])
    if 401 <= int(header["ispg"]) <= 630 and 0 < mz < shape[0]:
        raise FormatError(f"{file} is a stack of {shape[0] // mz} volumes (4D): expected one volume; split it first")


def _header_sizes(header: np.void) -> List[float]:
    """Return the header's voxel size along x, y and z in angstrom; 0 where it says none."""
    sizes = []
    for axis in "xyz":
        cells, length = int(header["m" + axis]), float(header["cella"][axis])
        sizes.append(length / cells if cells > 0 and np.isfinite(length) and length > 0 else 0.0)
    return sizes


def _dims(shape_zyx: Tuple[int, ...]) -> str:
    """Return a shape as users write it: x by y by z."""
    return " x ".join(str(n) for n in reversed(shape_zyx))
