"""Between Scipion's sets and the engine's items and tables.

The engine counts voxels from 0 with integers at voxel centres: Scipion's BOTTOM_LEFT_CORNER, in the order x, y, z.
Scipion stores positions relative to a tomogram's origin; here that origin is read once per tomogram.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from tomo.constants import SCIPION
from tomo.objects import Coordinate3D, SetOfCoordinates3D, SetOfTomograms, Tomogram

from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates

Classes = Dict[int, Tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tomogram is: what is needed to move positions between files, sets and binnings.

    Attributes
    ----------
    tsId : str
        Identity of the tomogram in Scipion.
    fileName : str
        Path relative to the project.
    samplingRate : float
        Voxel size in angstrom.
    dims : (3,) int
        Size x, y, z in voxels.
    shifts : (3,) float
        Scipion's origin: position of voxel (0, 0, 0) in angstrom, x, y, z.
    """

    tsId: str
    fileName: str
    samplingRate: float
    dims: Tuple[int, int, int]
    shifts: Tuple[float, float, float]

    @classmethod
    def of(cls, tomogram: Tomogram, samplingRate: Optional[float] = None) -> Place:
        """Return the place of a tomogram; the sampling rate is the set's where given, never the header's."""
        x, y, z = tomogram.getDim()
        a, b, c = (float(s) for s in tomogram.getShiftsFromOrigin())
        rate = float(samplingRate or tomogram.getSamplingRate())
        return cls(tomogram.getTsId(), localFile(tomogram.getFileName()), rate, (int(x), int(y), int(z)), (a, b, c))

    @property
    def origin_xyz_vox(self) -> np.ndarray:
        """Position of voxel (0, 0, 0) in Scipion's stored coordinates, (3,) x, y, z in voxels."""
        return np.array(self.shifts) / self.samplingRate


def localFile(fileName: str) -> str:
    """Return a path without Scipion's suffix that names a reader (``tomo.mrc:mrc``)."""
    head, _, tail = fileName.rpartition(":")
    return head if head and tail.lower() in ("mrc", "mrcs") else fileName


def tomogramsOf(tomograms: SetOfTomograms) -> Dict[str, Tomogram]:
    """Return clones of the tomograms of a set by tsId, in the set's order (its one cursor is free afterwards)."""
    return {t.getTsId(): t.clone() for t in tomograms.iterItems()}


def itemOf(place: Place, **paths: str) -> Dict[str, Any]:
    """Return the engine's item of a tomogram; paths are its other members (``coordinates``, ``truth``, ...)."""
    return {"name": place.tsId, "tomogram": place.fileName, "voxel_size": place.samplingRate, **paths}


def itemUnread(tomogram: Tomogram, **paths: str) -> Dict[str, Any]:
    """Return the engine's item of a tomogram whose file is not looked at: it may be damaged or missing."""
    return {"name": tomogram.getTsId(), "tomogram": localFile(tomogram.getFileName()),
            "voxel_size": float(tomogram.getSamplingRate()), **paths}


def parseNumbers(text: Optional[str], what: str) -> List[float]:
    """Return the numbers of a form field, separated by commas or blanks.

    Raises
    ------
    InputError
        If there is anything else in it.
    """
    try:
        return [float(word) for word in (text or "").replace(",", " ").replace(";", " ").split()]
    except ValueError as error:
        raise InputError(f"{what}: expected numbers separated by commas, got {text!r}") from error


@dataclasses.dataclass(frozen=True)
class Rows:
    """The coordinates of one tomogram.

    Attributes
    ----------
    objIds : (N,) list of int
        Ids of the items in the set, in its order.
    positions_xyz_vox : (N, 3) float64
        Positions counted from voxel (0, 0, 0), x, y, z.
    groups : (N,) list of int
        Group ids.
    scores : (N,) list of float
        Scores.
    """

    objIds: List[int]
    positions_xyz_vox: np.ndarray
    groups: List[int]
    scores: List[float]

    def table(self, classOfGroup: Dict[int, int], positions_xyz_vox: Optional[np.ndarray] = None) -> CoordinateTable:
        """Return the engine's table of the rows, with positions in another tomogram's voxels where given."""
        xyz = self.positions_xyz_vox if positions_xyz_vox is None else positions_xyz_vox
        return CoordinateTable(np.asarray(xyz, float).reshape(-1, 3)[:, ::-1],
                               np.array([classOfGroup[g] for g in self.groups], np.int64),
                               np.array(self.scores, float), {})


