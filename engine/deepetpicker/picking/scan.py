"""Overlap-tile scan: from a source of voxels to the stitched probability map, a row of tiles at a time.

Voxels are read ahead and strips are written behind in threads, so that the device never waits for the disk. On a GPU
all but the reading happens there: rows are cut, computed and stitched without coming back.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import math
import time
from typing import Any, Callable, Deque, Iterable, Iterator, List, Optional, Protocol, Sequence, Tuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from deepetpicker.picking.store import ProbabilityStore
from deepetpicker.preparation.tiling import AxisTile, Tile, TilePlan, reflect_indices

Slices = Tuple[slice, slice, slice]
Predict = Callable[[Tensor, Slices], Tensor]
T = TypeVar("T")

RUN_VOXELS = 6 << 20  # read at once
_CUDA_READERS = 4


class Voxels(Protocol):
    """A source of normalised voxels on the working grid."""

    @property
    def shape_zyx(self) -> Tuple[int, int, int]:
        """Shape (3,) in working voxels."""

    def read(self, slices_zyx: Slices) -> np.ndarray:
        """Return a box, float32."""


class TimedVoxels:
    """Another source of voxels that adds up the seconds its reading takes.

    Attributes
    ----------
    seconds : float
        So far; of all threads together.
    """

    def __init__(self, source: Voxels) -> None:
        self.source, self.seconds = source, 0.0

    @property
    def shape_zyx(self) -> Tuple[int, int, int]:
        """Shape (3,) in working voxels."""
        return self.source.shape_zyx

    def read(self, slices_zyx: Slices) -> np.ndarray:
        """Return a box, float32."""
        begin = time.perf_counter()
        box = self.source.read(slices_zyx)
        self.seconds += time.perf_counter() - begin
        return box


def read_reflected(source: Voxels, starts_zyx: Sequence[int], stops_zyx: Sequence[int]) -> np.ndarray:
    """Return the box from starts to stops, float32; what lies outside the source is filled by reflection.

    Parameters
    ----------
    source : Voxels
        Where voxels come from; only the part of the box inside it (and what reflection needs) is read.
    starts_zyx, stops_zyx : (3,) int
        May lie outside the source.
    """
    indices = [reflect_indices(a, b, n) for a, b, n in zip(starts_zyx, stops_zyx, source.shape_zyx)]
    lows = [int(i.min()) for i in indices]
    z, y, x = (slice(low, int(i.max()) + 1) for low, i in zip(lows, indices))
    box = source.read((z, y, x))
    for axis, (index, low) in enumerate(zip(indices, lows)):
        if len(index) != box.shape[axis] or index[0] > index[-1]:
            box = box.take(index - low, axis)
    return box


def runs_of(plan: TilePlan) -> List[List[Tile]]:
    """Return the tiles in runs along x, z slowest: whole rows, or parts of them where a row is too long to be read."""
    width = RUN_VOXELS // (plan.tile_zyx[0] * plan.tile_zyx[1])
    parts: List[List[AxisTile]] = []
    for x in plan.x:
        if not parts or x.start + plan.tile_zyx[2] - parts[-1][0].start > width:
            parts.append([])
        parts[-1].append(x)
    return [[Tile(z, y, x) for x in part] for z in plan.z for y in plan.y for part in parts]


def read_run(source: Voxels, plan: TilePlan, run: Sequence[Tile]) -> np.ndarray:
    """Return the voxels of a run of tiles, (Zt, Yt, X) float32, reflected where they hang over."""
    first, last = run[0], run[-1]
    starts = (first.z.start, first.y.start, first.x.start)
    return read_reflected(source, starts, [a + n for a, n in zip((*starts[:2], last.x.start), plan.tile_zyx)])


def ahead(calls: Iterable[Callable[[], T]], threads: int = 1) -> Iterator[T]:
    """Yield the results of calls in their order while the next ones, one per thread, are being made."""
    todo = iter(calls)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending: Deque[Any] = collections.deque()
        for call in todo:
            pending.append(pool.submit(call))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def behind(write: Callable[..., None], items: Iterable[Tuple[Any, ...]]) -> None:
    """Call write with each item in a thread while the next one is made; an error is raised here."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending: Optional[Any] = None
        for item in items:
            if pending is not None:
                pending.result()
            pending = pool.submit(write, *item)
        if pending is not None:
            pending.result()


