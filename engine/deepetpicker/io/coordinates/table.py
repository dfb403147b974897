"""The one table of particle positions that all formats are read into and written from."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError


@dataclasses.dataclass(frozen=True)
class Frame:
    """What some file formats need to know about the tomogram, beside the table itself.

    Parameters
    ----------
    voxel_size_ang : float
        Voxel size in angstrom; 0 when unknown.
    shape_zyx : (3,) tuple of int, optional
        Tomogram shape in voxels, for formats that count from the centre.
    box_size_vox : int
        Box edge in voxels, for formats that store box corners; 0 when unknown.
    tomogram : str
        Name of the tomogram inside files that list several; matched exactly.
    """

    voxel_size_ang: float = 0.0
    shape_zyx: Optional[Tuple[int, int, int]] = None
    box_size_vox: int = 0
    tomogram: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.voxel_size_ang) and self.voxel_size_ang >= 0):
            raise InputError(f"voxel size must be >= 0 angstrom, got {self.voxel_size_ang}")
        if self.box_size_vox < 0:
            raise InputError(f"box size must be >= 0 voxels, got {self.box_size_vox}")
        if self.shape_zyx is not None and (len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1):
            raise InputError(f"tomogram shape must be three numbers >= 1 (z,y,x), got {self.shape_zyx}")


@dataclasses.dataclass(frozen=True, eq=False)
class CoordinateTable:
    """Particle positions of one tomogram in the one frame (zyx, 0-based, an integer is a voxel centre).

    Parameters
    ----------
    positions_zyx_vox : (N, 3) float64
        Positions in voxels; N may be 0.
    class_ids : (N,) int64
        Class of each particle, >= 0.
    scores : (N,) float64
        Score of each particle; NaN when unknown.
    class_names : dict of int to str
        Names of some or all class ids; may be empty.

    Raises
    ------
    InputError
        If shapes disagree, or a position is NaN or infinite.
    """

    positions_zyx_vox: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    class_names: Dict[int, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        positions = np.asarray(self.positions_zyx_vox, dtype=np.float64)
        classes, scores = np.asarray(self.class_ids), np.asarray(self.scores, dtype=np.float64)
        if positions.size == 0 and positions.ndim < 2:
            positions = positions.reshape(0, 3)
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise InputError(f"positions must have the shape (N, 3), got {positions.shape}")
        if classes.shape != (len(positions),) or scores.shape != (len(positions),):
            raise InputError(f"{len(positions)} positions need as many class ids and scores, got shapes "
                             f"{classes.shape} and {scores.shape}")
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(bad):
            raise InputError(f"positions must be finite numbers, got {positions[bad[0]].tolist()} in row {bad[0] + 1}")
        if classes.size and not np.array_equal(classes, classes.astype(np.int64)):
            raise InputError("class ids must be whole numbers")
        object.__setattr__(self, "positions_zyx_vox", positions)
        object.__setattr__(self, "class_ids", classes.astype(np.int64))
        object.__setattr__(self, "scores", scores)

    @classmethod
    def empty(cls) -> CoordinateTable:
        """Return a table without particles."""
        return cls(np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0))

    @classmethod
    def from_positions(cls, positions_zyx_vox: np.ndarray, class_id: int = 1) -> CoordinateTable:
        """Return a table of one class without scores from (N, 3) positions in voxels."""
        positions = np.asarray(positions_zyx_vox, dtype=np.float64).reshape(-1, 3)
        return cls(positions, np.full(len(positions), class_id, np.int64), np.full(len(positions), np.nan))

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.positions_zyx_vox)

    def select(self, index_or_mask: np.ndarray) -> CoordinateTable:
        """Return the rows that an integer index (M,) or a boolean mask (N,) chooses, in its order."""
        chosen = np.asarray(index_or_mask)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64).reshape(-1)
        return CoordinateTable(self.positions_zyx_vox[chosen].reshape(-1, 3), self.class_ids[chosen],
                               self.scores[chosen], dict(self.class_names))

    def renumbered(self, new_ids: Mapping[int, int]) -> CoordinateTable:
        """Return the table with other class ids; new_ids maps each that occurs, and names go with them.

        Raises
        ------
        InputError
            If a class occurs that has no new id.
        """
        lost = sorted(set(self.class_ids.tolist()) - set(new_ids))
        if lost:
            raise InputError(f"class {lost[0]} occurs, but only {', '.join(map(str, sorted(new_ids)))} are known: add "
                             "it to the classes")
        classes = np.array([new_ids[c] for c in self.class_ids.tolist()], np.int64)
        names = {new_ids[c]: name for c, name in self.class_names.items() if c in new_ids}
        return CoordinateTable(self.positions_zyx_vox, classes, self.scores, names)

    def sorted_by_score(self) -> CoordinateTable:
        """Return the rows best score first; ties keep their order, unknown scores come last."""
        return self.select(np.argsort(-np.where(np.isnan(self.scores), -np.inf, self.scores), kind="stable"))

    def equals(self, other: CoordinateTable) -> bool:
        """Tell whether both tables hold the same rows in the same order, to the bit (NaN scores are equal)."""
        return (np.array_equal(self.positions_zyx_vox, other.positions_zyx_vox)
                and np.array_equal(self.class_ids, other.class_ids)
                and np.array_equal(self.scores, other.scores, equal_nan=True)
                and self.class_names == other.class_names)

    def digest(self) -> str:
        """Return the SHA-256 of positions (to a thousandth of a voxel) and classes in the order of the rows."""
        positions = np.round(self.positions_zyx_vox, 3) + 0.0  # no negative zeros
        return hashlib.sha256(positions.astype("<f8").tobytes() + self.class_ids.astype("<i8").tobytes()).hexdigest()

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that tell these positions from others, whatever their order, classes and scores.

        Positions count in whole voxels, so that it survives another file format; whole and half voxels lie far from
        where the count goes on. An empty table gives an empty text.
        """
        places = np.unique(np.floor(self.positions_zyx_vox + 0.27).astype("<i4"), axis=0)
        return hashlib.sha256(places.tobytes()).hexdigest()[:16] if len(places) else ""

    @staticmethod
    def concatenate(tables: Sequence[CoordinateTable]) -> CoordinateTable:
        """Return one table with the rows of all, in order.

        Raises
        ------
        InputError
            If two tables give one class id different names.
        """
        names: Dict[int, str] = {}
        for table in tables:
            for class_id, name in table.class_names.items():
                if names.setdefault(class_id, name) != name:
                    raise InputError(f"class {class_id} is named {names[class_id]!r} in one table and {name!r} in "
                                     "another: use the same classes in all of them")
        if not tables:
            return CoordinateTable.empty()
        return CoordinateTable(np.concatenate([t.positions_zyx_vox for t in tables]),
                               np.concatenate([t.class_ids for t in tables]),
                               np.concatenate([t.scores for t in tables]), names)