def readCoordinates(coordinates: SetOfCoordinates3D) -> Tuple[Dict[str, Rows], Dict[str, Place]]:
    """Return the coordinates of a set by tomogram, and the tomograms they were picked in.

    One pass over the set: no header is read and no other query is made while its cursor is in use.

    Returns
    -------
    tuple of dict
        Rows and places by tsId; places of all precedents, in their order.
    """
    places = {ts: Place.of(t) for ts, t in tomogramsOf(coordinates.getPrecedents()).items()}
    found: Dict[str, List[Tuple[int, float, float, float, int, float]]] = {}
    for item in coordinates.iterItems():
        found.setdefault(item.getTomoId(), []).append(
            (item.getObjId(), item._x.get(), item._y.get(), item._z.get(), item.getGroupId() or 0,
             item.getScore() or 0.0))
    rows = {}
    for tsId, values in found.items():
        if tsId in places:
            xyz = np.array([v[1:4] for v in values], float) - places[tsId].origin_xyz_vox
            rows[tsId] = Rows([v[0] for v in values], xyz, [int(v[4]) for v in values], [float(v[5]) for v in values])
    return rows, places


def transfer(positions_xyz_vox: np.ndarray, source: Place, target: Place) -> np.ndarray:
    """Return positions (N, 3), x, y, z, of one tomogram in the voxels of another of the same tsId.

    Two tomograms that cover the same box (within two of the larger voxels) are other binnings or filterings of each
    other: their centres coincide, as in tomo's own *extract 3D coordinates*, whatever origins they were imported with.
    Otherwise one is a part of the other and Scipion's origins say where.
    """
    xyz = np.asarray(positions_xyz_vox, float).reshape(-1, 3)
    factor = source.samplingRate / target.samplingRate
    extents = np.array([p.dims for p in (source, target)]) * np.array([[source.samplingRate], [target.samplingRate]])
    if np.abs(extents[0] - extents[1]).max() <= 2 * max(source.samplingRate, target.samplingRate):
        middle = [np.array(p.dims) / 2 for p in (source, target)]
        return (xyz - middle[0]) * factor + middle[1]
    return (xyz + source.origin_xyz_vox) * factor - target.origin_xyz_vox


def writeTable(folder: str, tsId: str, table: CoordinateTable) -> str:
    """Write a table as TSID.csv into a folder; return its path."""
    path = os.path.join(folder, f"{tsId}.csv")
    write_coordinates(path, table)
    return path


def appendTable(target: SetOfCoordinates3D, tomogram: Tomogram, place: Place, table: CoordinateTable) -> None:
    """Append the rows of a table, in the tomogram's voxels, to a set.

    Parameters
    ----------
    target : SetOfCoordinates3D
        Grows by the rows.
    tomogram : Tomogram
        A clone of the tomogram they lie in.
    place : Place
        Where it is.
    table : CoordinateTable
        Class ids become group ids; unknown scores become 0.
    """
    stored = table.positions_zyx_vox[:, ::-1] + place.origin_xyz_vox
    scores = np.nan_to_num(table.scores, nan=0.0)
    for (x, y, z), classId, score in zip(stored.tolist(), table.class_ids.tolist(), scores.tolist()):
        coordinate = Coordinate3D()
        coordinate.setVolume(tomogram)
        coordinate.setPosition(x, y, z, SCIPION)
        coordinate.setGroupId(classId)
        coordinate.setScore(score)
        target.append(coordinate)


def boxSize(diameter_ang: float, samplingRate: float) -> int:
    """Return the box size of a set of picks, in voxels: the particle's diameter, at least one voxel."""
    return max(1, round(diameter_ang / samplingRate))


def inBoth(length_ang: float, samplingRate: float) -> str:
    """Return a length as users read it: ``200 Å (20 voxels)``."""
    return f"{length_ang:g} Å ({length_ang / samplingRate:.1f} voxels)" if samplingRate else f"{length_ang:g} Å"


def isSame(first: Any, second: Any) -> bool:
    """Tell whether two sets are the same one of a project."""
    return None not in (first, second) and (first is second or bool(first.getFileName() == second.getFileName()))


def counted(count: int, word: str, ending: str = "s") -> str:
    """Return a number with its word: ``1 particle``, ``3 particles``."""
    return f"{count} {word}{'' if count == 1 else ending}"
