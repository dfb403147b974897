"""Zarr arrays read by blocks on demand: what looks like an array and holds only what was asked for last."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import os
import pathlib
import stat
import threading
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.volumes.handover import open_store, plain_store
from deepetpicker.io.volumes.unpacked import check_unpacked
from deepetpicker.io.volumes.zarrmeta import ArrayFacts

Lines = Tuple[np.ndarray, np.ndarray, np.ndarray]

KEPT_BYTES = 256 << 20  # decoded blocks of all tomograms together
EDGE_VOX = 64           # smaller chunks are read several at once,
BLOCK_BYTES = 32 << 20  # but not where that is more
MISSING = "expected the package zarr to read OME-Zarr tomograms, found none: pip install 'deepetpicker[zarr]'"


def require_zarr(version: int = 2) -> Any:
    """Return the package zarr, or raise InputError saying what to install.

    Parameters
    ----------
    version : int
        Version of the format that it must read, 2 or 3.
    """
    try:
        import zarr
    except ImportError as error:
        raise InputError(MISSING) from error
    if version == 3 and int(str(zarr.__version__).split(".")[0]) < 3:
        raise InputError(f"expected zarr 3 to read a tomogram in Zarr's format version 3, found zarr {zarr.__version__}"
                         ": pip install 'zarr>=3' (Python 3.11 or newer), or write it in format version 2")
    return zarr


class KeptBlocks:
    """Decoded blocks, those that were used last; may be used from several threads.

    Parameters
    ----------
    limit : int
        So many bytes are kept; a single block may be larger.

    Attributes
    ----------
    nbytes : int
        Bytes of what is kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        """Forget everything; a forked process begins so."""
        self._lock, self.nbytes = threading.Lock(), 0
        self._blocks: collections.OrderedDict[Tuple[int, ...], np.ndarray] = collections.OrderedDict()

    def get(self, key: Tuple[int, ...]) -> Optional[np.ndarray]:
        """Return a block, None when it is not there."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, key: Tuple[int, ...], block: np.ndarray) -> None:
        """Keep a block, at the cost of those that were used longest ago."""
        with self._lock:
            if key in self._blocks:
                return
            self._blocks[key] = block
            self.nbytes += block.nbytes
            while self.nbytes > self.limit and len(self._blocks) > 1:
                self.nbytes -= self._blocks.popitem(last=False)[1].nbytes


_KEPT = KeptBlocks(KEPT_BYTES)
_NUMBERS = itertools.count()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_KEPT.clear)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a stored array becomes a tomogram.

    Parameters
    ----------
    axes_zyx : (3,) int
        Stored axes that are z, y and x; all others have one element.
    shape_zyx : (3,) int
        Shape it is to have; beyond its own it repeats its last voxel.
    """

    axes_zyx: Tuple[int, int, int]
    shape_zyx: Tuple[int, int, int]


