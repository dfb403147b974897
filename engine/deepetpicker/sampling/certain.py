"""What is certain of a tomogram beside its particles: places without one, and where everything was annotated."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from scipy.spatial import cKDTree

from deepetpicker.errors import InputError
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.coordinates import CoordinateTable, Frame, check_against_volume, read_coordinates
from deepetpicker.io.items import TOMOGRAM_SUFFIXES, DataItem
from deepetpicker.io.regions import read_regions
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.preparation.labels import balls

SAME_PLACE = 0.25  # of a diameter: a place without a particle this near to a particle contradicts it


def _no_places() -> np.ndarray:
    """Return no places, (0, 3)."""
    return np.zeros((0, 3))


def _no_boxes() -> np.ndarray:
    """Return no boxes, (0, 2, 3)."""
    return np.zeros((0, 2, 3))


def nearest(places_zyx_vox: np.ndarray, positions_zyx_vox: np.ndarray) -> np.ndarray:
    """Return how far the nearest of places (M, 3) is from each position (N, 3), (N,); infinite where there is none."""
    if not len(places_zyx_vox):
        return np.full(len(positions_zyx_vox), np.inf)
    return np.asarray(cKDTree(places_zyx_vox).query(positions_zyx_vox)[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Certain:
    """Places without a particle of any class, and the part of the tomogram in which all particles are annotated.

    Attributes
    ----------
    negatives_zyx_vox : (M, 3) float
        Places without a particle.
    boxes_zyx_vox : (K, 2, 3) float
        First and last edge of each box in which everything is annotated.
    mask : Volume, optional
        The same as a volume of the tomogram's shape: voxels > 0.
    grid : WorkingGrid, optional
        From the voxels of places and boxes, when they are working voxels, to those of the mask.
    is_partial : bool
        True when whoever annotated says that only the boxes or the mask are complete, of which there may be none.
    """

    negatives_zyx_vox: np.ndarray = dataclasses.field(default_factory=_no_places)
    boxes_zyx_vox: np.ndarray = dataclasses.field(default_factory=_no_boxes)
    mask: Optional[Volume] = None
    grid: Optional[WorkingGrid] = None
    is_partial: bool = False

    @property
    def has_regions(self) -> bool:
        """True if some part of the tomogram is annotated completely."""
        return bool(len(self.boxes_zyx_vox)) or self.mask is not None

    def counts(self) -> Dict[str, int]:
        """Return the numbers of places without a particle and of complete boxes (1 for a mask), where there are any."""
        found = {"negatives": len(self.negatives_zyx_vox),
                 "regions": len(self.boxes_zyx_vox) + (self.mask is not None)}
        return {name: n for name, n in found.items() if n}

    def digest(self) -> str:
        """Return a digest of all that is certain; empty when nothing is."""
        if not (self.has_regions or len(self.negatives_zyx_vox)):
            return ""
        parts = [np.ascontiguousarray(a, np.float64).tobytes() for a in (self.negatives_zyx_vox, self.boxes_zyx_vox)]
        if self.mask is not None:
            state = self.mask.path.stat()
            parts.append(f"{self.mask.path} {state.st_size} {state.st_mtime_ns}".encode())
        return hashlib.sha256(b"|".join(parts)).hexdigest()

    def on(self, grid: WorkingGrid) -> Certain:
        """Return the same on the working grid of the tomogram."""
        return dataclasses.replace(self, negatives_zyx_vox=grid.to_working(self.negatives_zyx_vox),
                                   boxes_zyx_vox=grid.to_working(self.boxes_zyx_vox), grid=grid)

    def without(self, table: CoordinateTable, diameter_vox: float) -> Tuple[Certain, int]:
        """Return the same without the places at which the table has a particle, and how many those were.

        Parameters
        ----------
        table : CoordinateTable
            Particles, on the same grid.
        diameter_vox : float
            Of the smallest class.
        """
        kept = nearest(table.positions_zyx_vox, self.negatives_zyx_vox) > SAME_PLACE * diameter_vox
        return dataclasses.replace(self, negatives_zyx_vox=self.negatives_zyx_vox[kept]), int((~kept).sum())

    def covers(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return which positions (N, 3) lie where everything is annotated, (N,) bool."""
        positions = np.asarray(positions_zyx_vox, float).reshape(-1, 1, 3)
        low, high = self.boxes_zyx_vox[:, 0], self.boxes_zyx_vox[:, 1]
        inside = ((positions >= low) & (positions <= high)).all(2).any(1)
        if self.mask is not None:
            lines = [self._of_mask(positions[:, 0, axis], axis) for axis in range(3)]
            inside |= np.asarray(self.mask.data_zyx[tuple(lines)]) > 0
        return np.asarray(inside, bool)

    def is_background(self, positions_zyx_vox: np.ndarray, radius_vox: float) -> np.ndarray:
        """Return which positions (N, 3) :meth:`background` would hold, (N,) bool."""
        apart = nearest(self.negatives_zyx_vox, np.asarray(positions_zyx_vox, float).reshape(-1, 3))
        return np.asarray(self.covers(positions_zyx_vox) | (apart <= radius_vox))

    def background(self, shape_zyx: Sequence[int], radius_vox: float, origin_zyx: Sequence[int]) -> np.ndarray:
        """Return where what is not annotated is certainly background, (Z, Y, X) bool.

        Parameters
        ----------
        shape_zyx : (3,) int
            Shape of a box of the tomogram.
        radius_vox : float
            So far about a place without a particle there is none.
        origin_zyx : (3,) int
            Voxel of the tomogram at which the box begins.
        """
        radii = np.full(len(self.negatives_zyx_vox), float(radius_vox))
        found = balls(shape_zyx, self.negatives_zyx_vox, radii, origin_zyx)
        lines = [o + np.arange(n) for o, n in zip(origin_zyx, shape_zyx)]
        for low, high in self.boxes_zyx_vox:
            z, y, x = ((line >= a) & (line <= b) for line, a, b in zip(lines, low, high))
            found |= z[:, None, None] & y[:, None] & x
        if self.mask is not None:
            found |= np.asarray(self.mask.data_zyx[np.ix_(*(self._of_mask(line, k) for k, line in enumerate(lines)))]
                                ) > 0
        return found

    def _of_mask(self, line: np.ndarray, axis: int) -> np.ndarray:
        """Return the voxels of the mask that hold positions along an axis, inside it."""
        assert self.mask is not None
        at = line if self.grid is None else self.grid.to_input(line)
        return np.clip(np.round(at).astype(int), 0, self.mask.shape_zyx[axis] - 1)


