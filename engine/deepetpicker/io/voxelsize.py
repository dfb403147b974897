"""How large a voxel is: one rule for all commands.

The first that is known counts: what was asked for on the command line, what params.json says of the tomogram, what
classes.json beside it says, the tomogram's header. Many programs write 1 into the header when they do not know it, so
that 0 and 1 there count as unknown where anything else is known. Sources that differ by more than 1 % give a warning.
"""

from __future__ import annotations

import os
import pathlib
from typing import Dict, List, Mapping, Sequence, Tuple, Union

import numpy as np

from deepetpicker.errors import InputError
from deepetpicker.io.classes import read_classes

PathLike = Union[str, "os.PathLike[str]"]
Given = Union[float, Mapping[str, float]]

TOLERANCE = 0.01
OPTION, ITEM, FOLDER, HEADER = "--voxel-size", "params.json", "classes.json", "the header"
_GIVEN = "given"


def given_sizes(option_ang: float = 0.0, item_ang: float = 0.0, folder_ang: float = 0.0) -> Dict[str, float]:
    """Return what is said of a voxel size outside the header, by source, the one that counts first.

    Parameters
    ----------
    option_ang : float
        Of the command line, in angstrom; 0 when unknown, as for the others.
    item_ang : float
        Of the item in params.json.
    folder_ang : float
        Of classes.json in the data folder.
    """
    return {OPTION: option_ang, ITEM: item_ang, FOLDER: folder_ang}


def folder_size(tomogram: PathLike) -> float:
    """Return the voxel size in angstrom that classes.json beside a tomogram says; 0 when there is none."""
    folder = pathlib.Path(tomogram).parent
    return read_classes(folder)[1] if folder.is_dir() else 0.0


def resolve_voxel_size(given: Given, header_xyz_ang: Sequence[float] = (), name: str = "the tomogram"
                       ) -> Tuple[float, List[str]]:
    """Return the voxel size of a tomogram in angstrom, and warnings.

    Parameters
    ----------
    given : float or mapping
        What is known besides the header: :func:`given_sizes`, or one number; 0 is unknown.
    header_xyz_ang : sequence of float
        Voxel size along x, y and z in the header; empty or 0 is unknown.
    name : str
        File, for messages.

    Returns
    -------
    tuple
        The voxel size, 0.0 when there is no header and nothing is given, and warnings.

    Raises
    ------
    InputError
        If a number is no voxel size; if nothing is given and the header says nothing, or voxels that are not cubes.
    """
    sources = dict(given) if isinstance(given, Mapping) else {_GIVEN: float(given)}
    for source, value in sources.items():
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"voxel size must be a number >= 0 angstrom, got {value} ({source})")
    header = [float(size) for size in header_xyz_ang]
    known = {source: float(value) for source, value in sources.items() if value > 0}
    if not known:
        return _of_header(header, name) if header else (0.0, [])
    chosen, size = next(iter(known.items()))
    others = [(source, [value]) for source, value in known.items() if source != chosen]
    if header and min(header) > 0 and not _is_unset(header):
        others.append((HEADER, header))
    used = f"{size:g} was given and is used" if chosen == _GIVEN else f"{size:g} ({chosen}) is used"
    return size, [f"{source} says {_triple(values)} angstrom per voxel, {used}"
                  for source, values in others if max(abs(v - size) / size for v in values) > TOLERANCE]


def _of_header(sizes_xyz_ang: List[float], name: str) -> Tuple[float, List[str]]:
    """Return the header's voxel size, and warnings."""
    if min(sizes_xyz_ang) <= 0:
        raise InputError(f"{name} does not say its voxel size (header: {_triple(sizes_xyz_ang)}): give it with "
                         "--voxel-size")
    if max(sizes_xyz_ang) > min(sizes_xyz_ang) * (1 + TOLERANCE):
        raise InputError(f"{name} has voxels that are not cubes ({_triple(sizes_xyz_ang)} angstrom along x, y, z): "
                         "resample it to cubic voxels, or give the true size with --voxel-size if the header is wrong")
    if not _is_unset(sizes_xyz_ang):
        return sizes_xyz_ang[0], []
    return sizes_xyz_ang[0], ["the header says 1 angstrom per voxel, as files do whose voxel size nobody set; it is "
                              "used because nothing else is known: give the true one with --voxel-size"]


def _is_unset(sizes_xyz_ang: Sequence[float]) -> bool:
    """Tell whether a header says what programs write that do not know the voxel size."""
    return all(abs(size - 1) < 1e-4 for size in sizes_xyz_ang)


def _triple(values: Sequence[float]) -> str:
    """Return one number if all agree, else all three."""
    texts = [f"{v:.4g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)