class BlockArray:
    """A Zarr array on disk as a read-only array (Z, Y, X): ``a[z0:z1, y, ::2]`` reads the chunks that are needed.

    Parameters
    ----------
    root : path
        Folder of the tomogram; no chunk may lie outside it.
    folder : path
        Folder of the array, within it.
    facts : ArrayFacts
        What its metadata say, checked.
    layout : Layout
        Axes and shape.
    """

    ndim = 3

    def __init__(self, root: pathlib.Path, folder: pathlib.Path, facts: ArrayFacts, layout: Layout) -> None:
        self._root, self._folder, self._facts, self._layout = os.path.realpath(root), folder, facts, layout
        self.shape, self.dtype = layout.shape_zyx, np.dtype(facts.dtype).newbyteorder("=")
        z, y, x = (facts.shape[axis] for axis in layout.axes_zyx)
        self._stored = z, y, x
        self._block = _block_zyx([facts.chunks[axis] for axis in layout.axes_zyx], self.dtype.itemsize)
        self._number, self._array = next(_NUMBERS), None  # type: Tuple[int, Any]

    @property
    def size(self) -> int:
        """Number of voxels."""
        z, y, x = self.shape
        return z * y * x

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels, were they in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> np.ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        parts = (*parts, *[slice(None)] * (3 - len(parts)))
        lines = [np.arange(n)[part] for n, part in zip(self.shape, parts)]
        lists = [line for line, part in zip(lines, parts) if not isinstance(part, slice) and line.ndim]
        if len(lists) == 3 and not _is_open_mesh(lists):
            return self._points(np.broadcast_arrays(*lists))
        flat = [np.minimum(line.reshape(-1), n - 1) for line, n in zip(lines, self._stored)]
        box = self._box((flat[0], flat[1], flat[2]))
        return box.reshape([n for line, part in zip(lines, parts) for n in _kept_axis(line, part)])

    def _box(self, lines: Lines) -> np.ndarray:
        """Return the voxels at all combinations of positions along z, y and x."""
        out = np.empty([len(line) for line in lines], self.dtype)
        groups = [_groups(line, edge) for line, edge in zip(lines, self._block)]
        for one in itertools.product(*groups):
            block = self._read(tuple(number for number, _, _ in one))
            out[_mesh([target for _, target, _ in one])] = block[_mesh([source for _, _, source in one])]
        return out

    def _points(self, places: Sequence[np.ndarray]) -> np.ndarray:
        """Return the voxels at places z, y, x, arrays of one shape."""
        flat = np.stack([np.minimum(p.ravel(), n - 1) for p, n in zip(places, self._stored)])
        edges = np.array(self._block)[:, None]
        out = np.empty(flat.shape[1], self.dtype)
        blocks, owner = np.unique(flat // edges, axis=1, return_inverse=True)
        for k, number in enumerate(blocks.T):
            mine = owner.ravel() == k
            out[mine] = self._read(tuple(int(n) for n in number))[tuple((flat % edges)[:, mine])]
        return out.reshape(places[0].shape)

    def _read(self, number: Tuple[int, ...]) -> np.ndarray:
        """Return a block (Z, Y, X) by its place in the grid of blocks; it is shared and must not be written to."""
        key = (self._number, *number)
        block = _KEPT.get(key)
        if block is None:
            block = self._decode(number)
            _KEPT.put(key, block)
        return block

    def _decode(self, number: Tuple[int, ...]) -> np.ndarray:
        """Read and decode the chunks of a block."""
        spans = [slice(0, 1)] * len(self._facts.shape)
        for axis, place, edge, n in zip(self._layout.axes_zyx, number, self._block, self._stored):
            spans[axis] = slice(place * edge, min((place + 1) * edge, n))
        try:
            raw = np.asarray(self._opened(spans)[tuple(spans)])
        except (InputError, MemoryError):
            raise
        except Exception as error:  # whatever a decoder says of damaged bytes
            raise FormatError(f"{self._folder}: the block at {tuple(s.start for s in spans)} cannot be read "
                              f"({type(error).__name__}: {error}): copy the tomogram again") from error
        order = [*self._layout.axes_zyx, *(k for k in range(raw.ndim) if k not in self._layout.axes_zyx)]
        return np.ascontiguousarray(raw.transpose(order).reshape([raw.shape[k] for k in self._layout.axes_zyx]),
                                    dtype=self.dtype)

    def _opened(self, spans: Sequence[slice]) -> Any:
        """Return what zarr reads a box from, its chunks checked: the folder, or the chunks already unpacked."""
        there = [(numbers, path) for numbers, path in self._facts.files(self._folder, spans) if self._check(path)]
        zarr = require_zarr(self._facts.version)
        if self._facts.packing.is_handed_over:
            return open_store(zarr, plain_store(self._folder, pathlib.Path(self._root), self._facts, there))
        for numbers, path in there:
            check_unpacked(path, self._facts, numbers, spans)
        if self._array is None:
            self._array = zarr.open_array(str(self._folder), mode="r")
        return self._array

    def _check(self, path: pathlib.Path) -> bool:
        """Tell whether a chunk is there; refuse a link out of the folder, no plain file, and one that is too large."""
        try:
            state = os.stat(path)
        except OSError:
            return False  # missing: it has the fill value, as the format says
        if not (os.path.realpath(path) + os.sep).startswith(self._root + os.sep):
            raise FormatError(f"{path} is a link out of the tomogram's folder: copy what it names to its place")
        if not stat.S_ISREG(state.st_mode):
            raise FormatError(f"{path}: expected a file with a chunk, found none: copy the tomogram again")
        if state.st_size > self._facts.largest_file:
            raise FormatError(f"{path}: expected at most {self._facts.largest_file} bytes for a chunk, found "
                              f"{state.st_size}: copy the tomogram again")
        return True


def _block_zyx(chunk_zyx: Sequence[int], item_bytes: int) -> Tuple[int, ...]:
    """Return how much is read at once: several small chunks, one large one."""
    times = [max(1, EDGE_VOX // edge) for edge in chunk_zyx]
    while max(times) > 1 and math.prod(chunk_zyx) * math.prod(times) * item_bytes > BLOCK_BYTES:
        longest = times.index(max(times))
        times[longest] = -(-times[longest] // 2)
    return tuple(edge * n for edge, n in zip(chunk_zyx, times))


def _kept_axis(line: np.ndarray, part: Any) -> List[int]:
    """Return the length of an axis, nothing for one that a number drops."""
    return [] if not isinstance(part, slice) and not line.ndim else [line.size]


def _is_open_mesh(lists: Sequence[np.ndarray]) -> bool:
    """Tell whether three lists of positions are what ``np.ix_`` gives."""
    return all(line.ndim == 3 and line.size == line.shape[k] for k, line in enumerate(lists))


def _groups(line: np.ndarray, edge: int) -> List[Tuple[int, Any, Any]]:
    """Return, for each block along an axis that positions (N,) touch: its number, where they are, where in it."""
    owner = line // edge
    found = []
    for number in dict.fromkeys(owner.tolist()):
        mine = np.flatnonzero(owner == number)
        found.append((int(number), _short(mine), _short(line[mine] - number * edge)))
    return found


def _short(line: np.ndarray) -> Union[slice, np.ndarray]:
    """Return a list of positions as a slice where it is one: that copies faster."""
    steps = np.diff(line)
    step = int(steps[0]) if len(steps) else 1
    if step < 1 or (steps != step).any():
        return line
    return slice(int(line[0]), int(line[-1]) + 1, step)


def _mesh(parts: Sequence[Union[slice, np.ndarray]]) -> Any:
    """Return what indexes an array at all combinations of slices or lists."""
    if all(isinstance(part, slice) for part in parts):
        return tuple(parts)
    return np.ix_(*(np.arange(p.start, p.stop, p.step) if isinstance(p, slice) else p for p in parts))
