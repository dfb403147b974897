"""The stitched probability map: on the GPU where it fits, in memory when small, else in a scratch file.

So memory stays bounded whatever the size of the tomogram. A scratch file is read and written with plain calls, not
memory-mapped: mapped pages would count as the process's own.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
import time
from typing import Any, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from deepetpicker.errors import OutputError

Shape4 = Tuple[int, int, int, int]

IN_MEMORY_BYTES = 96 << 20
DTYPE = torch.float16
_ITEM = 2
_CPU = torch.device("cpu")


class ProbabilityStore:
    """A (C, Z, Y, X) map of probabilities that is written and read in runs of whole rows.

    Parameters
    ----------
    shape_czyx : (4,) int
        Classes and shape of the working grid.
    scratch : path, optional
        Folder for the scratch file; default: the system's temporary folder.
    in_memory_bytes : int
        A larger map goes to the scratch file. What is read back does not depend on it.
    device : torch.device, optional
        Whose memory holds a map that is not in a file; default: the CPU.

    Notes
    -----
    Values are held as float16, whose step below 1 is 0.0005. A context manager: the scratch file goes at the end, and
    it has no name on disk where the system allows that, so that a killed run leaves nothing behind.

    Attributes
    ----------
    write_seconds : float
        Spent in writing so far.

    Raises
    ------
    OutputError
        If the scratch file cannot be written.
    """

    def __init__(self, shape_czyx: Shape4, scratch: Optional[Union[str, pathlib.Path]] = None,
                 in_memory_bytes: int = IN_MEMORY_BYTES, device: torch.device = _CPU) -> None:
        self.shape_czyx: Shape4 = tuple(int(n) for n in shape_czyx)  # type: ignore[assignment]
        size = map_bytes(self.shape_czyx)
        self.write_seconds = 0.0
        self._array: Optional[Tensor] = None
        self._file: Any = None
        if size <= in_memory_bytes:
            self._array = torch.zeros(self.shape_czyx, dtype=DTYPE, device=device)
            return
        try:
            self._file = tempfile.TemporaryFile(prefix="deepetpicker_", dir=scratch)  # noqa: SIM115 - see close
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, size)
        except OSError as error:
            self.close()
            folder = scratch or tempfile.gettempdir()
            raise OutputError(error.errno, f"expected {size / 1e9:.1f} GB of free space for the probability map in "
                              f"{folder}: {error.strerror}; free space or choose another folder (TMPDIR)") from error

    def __enter__(self) -> ProbabilityStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory or the scratch file."""
        self._array = None
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def shape_zyx(self) -> Tuple[int, int, int]:
        """Shape (3,) of the working grid."""
        return self.shape_czyx[1:]

    @property
    def on_disk(self) -> bool:
        """True if the map is in a scratch file."""
        return self._file is not None

    def write(self, z0: int, y0: int, probability_czyx: Tensor) -> None:
        """Store a strip (C, dz, dy, X) whose first voxel is (z0, y0, 0)."""
        begin = time.perf_counter()
        _, dz, dy, _ = probability_czyx.shape
        if self._array is not None:
            self._array[:, z0:z0 + dz, y0:y0 + dy] = probability_czyx
        else:
            for channel, volume in enumerate(probability_czyx.to(_CPU, DTYPE).contiguous().numpy()):
                for z, plane in enumerate(volume, z0):
                    self._write_all(plane.tobytes(), self._offset(channel, z, y0))
        self.write_seconds += time.perf_counter() - begin

    def read(self, channel: int, z: slice, y: slice) -> Tensor:
        """Return one class's rows y of planes z as float32 (dz, dy, X), on the device that holds the map."""
        if self._array is not None:
            return self._array[channel, z, y].float()
        rows, width = y.stop - y.start, self.shape_czyx[3]
        out = torch.empty((z.stop - z.start, rows, width))
        for i, plane in enumerate(range(z.start, z.stop)):
            data = bytearray(os.pread(self._file.fileno(), rows * width * _ITEM, self._offset(channel, plane, y.start)))
            out[i] = torch.frombuffer(data, dtype=DTYPE).view(rows, width)
        return out

    def _write_all(self, data: bytes, at: int) -> None:
        """Write bytes to a place in the scratch file, or raise OutputError."""
        try:
            while data:
                done = os.pwrite(self._file.fileno(), data, at)
                data, at = data[done:], at + done
        except OSError as error:
            raise OutputError(error.errno, f"cannot write the probability map: {error.strerror}; free space, or choose "
                              "another folder") from error

    def _offset(self, channel: int, z: int, y: int) -> int:
        """Return the place of a row in the scratch file, in bytes."""
        _, depth, height, width = self.shape_czyx
        return ((channel * depth + z) * height + y) * width * _ITEM


def map_bytes(shape_czyx: Sequence[int]) -> int:
    """Return the size of a map (C, Z, Y, X) in bytes."""
    return int(np.prod(shape_czyx, dtype=np.int64)) * _ITEM
