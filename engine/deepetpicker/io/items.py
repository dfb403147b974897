"""Which tomogram goes with which coordinates: data folders, parameter files and particle classes."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import pathlib
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

from deepetpicker.errors import FormatError, InputError, suggestion
from deepetpicker.io.atomic import write_text

PathLike = Union[str, "os.PathLike[str]"]
log = logging.getLogger(__name__)

TOMOGRAM_SUFFIXES = (".mrc", ".rec", ".map")
CLASSES_FILE = "classes.json"


@dataclasses.dataclass(frozen=True)
class DataItem:
    """One tomogram and what belongs to it; all names are opaque.

    Parameters
    ----------
    name : str
        Unique name of the tomogram.
    tomogram, coordinates, mask : str
        Paths; empty when there is none.
    voxel_size_ang : float
        Voxel size in angstrom; 0 reads the header.
    """

    name: str
    tomogram: str
    coordinates: str = ""
    voxel_size_ang: float = 0.0
    mask: str = ""


@dataclasses.dataclass(frozen=True)
class ParticleClass:
    """A kind of particle: id (>= 1), name and diameter in angstrom (0 when unknown)."""

    id: int
    name: str
    diameter_ang: float = 0.0


def items_from_folder(folder: PathLike, need_coordinates: bool = True) -> List[DataItem]:
    """Return the tomograms of a data folder with the coordinates of the same name, sorted by name.

    Parameters
    ----------
    folder : path
        Holds ``NAME.mrc`` (``.rec``, ``.map``) and, beside each, ``NAME.csv`` or another coordinate file. Instance
        masks, probability maps, hidden files and anything else are passed over.
    need_coordinates : bool
        True leaves out tomograms without coordinates (with a warning).

    Raises
    ------
    InputError
        If the folder is missing, nothing is found, or two tomograms share a name.
    """
    from deepetpicker.io.coordinates import SUFFIXES, find_coordinates

    tomograms: Dict[str, pathlib.Path] = {}
    by_stem: Dict[str, List[pathlib.Path]] = {}
    for path in sorted(_folder(folder).iterdir()):
        by_stem.setdefault(path.stem, []).append(path)
        if not _is_tomogram(path):
            continue
        if path.stem in tomograms:
            raise InputError(f"{tomograms[path.stem].name} and {path.name} in {folder} have the same name: keep one of "
                             "them")
        tomograms[path.stem] = path
    if not tomograms:
        raise InputError(f"no tomograms in {folder}: looked for NAME with one of {', '.join(TOMOGRAM_SUFFIXES)}")
    items, alone = [], []
    for name, path in sorted(tomograms.items()):
        coordinates = find_coordinates(path, by_stem[name])
        if coordinates is None and need_coordinates:
            alone.append(name)
        else:
            items.append(DataItem(name, str(path), str(coordinates or "")))
    if not items:
        raise InputError(f"no tomogram in {folder} has coordinates: looked beside {alone[0]} for a file of the same "
                         f"name with one of {', '.join(SUFFIXES)}")
    for name in alone:
        log.warning("%s: no coordinates beside the tomogram, left out", name)
    return items


def _folder(folder: PathLike) -> pathlib.Path:
    """Return the folder, or raise InputError when it is missing or a file."""
    path = pathlib.Path(folder)
    if not path.is_dir():
        raise InputError(f"{'expected a folder, got a file' if path.exists() else 'no such folder'}: {folder}")
    return path


def _is_tomogram(path: pathlib.Path) -> bool:
    """Tell whether a file is an input tomogram and not one of our own outputs beside it."""
    return (path.suffix.lower() in TOMOGRAM_SUFFIXES and not path.name.startswith(".") and path.is_file()
            and not path.stem.endswith("_instances") and "_probability_" not in path.stem)


def items_from_params(params: Mapping[str, Any]) -> List[DataItem]:
    """Return the items of a params.json (see docs/architecture.rst), in the order of the file.

    Raises
    ------
    InputError
        If an item has no tomogram, an unknown member or a name that another one has.
    """
    known = {"name": "name", "tomogram": "tomogram", "coordinates": "coordinates", "voxel_size": "voxel_size_ang",
             "mask": "mask"}
    items: List[DataItem] = []
    for number, entry in enumerate(_entries(params, "items"), start=1):
        unknown = [key for key in entry if key not in known]
        if unknown:
            raise InputError(f"item {number}: unknown member {unknown[0]!r}{suggestion(unknown[0], list(known))}")
        tomogram = str(entry.get("tomogram") or "")
        if not tomogram:
            raise InputError(f"item {number} needs a 'tomogram'")
        name = str(entry.get("name") or pathlib.Path(tomogram).stem)
        voxel = _number(entry.get("voxel_size") or 0.0, f"item {name}: voxel_size")
        items.append(DataItem(name, tomogram, str(entry.get("coordinates") or ""), voxel,
                              str(entry.get("mask") or "")))
    names = [item.name for item in items]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two items are named {twice[0]!r}: give every item its own name")
    return items


def classes_from_params(params: Mapping[str, Any]) -> Tuple[ParticleClass, ...]:
    """Return the particle classes of a params.json or classes.json; empty when it lists none.

    Raises
    ------
    InputError
        If an entry has no valid id or diameter, or an id comes twice.
    """
    classes = []
    for number, entry in enumerate(_entries(params, "classes"), start=1):
        identity = _number(entry.get("id"), f"class {number}: id")
        if identity != int(identity) or identity < 1:
            raise InputError(f"class {number}: id must be a whole number >= 1, got {entry.get('id')!r}")
        diameter = _number(entry.get("diameter_angstrom") or 0.0, f"class {number}: diameter_angstrom")
        classes.append(ParticleClass(int(identity), str(entry.get("name") or f"class_{int(identity)}"), diameter))
    identities = [one.id for one in classes]
    if len(set(identities)) < len(identities):
        raise InputError(f"class ids must differ, got {identities}")
    return tuple(sorted(classes, key=lambda one: one.id))


def _entries(params: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """Return a list of objects from a mapping, empty when it is absent."""
    entries = params.get(key) or []
    if not isinstance(entries, (list, tuple)) or not all(isinstance(e, Mapping) for e in entries):
        raise InputError(f"{key!r} must be a list of objects")
    return entries


def _number(value: Any, what: str) -> float:
    """Return a finite number >= 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"{what} must be a number >= 0, got {value!r}")
    return number


def read_classes(folder: PathLike) -> Tuple[Tuple[ParticleClass, ...], float]:
    """Return the particle classes of a data folder and its voxel size in angstrom.

    Returns
    -------
    tuple
        Classes sorted by id and voxel size; ``((), 0.0)`` when the folder has no classes.json.

    Raises
    ------
    FormatError
        If classes.json is damaged.
    """
    path = _folder(folder) / CLASSES_FILE
    if not path.exists():
        return (), 0.0
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        voxel = _number(content.get("voxel_size_angstrom") or 0.0, "voxel_size_angstrom")
        return classes_from_params(content), voxel
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise FormatError(f"{path} is not a valid list of classes: {error}") from error


def write_classes(folder: PathLike, classes: Sequence[ParticleClass], voxel_size_ang: float) -> None:
    """Write the particle classes of a data folder as classes.json.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    content = {"voxel_size_angstrom": float(voxel_size_ang),
               "classes": [{"id": int(c.id), "name": c.name, "diameter_angstrom": float(c.diameter_ang)}
                           for c in classes]}
    write_text(pathlib.Path(folder) / CLASSES_FILE, json.dumps(content, indent=1) + "\n")