def read_certain(item: DataItem, volume: Volume) -> Tuple[Certain, List[str]]:
    """Return what is certain of a tomogram beside its particles, in its voxels, and warnings.

    Parameters
    ----------
    item : DataItem
        ``negatives`` is a table of any coordinate format, ``regions`` a table of boxes or an MRC mask.
    volume : Volume
        The tomogram.

    Raises
    ------
    InputError
        If a file cannot be read, most negatives or a box lie outside the tomogram, or a mask has another shape.
    """
    negatives, boxes, mask = _no_places(), _no_boxes(), None
    warnings: List[str] = []
    if item.negatives:
        frame = Frame(volume.voxel_size_ang, volume.shape_zyx, 0, item.name)
        table, warnings = check_against_volume(read_coordinates(item.negatives, frame), volume.shape_zyx,
                                               volume.voxel_size_ang, f"{item.name}, places without a particle")
        negatives = table.positions_zyx_vox
    if pathlib.Path(item.regions).suffix.lower() in TOMOGRAM_SUFFIXES:
        mask = open_volume(item.regions, volume.voxel_size_ang, f"{item.name}, regions")
        if mask.shape_zyx != volume.shape_zyx:
            raise InputError(f"{item.regions}: expected a mask of the tomogram's shape {volume.shape_zyx} (z, y, x), "
                             f"got {mask.shape_zyx}")
    elif item.regions:
        boxes = np.array([_edges(item, box, volume) for box in read_regions(item.regions)]).reshape(-1, 2, 3)
    return Certain(negatives, boxes, mask, is_partial=bool(item.regions)), warnings


def _edges(item: DataItem, box: object, volume: Volume) -> Tuple[np.ndarray, np.ndarray]:
    """Return the outer edges of a box inside the tomogram."""
    try:
        inside = box.clipped(volume.shape_zyx)  # type: ignore[attr-defined]
    except InputError as error:
        raise InputError(f"{item.regions}: {box} lies outside the tomogram of {volume.shape_zyx} voxels (z, y, x): "
                         "boxes count its voxels from 0") from error
    return np.array(inside.low_zyx_vox) - 0.5, np.array(inside.high_zyx_vox) + 0.5
