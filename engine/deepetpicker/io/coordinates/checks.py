"""Whether positions lie inside the tomogram and, when most do not, the likely cause."""

from __future__ import annotations

from typing import Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.errors import InputError
from deepetpicker.io.coordinates.table import CoordinateTable

_FITS = 0.9


def check_against_volume(table: CoordinateTable, shape_zyx: Sequence[int], voxel_size_ang: float,
                         name: str) -> Tuple[CoordinateTable, List[str]]:
    """Return the particles inside a tomogram, and warnings.

    Parameters
    ----------
    table : CoordinateTable
        Positions in voxels.
    shape_zyx : (3,) sequence of int
        Shape of the tomogram.
    voxel_size_ang : float
        Voxel size in angstrom; 0 when unknown.
    name : str
        Name of the tomogram, for messages.

    Returns
    -------
    tuple
        The table without positions outside the outer voxel edges, and the warnings.

    Raises
    ------
    InputError
        If more than half of the positions are outside (the likely cause is found by trying), or all are fractions of
        the tomogram's size.
    """
    _refuse_normalised(table, shape_zyx, name)
    inside = _inside(table.positions_zyx_vox, shape_zyx)
    outside = int((~inside).sum())
    dims = " x ".join(str(int(n)) for n in reversed(list(shape_zyx)))
    warnings = [text for text in (_class_like_x(table, name), _x_like_class(table, name)) if text]
    if outside == 0:
        return table, warnings
    first = table.positions_zyx_vox[np.flatnonzero(~inside)[0]][::-1]
    found = f"the first is x, y, z = {', '.join(f'{v:g}' for v in first)}"
    if 2 * outside > len(table):
        advice = _cause(table, np.asarray(shape_zyx), voxel_size_ang)
        raise InputError(f"{name}: {outside} of {len(table)} positions are outside the tomogram of {dims} voxels "
                         f"({found}): {advice}")
    warnings.append(f"{name}: {outside} of {len(table)} positions are outside the tomogram of {dims} voxels and are "
                    f"left out ({found})")
    return table.select(inside), warnings


def _refuse_normalised(table: CoordinateTable, shape_zyx: Sequence[int], name: str) -> None:
    """Raise InputError when all positions lie between 0 and 1 and not all are whole numbers."""
    positions = table.positions_zyx_vox
    if not len(table) or positions.min() < 0 or positions.max() > 1 or np.array_equal(positions, np.round(positions)):
        return
    depth, height, width = (int(n) for n in shape_zyx)
    raise InputError(f"{name}: expected positions in voxels, found all {len(table)} of them between 0 and 1 (the first "
                     f"is x, y, z = {', '.join(f'{v:g}' for v in positions[0, ::-1])}): they are fractions of the "
                     f"tomogram's size; multiply x by {width}, y by {height} and z by {depth}, and take 0.5 off each")


def _cause(table: CoordinateTable, shape_zyx: np.ndarray, voxel_size_ang: float) -> str:
    """Return the guess under which the positions fit and spread over most of the tomogram; ties go to the first."""
    best, widest = "check that they belong to this tomogram and are in voxels, x, y, z", -1.0
    for text, positions in _guesses(table, shape_zyx, voxel_size_ang):
        inside = _inside(positions, shape_zyx)
        if inside.mean() < _FITS:
            continue
        spread = float((np.ptp(positions[inside], axis=0) / shape_zyx).mean())
        if spread > widest + 1e-9:
            best, widest = text, spread
    return best


def _inside(positions_zyx_vox: np.ndarray, shape_zyx: Union[Sequence[int], np.ndarray]) -> np.ndarray:
    """Return a mask (N,) of the positions within the outer edges of the voxels."""
    edge = np.asarray(shape_zyx, dtype=np.float64) - 0.5
    return np.asarray(((positions_zyx_vox >= -0.5) & (positions_zyx_vox <= edge)).all(axis=1))


def _guesses(table: CoordinateTable, shape_zyx: np.ndarray,
             voxel_size_ang: float) -> Iterator[Tuple[str, np.ndarray]]:
    """Yield what may have gone wrong and the positions (N, 3) zyx that would be right then."""
    positions, half = table.positions_zyx_vox, shape_zyx / 2
    z, y, x = positions.T
    classes = table.class_ids.astype(np.float64)
    if voxel_size_ang > 0 and abs(voxel_size_ang - 1) > 0.01:
        yield (f"they fit when divided by the voxel size ({voxel_size_ang:g}): the table is in angstrom; divide it by "
               "the voxel size", positions / voxel_size_ang)
    if len(np.unique(classes)) > 5:
        yield ("they fit when the first column is taken as x, not as class: the columns are x y z and something else; "
               "add a header line that names them", np.stack([y, x, classes], axis=1))
    if _few_whole_numbers(x):
        depth = table.scores if np.isfinite(table.scores).all() else np.full(len(table), half[0])  # else z is lost
        shifted = np.stack([depth, z, y], axis=1)
        yield ("they fit when x, y, z are the columns after the one taken as x: a class column was taken as x; add a "
               "header line that names the columns", shifted)
    yield ("they fit when x, y, z is reversed: the columns are z, y, x; swap them or add a header line",
           positions[:, ::-1])
    if (positions < -0.5).any():
        yield ("they fit when counted from the tomogram's centre: add half its size", positions + half)
        if voxel_size_ang > 0:
            yield ("they fit as angstrom from the tomogram's centre (RELION 5): convert them with --from relion5 or "
                   "divide by the voxel size and add half the size", positions / voxel_size_ang + half)
    for factor in (2, 4, 8):
        yield (f"they fit when divided by {factor}: they were picked in a tomogram binned {factor} times less; scale "
               "them or use that tomogram", positions / factor)


def _few_whole_numbers(x: np.ndarray) -> bool:
    """Tell whether a column looks like class numbers: whole, small and few different ones."""
    return bool(np.array_equal(x, np.round(x)) and (x >= 0).all() and (x < 50).all()
                and len(np.unique(x)) <= max(1, len(x) // 2))


def _class_like_x(table: CoordinateTable, name: str) -> Optional[str]:
    """Return a warning when x, but neither y nor z, looks like a class column."""
    z, y, x = table.positions_zyx_vox.T
    if len(table) < 8 or len(np.unique(x)) > 3 or not _few_whole_numbers(x) or x.max() > 15:
        return None
    if min(len(np.unique(y)), len(np.unique(z))) <= 3:
        return None
    return (f"{name}: x takes only the values {', '.join(f'{v:g}' for v in np.unique(x))}: if that is the class "
            "column, add a header line that names the columns")


def _x_like_class(table: CoordinateTable, name: str) -> Optional[str]:
    """Return a warning when the class ids take as many values as coordinates do."""
    found = len(np.unique(table.class_ids))
    if len(table) < 8 or 2 * found <= len(table) or int(table.class_ids.max()) < 30:
        return None
    return (f"{name}: {len(table)} particles have {found} different classes: if the first column is x and not the "
            "class, add a header line that names the columns")