def scan(source: Voxels, predict: Predict, plan: TilePlan, batch: int = 1, bar: Optional[Any] = None,
         device: Optional[torch.device] = None) -> Iterator[Tuple[int, int, Tensor]]:
    """Yield the stitched probability map in strips, one row of tiles each.

    Parameters
    ----------
    source : Voxels
        Normalised voxels on the working grid.
    predict : callable
        Tiles (B, Zt, Yt, Xt) float32 and the part of them that is wanted (slices z, y, x) to the probabilities of
        that part, (B, C, z, y, x); usually a Predictor.
    plan : TilePlan
        Covers the source's shape.
    batch : int
        Tiles given to predict at once.
    bar : progress bar, optional
        Gets ``update(n)`` after each batch of n tiles.
    device : torch.device, optional
        Where tiles are cut and strips are stitched; default: the CPU.

    Yields
    ------
    (z0, y0, probability)
        First plane, first row and (C, dz, dy, X) of the predictor's type; the strips cover the map exactly once.
    """
    is_cuda = device is not None and device.type == "cuda"
    runs = runs_of(plan)
    boxes = ahead((functools.partial(read_run, source, plan, run) for run in runs), _CUDA_READERS if is_cuda else 1)
    strip: Optional[Tensor] = None
    for run, box in zip(runs, boxes):
        voxels = torch.from_numpy(box)
        voxels = voxels.pin_memory().to(device, non_blocking=True) if is_cuda else voxels
        for at in range(0, len(run), batch):
            group = run[at:at + batch]
            keep = _wanted(group)
            result = predict(_cut(voxels, group, run[0].x.start, plan), keep)
            if strip is None:
                z, y = group[0].z, group[0].y
                shape = (result.shape[1], z.keep_to - z.keep_from, y.keep_to - y.keep_from, plan.shape_zyx[2])
                strip = torch.empty(shape, dtype=result.dtype, device=result.device)
            _stitch(strip, group, keep, result)
            if bar is not None:
                bar.update(len(group))
        if strip is not None and run[-1].x is plan.x[-1]:
            yield run[0].z.keep_from, run[0].y.keep_from, strip
            strip = None


def _wanted(tiles: Sequence[Tile]) -> Slices:
    """Return the smallest box that holds what is kept of each tile, in the tiles' own voxels."""
    z, y, x = (slice(min(s.start for s in sides), max(s.stop for s in sides))
               for sides in zip(*(tile.inside for tile in tiles)))
    return z, y, x


def _cut(voxels_zyx: Tensor, tiles: Sequence[Tile], x_start: int, plan: TilePlan) -> Tensor:
    """Return the voxels (B, Zt, Yt, Xt) of tiles from those of their run."""
    starts = [tile.x.start - x_start for tile in tiles]
    return torch.stack([voxels_zyx[:, :, s:s + plan.tile_zyx[2]] for s in starts])


def _stitch(strip_czyx: Tensor, tiles: Sequence[Tile], keep: Slices, result_bczyx: Tensor) -> None:
    """Write the kept parts of tiles' results (B, C, z, y, x), which begin where keep begins, into the strip."""
    for tile, result in zip(tiles, result_bczyx):
        inside = tuple(slice(s.start - k.start, s.stop - k.start) for s, k in zip(tile.inside, keep))
        strip_czyx[..., tile.x.kept] = result[(slice(None), *inside)]


def probability_map(source: Voxels, predict: Predict, plan: TilePlan, store: ProbabilityStore, batch: int = 1,
                    bar: Optional[Any] = None, device: Optional[torch.device] = None) -> ProbabilityStore:
    """Fill the store with the stitched map of a source and return it; parameters as for :func:`scan`."""
    behind(store.write, scan(source, predict, plan, batch, bar, device))
    return store


def read_bytes(plan: TilePlan) -> int:
    """Return the bytes that voxels read and read ahead take while a volume is scanned on a CPU."""
    row = plan.x[-1].start + plan.tile_zyx[2] - plan.x[0].start
    width = max(plan.tile_zyx[2], min(row, RUN_VOXELS // (plan.tile_zyx[0] * plan.tile_zyx[1])))
    return 3 * 4 * math.prod((*plan.tile_zyx[:2], width))
