"""What an annotation says beside the particles: boxes that are annotated completely, and places without a particle.

Both lie beside the table of a tomogram, ``NAME_regions.csv`` and ``NAME_negatives.csv`` beside ``NAME.csv``.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from typing import List, Sequence, Tuple, Union

import numpy as np

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.atomic import write_text
from deepetpicker.io.plainfile import check_plain

PathLike = Union[str, "os.PathLike[str]"]
Voxel = Tuple[int, int, int]

NEGATIVES, REGIONS = "_negatives.csv", "_regions.csv"
REGION_COLUMNS = ("x_min", "y_min", "z_min", "x_max", "y_max", "z_max")


@dataclasses.dataclass(frozen=True)
class Region:
    """A box in which everything is annotated.

    Parameters
    ----------
    low_zyx_vox, high_zyx_vox : tuple of int
        First and last voxel z, y, x; both belong to the box.
    """

    low_zyx_vox: Voxel
    high_zyx_vox: Voxel

    def __post_init__(self) -> None:
        if len(self.low_zyx_vox) != 3 or len(self.high_zyx_vox) != 3:
            raise InputError(f"a region needs two voxels z, y, x, got {self.low_zyx_vox} and {self.high_zyx_vox}")
        if any(low > high for low, high in zip(self.low_zyx_vox, self.high_zyx_vox)):
            raise InputError(f"a region's first voxel must not lie beyond its last, got {self.low_zyx_vox} and "
                             f"{self.high_zyx_vox}")

    def contains(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return which of the positions (N, 3) lie in the box, up to the outer edges of its voxels, (N,) bool."""
        positions = np.asarray(positions_zyx_vox, float).reshape(-1, 3)
        low, high = np.array(self.low_zyx_vox) - 0.5, np.array(self.high_zyx_vox) + 0.5
        return np.asarray(((positions >= low) & (positions <= high)).all(axis=1))

    def clipped(self, shape_zyx: Sequence[int]) -> Region:
        """Return the part of the box inside a tomogram.

        Raises
        ------
        InputError
            If there is none.
        """
        last = np.array(shape_zyx) - 1
        low, high = np.clip(self.low_zyx_vox, 0, None), np.clip(self.high_zyx_vox, None, last)
        return Region(_voxel(low), _voxel(high))


def _voxel(values: np.ndarray) -> Voxel:
    """Return three whole numbers."""
    z, y, x = (int(v) for v in values)
    return z, y, x


def write_regions(path: PathLike, regions: Sequence[Region]) -> None:
    """Write boxes, complete or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    lines = [",".join(REGION_COLUMNS)]
    lines += [",".join(str(v) for v in (*one.low_zyx_vox[::-1], *one.high_zyx_vox[::-1])) for one in regions]
    write_text(path, "\n".join(lines) + "\n")


def read_regions(path: PathLike) -> List[Region]:
    """Return the boxes of a file.

    Raises
    ------
    InputError
        If the file cannot be read.
    FormatError
        If a column is missing, or a cell holds no whole number.
    """
    rows = _rows(path, REGION_COLUMNS)
    found = []
    for number, row in enumerate(rows, start=2):
        if any(value != int(value) for value in row):
            raise FormatError(f"{path}, line {number}: expected whole voxels, got {row}")
        x, y, z, a, b, c = (int(value) for value in row)
        try:
            found.append(Region((z, y, x), (c, b, a)))
        except InputError as error:
            raise FormatError(f"{path}, line {number}: {error}") from error
    return found


def write_negatives(path: PathLike, positions_zyx_vox: np.ndarray) -> None:
    """Write places (N, 3), z, y, x in voxels, where no particle of any class is, complete or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    positions = np.asarray(positions_zyx_vox, float).reshape(-1, 3)
    lines = ["x,y,z", *(f"{x!r},{y!r},{z!r}" for z, y, x in positions.tolist())]
    write_text(path, "\n".join(lines) + "\n")


def read_negatives(path: PathLike) -> np.ndarray:
    """Return the places of a file, (N, 3) z, y, x in voxels.

    Raises
    ------
    InputError
        If the file cannot be read.
    FormatError
        If a column is missing, or a cell holds no number.
    """
    rows = _rows(path, ("x", "y", "z"))
    return np.array(rows, float).reshape(-1, 3)[:, ::-1].copy()


def _rows(path: PathLike, columns: Sequence[str]) -> List[List[float]]:
    """Return the numbers of the named columns, a list per line."""
    check_plain(path, "a table")
    try:
        with open(pathlib.Path(path), newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise FormatError(f"{path}: the column {missing[0]} is missing; expected {', '.join(columns)}")
            rows = list(reader)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path} is not a table of comma-separated values ({error})") from error
    found = []
    for number, row in enumerate(rows, start=2):
        try:
            values = [float(row[name]) for name in columns]
        except (TypeError, ValueError) as error:
            raise FormatError(f"{path}, line {number}: expected a number in each of {', '.join(columns)}") from error
        if not np.isfinite(values).all():
            raise FormatError(f"{path}, line {number}: expected finite numbers, got {values}")
        found.append(values)
    return found
