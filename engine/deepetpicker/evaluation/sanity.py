"""Does a poor result come from the data? Hollow masks, and picks that would fit if swapped, flipped or scaled."""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional, Tuple

import numpy as np

from deepetpicker.evaluation.matching import match_by_distance
from deepetpicker.io.coordinates import CoordinateTable

FEWEST = 5


def outside_volume(table: CoordinateTable, shape_zyx: Tuple[int, int, int]) -> int:
    """Return how many positions lie outside a volume of shape_zyx voxels (Z, Y, X)."""
    positions = table.positions_zyx_vox
    return int(((positions < -0.5) | (positions > np.array(shape_zyx) - 0.5)).any(axis=1).sum())


def centres_outside_mask(truth: CoordinateTable, instances_zyx: np.ndarray) -> int:
    """Return how many true centres lie outside their own particle's instance mask (Z, Y, X)."""
    voxels = np.clip(np.rint(truth.positions_zyx_vox).astype(np.int64), 0, np.array(instances_zyx.shape) - 1)
    return int((np.asarray(instances_zyx[tuple(voxels.T)]).astype(np.int64) != np.arange(len(truth)) + 1).sum())


def geometry_hint(truth: CoordinateTable, picks: CoordinateTable, radius_vox: float,
                  shape_zyx: Optional[Tuple[int, int, int]] = None, voxel_size_ang: float = 0.0) -> str:
    """Return what to change about the picks so that they fit, or an empty string.

    Tried are swapped axes, flipped axes (when the shape is known), other binnings and angstrom taken for voxels. Said
    is only what finds at least half of what can be found and three times as much as the picks as they are.

    Parameters
    ----------
    truth, picks : CoordinateTable
        Positions in voxels.
    radius_vox : float
        Radius of a hit in voxels.
    shape_zyx : (3,) tuple of int, optional
        Shape of the tomogram in voxels.
    voxel_size_ang : float
        Voxel size in angstrom; 0 when unknown.
    """
    most = min(len(truth), len(picks))
    if most < FEWEST:
        return ""
    bar = max(FEWEST, most / 2, 3 * match_by_distance(truth, picks, radius_vox).tp)
    best, said = 0, ""
    for what, positions in _variants(picks.positions_zyx_vox, shape_zyx, voxel_size_ang).items():
        pairs = match_by_distance(truth, dataclasses.replace(picks, positions_zyx_vox=positions), radius_vox).tp
        if pairs >= bar and pairs > best:
            best, said = pairs, f"{pairs} of {len(truth)} particles would be found {what}"
    return said


def _variants(zyx: np.ndarray, shape_zyx: Optional[Tuple[int, int, int]],
              voxel_size_ang: float) -> Dict[str, np.ndarray]:
    """Return transformed positions (N, 3) by description."""
    out = {f"if {a} and {b} of the picks were swapped": zyx[:, order] for a, b, order in
           (("x", "z", [2, 1, 0]), ("y", "z", [1, 0, 2]), ("x", "y", [0, 2, 1]))}
    for axis, name in enumerate("zyx" if shape_zyx else ""):
        out[f"if {name} of the picks were flipped"] = np.where(
            np.arange(3) == axis, np.array(shape_zyx, float) - 1 - zyx, zyx)
    for factor in (2.0, 4.0, 0.5, 0.25):
        out[f"if the picks were scaled by {factor:g} (another binning?)"] = (zyx + 0.5) * factor - 0.5
    if voxel_size_ang > 1:
        out["if the picks were in angstrom, not voxels"] = zyx / voxel_size_ang
    return out
