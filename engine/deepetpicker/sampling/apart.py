"""How near particles of a class come to each other, from a complete annotation: picks that are nearer are one.

Between two large particles that touch, their two halves look like a third one. Half a diameter, which tells picks
apart where nothing is known, leaves it; the nearest pair that was annotated says more (docs/studies.rst).
"""

from __future__ import annotations

import dataclasses
from typing import Sequence, Tuple

import numpy as np
from scipy.spatial import cKDTree

from deepetpicker.io.classes import same_particle
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.modelcard import ClassCard

FEWEST = 20  # particles of a class say how near they come
NEARER = 0.9  # of the nearest pair: a pair that was not annotated may be nearer, and picks are not exact
LEAST, MOST = 0.5, 0.6  # of the diameter


def with_distances(classes: Sequence[ClassCard], tables: Sequence[CoordinateTable], voxel_sizes_ang: Sequence[float],
                   is_complete: bool, earlier: Sequence[ClassCard] = ()) -> Tuple[ClassCard, ...]:
    """Return classes with the least distance between two of their picks, where the particles tell it.

    Parameters
    ----------
    classes : sequence of ClassCard
        Of a training.
    tables : sequence of CoordinateTable
        Particles of each tomogram, in its voxels.
    voxel_sizes_ang : sequence of float
        Of the tomograms.
    is_complete : bool
        False where many particles are not annotated: the nearest pairs may be among these.
    earlier : sequence of ClassCard
        Of the model to start from: what it knows of a class stays known.
    """
    found = []
    for one in classes:
        known = [other.apart_ang for other in earlier if same_particle(one, other) and other.apart_ang]
        n = sum(int((table.class_ids == one.id).sum()) for table in tables)
        if is_complete and n >= FEWEST:
            known = [NEARER * nearest_ang(one.id, tables, voxel_sizes_ang)]
        low, high = LEAST * one.diameter_ang, MOST * one.diameter_ang
        found.append(dataclasses.replace(one, apart_ang=float(np.clip(known[0], low, high))) if known else one)
    return tuple(found)


def nearest_ang(class_id: int, tables: Sequence[CoordinateTable], voxel_sizes_ang: Sequence[float]) -> float:
    """Return the distance in angstrom of the nearest two particles of a class; infinite where no tomogram has two."""
    least = float("inf")
    for table, voxel in zip(tables, voxel_sizes_ang):
        places = table.positions_zyx_vox[table.class_ids == class_id]
        if len(places) > 1:
            least = min(least, voxel * float(cKDTree(places).query(places, k=2)[0][:, 1].min()))
    return least
