"""Overlap-tile: which tiles scan a volume and which part of each is kept.

All tiles of a volume have one shape. Each inner side of a tile discards at least ``border`` voxels; what is kept tiles
the volume exactly once, whatever its size. Tiles start at multiples of 8 (of 16 and more for deeper networks), so that
the network's pooling sees the same phase in all of them; the last one may hang over the end by less than that, and a
volume thinner than a tile is centred in it. What hangs over is filled by reflection, as in training.

Source: overlap-tile of Liu et al. 2024, Nat. Commun. 15:2090. We differ: tiles touching the volume's own border keep
their border voxels (nothing is padded there that the network did not see so in training), and steps are even.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Iterator, List, Sequence, Tuple, Union

import numpy as np

from deepetpicker.errors import InputError

Shape = Tuple[int, int, int]
PHASE = 8
SMALLEST_TILE, LARGEST_TILE = 64, 96
VALIDATION_TILE = 72


@dataclasses.dataclass(frozen=True)
class AxisTile:
    """One tile along one axis: reads ``start`` to ``start + tile``, keeps ``keep_from`` to ``keep_to`` (voxels)."""

    start: int
    keep_from: int
    keep_to: int

    @property
    def kept(self) -> slice:
        """The kept voxels, counted from the volume's first."""
        return slice(self.keep_from, self.keep_to)

    @property
    def inside(self) -> slice:
        """The kept voxels, counted from the tile's first."""
        return slice(self.keep_from - self.start, self.keep_to - self.start)


def axis_tiles(length: int, tile: int, border: int, phase: int = PHASE) -> Tuple[AxisTile, ...]:
    """Return the tiles along an axis; the kept parts cover 0 to length exactly once.

    Parameters
    ----------
    length : int
        Voxels along the axis, >= 1.
    tile : int
        Edge of the tile in voxels, a multiple of the phase.
    border : int
        Voxels discarded on each inner side, >= 0.
    phase : int
        Tiles start at multiples of it.

    Raises
    ------
    InputError
        If the border leaves less than a phase of the tile.
    """
    if tile - 2 * border < phase:
        raise InputError(f"border must leave at least {phase} voxels of a tile of {tile}, got {border}: use a border "
                         f"of at most {(tile - phase) // 2} or a larger tile")
    if length <= tile:
        start = -(((tile - length) // 2) // phase) * phase
        return (AxisTile(start, 0, length),)
    step = (tile - 2 * border) // phase * phase
    last = math.ceil((length - tile) / phase) * phase
    count = math.ceil(last / step) + 1
    starts = [round(i * last / (count - 1) / phase) * phase for i in range(count)]
    cuts = [0, *((a + tile + b) // 2 for a, b in zip(starts, starts[1:])), length]
    return tuple(AxisTile(s, a, b) for s, a, b in zip(starts, cuts, cuts[1:]))


@dataclasses.dataclass(frozen=True)
class Tile:
    """One tile of the volume: an :class:`AxisTile` along z, y and x."""

    z: AxisTile
    y: AxisTile
    x: AxisTile

    @property
    def inside(self) -> Tuple[slice, slice, slice]:
        """The kept part in the tile's own voxels (z, y, x)."""
        return self.z.inside, self.y.inside, self.x.inside


@dataclasses.dataclass(frozen=True)
class TilePlan:
    """All tiles of a volume, in layers along z.

    Attributes
    ----------
    shape_zyx : (3,) int
        The volume's shape.
    tile_zyx : (3,) int
        Edges of a tile in voxels.
    z, y, x : tuple of AxisTile
        Tiles along each axis.
    """

    shape_zyx: Shape
    tile_zyx: Shape
    z: Tuple[AxisTile, ...]
    y: Tuple[AxisTile, ...]
    x: Tuple[AxisTile, ...]

    @classmethod
    def cover(cls, shape_zyx: Shape, tile: Union[int, Shape], border: int, phase: int = PHASE) -> TilePlan:
        """Return the plan that covers a volume.

        Parameters
        ----------
        shape_zyx : (3,) int
            The volume's shape in voxels.
        tile : int or (3,) int
            Edge of cubic tiles, or the edge along each axis, in voxels.
        border : int
            Voxels discarded on each inner side; as many as leave a phase of an edge that is too short for it.
        phase : int
            Tiles start at multiples of it: 8, or what a deeper network asks for.
        """
        edges = (tile,) * 3 if isinstance(tile, int) else tuple(tile)
        z, y, x = (axis_tiles(n, e, min(border, (e - phase) // 2), phase) for n, e in zip(shape_zyx, edges))
        return cls(tuple(shape_zyx), edges, z, y, x)  # type: ignore[arg-type]

    @property
    def tile_voxels(self) -> int:
        """Voxels of one tile."""
        return math.prod(self.tile_zyx)

    @property
    def voxels(self) -> int:
        """Voxels the network computes for the whole volume."""
        return len(self) * self.tile_voxels

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.z) * len(self.y) * len(self.x)

    def layer(self, z: AxisTile) -> List[Tile]:
        """Return the tiles of one layer along z, y then x in order."""
        return [Tile(z, y, x) for y in self.y for x in self.x]

    def __iter__(self) -> Iterator[Tile]:
        """Iterate over all tiles, z slowest."""
        return (tile for z in self.z for tile in self.layer(z))


def choose_tile(shape_zyx: Shape, patch: int, border: int, largest: int = 0, phase: int = PHASE) -> Shape:
    """Return the edges (3,) of the tile that covers a volume with the least work, in voxels.

    Larger tiles throw less away at their borders, but hang over more; a network trained on smaller patches picks as
    well with larger ones (docs/performance.rst). Looked for, along each axis, from the training patch, at least 64,
    up to 96.

    Parameters
    ----------
    shape_zyx : (3,) int
        Shape of the volume on the working grid.
    patch : int
        Edge of the training patch in voxels.
    border : int
        Voxels discarded on each inner side.
    largest : int
        Longest edge when memory is short; it wins over the training patch.
    phase : int
        Edges are multiples of it.
    """
    patch = -(-patch // phase) * phase
    high = max(phase, (largest or max(patch, LARGEST_TILE)) // phase * phase)
    low = min(max(SMALLEST_TILE, patch), high)
    edges = range(low, high + 1, phase)
    border = min(border, (low - phase) // 2)

    def best(length: int) -> int:
        return min(edges, key=lambda edge: (len(axis_tiles(length, edge, border, phase)) * edge, -edge))

    z, y, x = shape_zyx
    return best(z), best(y), best(x)


def scan_tile(patch: int, shapes_zyx: Sequence[Shape], phase: int = PHASE) -> int:
    """Return the edge of the cubic tiles of a validation: small patches would waste most of a tile on its border.

    Parameters
    ----------
    patch : int
        Edge of a training patch in voxels.
    shapes_zyx : sequence of (3,) int
        Shapes of the held-out parts.
    phase : int
        The edge is a multiple of it, as the patch is.
    """
    longest = max((max(shape) for shape in shapes_zyx), default=patch)
    return max(patch, phase * -(-min(VALIDATION_TILE, longest) // phase))


def reflect_indices(start: int, stop: int, length: int) -> np.ndarray:
    """Return the indices (stop - start,) that fill start..stop of an axis by reflection about its end voxels.

    Parameters
    ----------
    start, stop : int
        May lie outside 0..length, by any number of lengths.
    length : int
        Voxels of the axis, >= 1; of an axis of one voxel every index is 0.
    """
    index = np.arange(start, stop)
    if length == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * length - 2)
    return np.minimum(index, 2 * length - 2 - index)
