"""What picking a tomogram will take, worked out before it starts: tiles, batch, memory and time."""

from __future__ import annotations

import dataclasses
import math
from typing import Optional, Sequence, Tuple

from deepetpicker.config import PickOptions
from deepetpicker.errors import InputError
from deepetpicker.memory import MIB
from deepetpicker.picking.scan import read_bytes
from deepetpicker.picking.store import IN_MEMORY_BYTES, map_bytes
from deepetpicker.preparation.tiling import LARGEST_TILE, PHASE, Shape, TilePlan, choose_tile

SHORTEST_EDGE = 32
PLANES, BLOCK_VOXELS = 48, 12 << 20  # of the map, in which peaks are looked for at once
_BLOCK_BYTES = 16  # per voxel of such a block: float32, four at a time
_CODE_BYTES = 110 * MIB  # kernels and weights that come with the first tile
_FEATURES = {False: 13.0, True: 7.3}  # tensors of a tile's finest level alive at once, by whether freed ones go back
USUAL_BYTES = 1_200_000_000  # above it, without a limit, freed memory goes back at once: a tenth slower, a third less
_GPU_SHARE = 0.9  # of its memory that picking may take by itself
_CONTEXT_BYTES = 512 * MIB  # of a GPU, that the driver takes for a process
_LOGIT_BYTES = 14  # per voxel and channel: logits and probabilities in float32 and float16
_BIAS_FEATURES = 2.0  # of them held once, however many tiles
_SECONDS_PER_MAP_VOXEL = 4e-8  # post-processing, one core


@dataclasses.dataclass(frozen=True)
class Workplace:
    """What a plan has to know about model and machine.

    Attributes
    ----------
    classes, width, itemsize : int
        Classes of the model, channels of its finest level, bytes of a number.
    patch, halo : int
        Edge of the training patch, and voxels around a block of the map that its peaks depend on.
    batch : int
        Tiles the device would take at once.
    base_bytes : int
        What the process (or, on a GPU, the device) holds before the scan.
    limit_bytes : int
        What it may hold at most; 0 when there is no limit.
    is_gpu : bool
        True when all of it is on a GPU.
    seconds_per_voxel : float
        Of the network; 0 when unknown.
    phase : int
        Edges and starts of tiles are multiples of it.
    least : int
        Tiles that a forward pass computes at least, wanted or not.
    """

    classes: int
    width: int
    itemsize: int
    patch: int
    halo: int
    batch: int
    base_bytes: int = 0
    limit_bytes: int = 0
    is_gpu: bool = False
    seconds_per_voxel: float = 0.0
    phase: int = PHASE
    least: int = 1

    def feature_bytes(self, tile_zyx: Sequence[int], batch: int, is_lean: bool) -> int:
        """Return the bytes of all features of a batch of tiles, with the kept bias maps."""
        batch = max(batch, self.least)
        one = self.width * math.prod(tile_zyx) * self.itemsize
        logits = _LOGIT_BYTES * (self.classes + 1) * math.prod(tile_zyx) * batch
        return round(one * (_BIAS_FEATURES + (_FEATURES[is_lean] - _BIAS_FEATURES) * batch)) + logits


@dataclasses.dataclass(frozen=True)
class PickPlan:
    """How one tomogram is picked.

    Attributes
    ----------
    tiles : TilePlan
        Tiles of the working grid.
    batch : int
        Tiles per forward pass.
    block : (2,) int
        Planes and rows of the map in which peaks are looked for at once.
    in_memory_bytes : int
        A larger map goes to a scratch file.
    memory_bytes : int
        Expected peak of the process, on a GPU of the device.
    seconds : float
        Expected duration; 0 when unknown.
    is_lean : bool
        True when freed memory goes back to the system at once (:func:`~deepetpicker.memory.freed_memory`).
    """

    tiles: TilePlan
    batch: int
    block: Tuple[int, int]
    in_memory_bytes: int
    memory_bytes: int
    seconds: float
    is_lean: bool = False

    def __str__(self) -> str:
        """Return "147 tiles of 88 x 96 x 96 voxels, 1.1 GB, about 70 s"."""
        edges = self.tiles.tile_zyx
        size = f"{edges[0]}" if len(set(edges)) == 1 else " x ".join(map(str, edges))
        text = f"{len(self.tiles)} tile{'s' * (len(self.tiles) != 1)} of {size} voxels, {gigabytes(self.memory_bytes)}"
        return text + (f", about {duration(self.seconds)}" if self.seconds else "")


def gpu_bytes(free: int, total: int, reserved: int, limit: int = 0) -> Tuple[int, int]:
    """Return what a GPU holds before the scan and what it may hold at most, as far as a limit counts it, in bytes.

    Parameters
    ----------
    free, total : int
        Bytes of the device that nobody holds, and all of them.
    reserved : int
        Bytes that this process's tensors hold.
    limit : int
        Of this process alone, what others hold left out; 0 takes most of what there is.
    """
    used = total - free
    if not limit:
        return used, round(_GPU_SHARE * total)
    own = min(used, reserved + _CONTEXT_BYTES)
    return own, min(limit, own + free)


