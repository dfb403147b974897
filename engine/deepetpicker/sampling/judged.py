"""Which box of a held-out part is judged, and how much around it is looked at for that."""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

import numpy as np

from deepetpicker.preparation.resample import Slices
from deepetpicker.preparation.tiling import PHASE, TilePlan
from deepetpicker.sampling.patches import Annotated

CONTEXT = 0.75  # of the largest particle's diameter: so much is seen beyond a face that is none of the tomogram


def widened(box_zyx: Slices, shape_zyx: Sequence[int], diameter_vox: float) -> Slices:
    """Return a box with what lies around it in the tomogram, so that particles at its faces are seen whole.

    Half a particle, mirrored at a face that the tomogram does not have, looks like none: a network that has learnt more
    would be judged worse.

    Parameters
    ----------
    box_zyx : three slices
        What is judged, in the tomogram.
    shape_zyx : (3,) int
        Shape of the tomogram.
    diameter_vox : float
        Of the largest class.
    """
    margin = math.ceil(CONTEXT * diameter_vox)
    z, y, x = (slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(box_zyx, shape_zyx))
    return z, y, x


def within(box_zyx: Slices, positions_zyx_vox: np.ndarray) -> np.ndarray:
    """Return which positions (N, 3) lie in the voxels of a box, (N,) bool."""
    low, high = (np.array([getattr(s, edge) for s in box_zyx]) - 0.5 for edge in ("start", "stop"))
    return np.asarray(((positions_zyx_vox >= low) & (positions_zyx_vox < high)).all(1))


def shape_of(slices_zyx: Slices) -> Tuple[int, int, int]:
    """Return the shape of a box."""
    z, y, x = (s.stop - s.start for s in slices_zyx)
    return z, y, x


def crop_to_tiles(region: Annotated, tile: int, border: int, max_tiles: int, phase: int = PHASE) -> Slices:
    """Return the part of a region that needs at most max_tiles tiles and holds as many particles as it can.

    Parameters
    ----------
    region : Annotated
        Held-out part.
    tile, border : int
        Of the tiling, in voxels.
    max_tiles : int
        >= 1.
    phase : int
        Tiles start at multiples of it.
    """
    box = list(region.region_zyx)
    while True:
        lengths = [s.stop - s.start for s in box]
        plan = TilePlan.cover((lengths[0], lengths[1], lengths[2]), tile, border, phase)
        counts = [len(plan.z), len(plan.y), len(plan.x)]
        if len(plan) <= max_tiles or max(counts) == 1:
            return box[0], box[1], box[2]
        axis = int(np.argmax(counts))
        step = (tile - 2 * border) // phase * phase
        shorter = tile + (counts[axis] - 2) * step
        box[axis] = _densest(region, box, axis, min(shorter, lengths[axis] - 1))


def _densest(region: Annotated, box: List[slice], axis: int, length: int) -> slice:
    """Return the window of a length along an axis of the box that holds most of the region's particles.

    A particle of a class of n counts 1 / sqrt(n), so that a rare class is not cut off for a few more of a frequent one.
    """
    lo, hi = box[axis].start, box[axis].stop
    positions = region.positions_zyx_vox
    inside = np.ones(len(positions), bool)
    for other in range(3):
        inside &= (positions[:, other] >= box[other].start - 0.5) & (positions[:, other] < box[other].stop - 0.5)
    along, channels = positions[inside, axis], region.channels[inside]
    share = np.maximum(np.bincount(channels, minlength=1), 1)[channels] ** -0.5
    starts = np.arange(lo, hi - length + 1)
    held = np.array([share[(along >= s) & (along <= s + length - 1)].sum() for s in starts])
    best = np.flatnonzero(held > held.max() - 1e-9)
    start = int(starts[best[len(best) // 2]])
    return slice(start, start + length)
