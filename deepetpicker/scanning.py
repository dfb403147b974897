"""Overlap-tile scan: from a source of voxels to the stitched probability map, a row of tiles at a time."""

from __future__ import annotations

import concurrent.futures
from typing import Any, Callable, Iterable, Iterator, List, Optional, Protocol, Tuple, TypeVar

import numpy as np

from deepetpicker.store import ProbabilityStore
from deepetpicker.tiling import AxisTile, Tile, TilePlan, reflect_indices

Predict = Callable[[np.ndarray], np.ndarray]
Slices = Tuple[slice, slice, slice]
T = TypeVar("T")


class Voxels(Protocol):
    """A source of normalised voxels on the working grid."""

    @property
    def shape_zyx(self) -> Tuple[int, int, int]:
        """Shape (3,) in working voxels."""

    def read(self, slices_zyx: Slices) -> np.ndarray:
        """Return a box, float32."""


def read_reflected(source: Voxels, starts_zyx: Tuple[int, int, int], stops_zyx: Tuple[int, int, int]) -> np.ndarray:
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


def read_rows(source: Voxels, plan: TilePlan) -> Iterator[Tuple[AxisTile, AxisTile, np.ndarray]]:
    """Yield the voxels of each row of tiles, (tile, tile, padded X) float32, with its z and y."""
    x_start, x_stop = plan.x[0].start, plan.x[-1].start + plan.tile
    for z in plan.z:
        for y in plan.y:
            starts, stops = (z.start, y.start, x_start), (z.start + plan.tile, y.start + plan.tile, x_stop)
            yield z, y, read_reflected(source, starts, stops)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield items while the next one is made in a thread, so that the device never waits for the disk."""
    iterator, end = iter(items), object()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]


def scan(source: Voxels, predict: Predict, plan: TilePlan, batch: int = 1,
         bar: Optional[Any] = None) -> Iterator[Tuple[int, int, np.ndarray]]:
    """Yield the stitched probability map in strips, one row of tiles each.

    Parameters
    ----------
    source : Voxels
        Normalised voxels on the working grid.
    predict : callable
        (B, N, N, N) float32 -> (B, C, N, N, N); any function of that form, usually a Predictor.
    plan : TilePlan
        Covers the source's shape.
    batch : int
        Tiles given to predict at once.
    bar : progress bar, optional
        Gets ``update(n)`` after each batch of n tiles.

    Yields
    ------
    (z0, y0, probability)
        First plane, first row and (C, dz, dy, X) float32; the strips cover the map exactly once.
    """
    for z, y, rows in ahead(read_rows(source, plan)):
        tiles = [Tile(z, y, x) for x in plan.x]
        out: Optional[np.ndarray] = None
        for at in range(0, len(tiles), batch):
            group = tiles[at:at + batch]
            result = predict(np.stack([_cut(rows, tile, plan) for tile in group]))
            if out is None:
                shape = (result.shape[1], z.keep_to - z.keep_from, y.keep_to - y.keep_from, plan.shape_zyx[2])
                out = np.empty(shape, np.float32)
            _stitch(out, group, result)
            if bar is not None:
                bar.update(len(group))
        if out is not None:
            yield z.keep_from, y.keep_from, out


def _cut(rows_zyx: np.ndarray, tile: Tile, plan: TilePlan) -> np.ndarray:
    """Return the voxels (tile, tile, tile) of one tile of a row."""
    start = tile.x.start - plan.x[0].start
    return rows_zyx[:, :, start:start + plan.tile]


def _stitch(strip_czyx: np.ndarray, tiles: List[Tile], result_bczyx: np.ndarray) -> None:
    """Write the kept parts of tiles' results (B, C, N, N, N) into the strip (C, dz, dy, X)."""
    for tile, result in zip(tiles, result_bczyx):
        strip_czyx[..., tile.x.kept] = result[(slice(None), *tile.inside)]


def probability_map(source: Voxels, predict: Predict, plan: TilePlan, store: ProbabilityStore, batch: int = 1,
                    bar: Optional[Any] = None) -> ProbabilityStore:
    """Fill the store with the stitched map of a source and return it; parameters as for :func:`scan`."""
    for z0, y0, strip_czyx in scan(source, predict, plan, batch, bar):
        store.write(z0, y0, strip_czyx)
    return store
