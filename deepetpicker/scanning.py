"""Overlap-tile scan: from a source of planes to the stitched probability map, a layer of tiles at a time."""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, Optional, Protocol, Tuple

import numpy as np

from deepetpicker.tiling import AxisTile, Tile, TilePlan, reflect_indices

Predict = Callable[[np.ndarray], np.ndarray]


class Planes(Protocol):
    """A source of normalised planes on the working grid."""

    @property
    def shape_zyx(self) -> Tuple[int, int, int]:
        """Shape (3,) in working voxels."""

    def planes(self, z0: int, z1: int) -> np.ndarray:
        """Return planes z0 up to z1, (z1 - z0, Y, X) float32."""


class RollingReader:
    """Reads the planes of consecutive layers, each plane from the source only once.

    Parameters
    ----------
    source : Planes
        Where planes come from.
    plan : TilePlan
        Says how far y and x hang over; what hangs over is filled by reflection.
    """

    def __init__(self, source: Planes, plan: TilePlan) -> None:
        self.source, self.plan = source, plan
        self._pads = [(min(t.start for t in axis), max(t.start for t in axis) + plan.tile) for axis in (plan.y, plan.x)]
        self._first = 0
        self._held = np.empty((0, *source.shape_zyx[1:]), np.float32)

    def layer(self, z: AxisTile) -> np.ndarray:
        """Return the voxels of a layer, padded: (tile, Y padded, X padded) float32."""
        depth, height, width = self.source.shape_zyx
        low, high = max(z.start, 0), min(z.start + self.plan.tile, depth)
        end = self._first + len(self._held)
        keep = self._held[max(0, low - self._first):] if low < end else self._held[:0]
        new = self.source.planes(max(low, end), high) if high > end else self._held[:0]
        self._held, self._first = np.concatenate([keep, new]), low
        planes = self._held
        if z.start < 0 or z.start + self.plan.tile > depth:
            planes = planes[reflect_indices(z.start, z.start + self.plan.tile, depth) - low]
        for axis, length in ((1, height), (2, width)):
            start, stop = self._pads[axis - 1]
            if start < 0 or stop > length:
                planes = planes.take(reflect_indices(start, stop, length), axis)
        return planes

    def cut(self, layer_zyx: np.ndarray, tile: Tile) -> np.ndarray:
        """Return the voxels (tile, tile, tile) of one tile of a layer that :meth:`layer` returned."""
        n, (y0, x0) = self.plan.tile, (pad[0] for pad in self._pads)
        return layer_zyx[:, tile.y.start - y0:tile.y.start - y0 + n, tile.x.start - x0:tile.x.start - x0 + n]


def scan(source: Planes, predict: Predict, plan: TilePlan, batch: int = 1,
         bar: Optional[Any] = None) -> Iterator[Tuple[int, np.ndarray]]:
    """Yield the stitched probability map in slabs along z.

    Parameters
    ----------
    source : Planes
        Normalised planes on the working grid.
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
    (z0, probability)
        First plane and (C, dz, Y, X) float32; the slabs follow each other and cover the map once.
    """
    reader = RollingReader(source, plan)
    for z in plan.z:
        layer = reader.layer(z)
        tiles = plan.layer(z)
        out: Optional[np.ndarray] = None
        for at in range(0, len(tiles), batch):
            group = tiles[at:at + batch]
            result = predict(np.stack([reader.cut(layer, tile) for tile in group]))
            if out is None:
                out = np.empty((result.shape[1], z.keep_to - z.keep_from, *plan.shape_zyx[1:]), np.float32)
            _stitch(out, group, result)
            if bar is not None:
                bar.update(len(group))
        if out is not None:
            yield z.keep_from, out


def _stitch(slab_czyx: np.ndarray, tiles: List[Tile], result_bczyx: np.ndarray) -> None:
    """Write the kept parts of tiles' results (B, C, N, N, N) into the slab (C, dz, Y, X)."""
    for tile, result in zip(tiles, result_bczyx):
        slab_czyx[:, :, tile.y.kept, tile.x.kept] = result[(slice(None), *tile.inside)]