def gigabytes(size: float) -> str:
    """Return bytes as "1.1 GB" (10^9)."""
    return f"{size / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Return a duration as people say it: "8 s", "70 s", "12 min", "1.5 h"."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def make_plan(shape_zyx: Shape, options: PickOptions, place: Workplace, largest: int = 0,
              before_bytes: int = 0) -> PickPlan:
    """Return how a volume is picked: with the least work that fits into the memory there is.

    Parameters
    ----------
    shape_zyx : (3,) int
        Shape on the working grid.
    options : PickOptions
        Tile, border, batch and slab win where they are given.
    place : Workplace
        Model and machine.
    largest : int
        Longest edge of a tile in voxels; 0 leaves the choice free.
    before_bytes : int
        What is needed before the scan only, to resample.

    Raises
    ------
    InputError
        If the memory limit is too low for the shortest tile, or for the one given.
    """
    if options.tile % place.phase:
        raise InputError(f"tile must be a multiple of {place.phase} for this model, got {options.tile}")
    plan: Optional[PickPlan] = None
    largest = max(largest or max(place.patch, LARGEST_TILE), SHORTEST_EDGE)
    for edge in range(largest, SHORTEST_EDGE - 1, -PHASE):
        tile = (options.tile,) * 3 if options.tile else choose_tile(shape_zyx, place.patch, options.border, edge,
                                                                    place.phase)
        tiles = TilePlan.cover(shape_zyx, tile, options.border, place.phase)
        batch = options.batch or min(place.batch, max(1, len(tiles)))
        plan = _plan(tiles, batch, options, place)
        while place.limit_bytes and plan.memory_bytes > place.limit_bytes and batch > 1 and not options.batch:
            batch //= 2
            plan = _plan(tiles, batch, options, place)
        if options.tile or not place.limit_bytes or plan.memory_bytes <= place.limit_bytes:
            break
    assert plan is not None
    plan = dataclasses.replace(plan, memory_bytes=max(plan.memory_bytes, place.base_bytes + before_bytes))
    if place.limit_bytes and plan.memory_bytes > place.limit_bytes:
        what = f"tiles of {options.tile}" if options.tile else "this model with its shortest tile"
        raise InputError(f"picking with {what} and a batch of {plan.batch} needs {gigabytes(plan.memory_bytes + 5e7)}, "
                         f"got {gigabytes(place.limit_bytes)} (--memory-limit, or what the GPU has): allow more"
                         f"{', or leave --tile out' if options.tile else ''}")
    return plan


def _plan(tiles: TilePlan, batch: int, options: PickOptions, place: Workplace) -> PickPlan:
    """Return the plan for given tiles; freed memory is kept for the next tile unless that takes much."""
    if place.is_gpu:
        return _with_memory(tiles, batch, options, place, is_lean=False)
    plan = _with_memory(tiles, batch, options, place, is_lean=place.limit_bytes > 0)
    if plan.is_lean or plan.memory_bytes <= USUAL_BYTES:
        return plan
    return _with_memory(tiles, batch, options, place, is_lean=True)


def _with_memory(tiles: TilePlan, batch: int, options: PickOptions, place: Workplace, is_lean: bool) -> PickPlan:
    """Return the plan for given tiles, the map in memory if it may be."""
    rest = place.limit_bytes - place.base_bytes - _CODE_BYTES if place.limit_bytes else 1 << 62
    strips = 4 * place.classes * math.prod(tiles.tile_zyx[:2]) * tiles.shape_zyx[2]  # two, of float16
    features = place.feature_bytes(tiles.tile_zyx, batch, is_lean) + strips + (0 if place.is_gpu else read_bytes(tiles))
    whole = map_bytes((place.classes, *tiles.shape_zyx))
    in_memory = rest - features if place.is_gpu else min(IN_MEMORY_BYTES, rest - features)
    held = whole if whole <= in_memory else 0
    kept = round(_BIAS_FEATURES * place.width * tiles.tile_voxels * place.itemsize)
    most = max(features, rest - held - kept) // _BLOCK_BYTES
    on_host = not place.is_gpu or not held  # a map in a scratch file is searched by the CPU
    if on_host:
        most = BLOCK_VOXELS if place.is_gpu else min(BLOCK_VOXELS, most)
    block, voxels = _block(tiles.shape_zyx, options.slab, place.halo, most)
    peaks = 0 if place.is_gpu and on_host else voxels * _BLOCK_BYTES
    memory = place.base_bytes + _CODE_BYTES + held + max(features, kept + peaks)
    seconds = tiles.voxels * place.seconds_per_voxel
    if seconds and not place.is_gpu:
        seconds += place.classes * math.prod(tiles.shape_zyx) * _SECONDS_PER_MAP_VOXEL
    return PickPlan(tiles, batch, block, held, memory, seconds, is_lean)


def _block(shape_zyx: Shape, slab: int, halo: int, most_voxels: int) -> Tuple[Tuple[int, int], int]:
    """Return planes and rows of a block that has at most so many voxels with its halo, and how many it has."""
    depth, height, width = shape_zyx
    if not slab and math.prod(shape_zyx) <= most_voxels:
        return (depth, height), math.prod(shape_zyx)
    planes = min(depth, slab or max(8, min(PLANES, most_voxels // ((8 + 2 * halo) * width) - 2 * halo)))
    deep = min(depth, planes + 2 * halo)
    rows = min(height, max(8, most_voxels // (deep * width) - 2 * halo))
    return (planes, rows), deep * min(height, rows + 2 * halo) * width
