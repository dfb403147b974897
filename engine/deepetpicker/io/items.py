"""Which tomogram goes with which coordinates: data folders and parameter files."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from typing import Any, Dict, List, Mapping, Sequence, Union

from deepetpicker.errors import InputError, suggestion
from deepetpicker.io.jsonvalues import number, objects
from deepetpicker.io.regions import NEGATIVES, REGIONS
from deepetpicker.io.volumes import is_ngff, require_zarr, tomogram_name

PathLike = Union[str, "os.PathLike[str]"]
log = logging.getLogger(__name__)

TOMOGRAM_SUFFIXES = (".mrc", ".rec", ".map", ".zarr")
MEMBERS = ("name", "tomogram", "coordinates", "voxel_size", "mask", "negatives", "regions")  # of an item in params.json
LONGEST_NAME = 220  # bytes: file systems take 255, and NAME_probability_CLASS.mrc is longer


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
    negatives, regions : str
        Paths of places without a particle, and of boxes (or a mask) in which everything is annotated; empty when there
        are none.
    """

    name: str
    tomogram: str
    coordinates: str = ""
    voxel_size_ang: float = 0.0
    mask: str = ""
    negatives: str = ""
    regions: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)


def check_name(name: str) -> None:
    """Refuse a name from which no files can be named in the output folder.

    Raises
    ------
    InputError
        For an empty name, one with a slash or a NUL character, one that begins with a dot, or one that is too long.
    """
    problem = ("is empty" if not name else "has a slash" if "/" in name else "has a NUL character" if "\0" in name
               else "begins with a dot" if name.startswith(".") else "is too long"
               if len(name.encode("utf-8", "replace")) > LONGEST_NAME else "")
    if not problem:
        try:
            name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            problem = "is no text"
    if problem:
        raise InputError(f"a tomogram's name names its tables: expected up to {LONGEST_NAME} bytes without a slash and "
                         f"without a dot in front, got {name[:60]!r}, which {problem}; rename it, or give it a 'name'")


def items_from_folder(folder: PathLike, need_coordinates: bool = True) -> List[DataItem]:
    """Return the tomograms of a data folder with the coordinates of the same name, sorted by name.

    Parameters
    ----------
    folder : path
        Holds ``NAME.mrc`` (``.rec``, ``.map``, or a folder ``NAME.zarr``) and, beside each, ``NAME.csv`` or another
        coordinate file, and where there are any ``NAME_negatives.csv`` (or another coordinate file) and
        ``NAME_regions.csv`` (or a mask, ``NAME_regions.mrc``). Instance masks, probability maps, hidden files and
        anything else are passed over.
    need_coordinates : bool
        True leaves out tomograms without coordinates, negatives and regions (with a warning).

    Raises
    ------
    InputError
        If the folder is missing, nothing is found, two tomograms share a name, or a package is missing to read them.
    """
    from deepetpicker.io.coordinates import SUFFIXES, find_coordinates

    tomograms: Dict[str, pathlib.Path] = {}
    by_stem: Dict[str, List[pathlib.Path]] = {}
    for path in sorted(_folder(folder).iterdir()):
        name = tomogram_name(path)
        by_stem.setdefault(name, []).append(path)
        if not is_tomogram(path):
            continue
        if name in tomograms:
            raise InputError(f"{tomograms[name].name} and {path.name} in {folder} have the same name: keep one of them")
        tomograms[name] = path
    if not tomograms:
        raise InputError(f"no tomograms in {folder}: looked for NAME with one of {', '.join(TOMOGRAM_SUFFIXES)}")
    items, alone = [], []
    for name, path in sorted(tomograms.items()):
        coordinates = find_coordinates(path, by_stem[name])
        negatives, regions = (_beside(path, end, tomograms, by_stem) for end in (NEGATIVES, REGIONS))
        if need_coordinates and not (coordinates or negatives or regions):
            alone.append(name)
        else:
            items.append(DataItem(name, str(path), str(coordinates or ""), negatives=negatives, regions=regions))
    if not items:
        raise InputError(f"no tomogram in {folder} has coordinates: looked beside {alone[0]} for a file of the same "
                         f"name with one of {', '.join(SUFFIXES)}")
    for name in alone:
        log.warning("%s: no coordinates beside the tomogram, left out", name)
    return _readable(items)


def _beside(tomogram: pathlib.Path, end: str, tomograms: Mapping[str, pathlib.Path],
            by_stem: Mapping[str, List[pathlib.Path]]) -> str:
    """Return the path of what an annotation says beside the particles; empty when it says nothing.

    A table that belongs to another tomogram, one with such a name, is that one's.
    """
    from deepetpicker.io.coordinates import find_coordinates

    stem = tomogram_name(tomogram) + pathlib.PurePath(end).stem
    if stem in tomograms:
        return ""
    files = by_stem.get(stem, [])
    if end == REGIONS:
        found = [p for p in files if p.suffix.lower() in (".csv", *TOMOGRAM_SUFFIXES) and p.is_file()]
        return str(found[0]) if found else ""
    return str(find_coordinates(tomogram.with_name(stem + tomogram.suffix), files) or "")


def items_from_files(paths: Sequence[PathLike]) -> List[DataItem]:
    """Return an item per tomogram file, named by its stem; folders stand for the tomograms they hold.

    Parameters
    ----------
    paths : sequence of path
        Tomograms or folders.

    Raises
    ------
    InputError
        If there are none, two have the same name, or a package is missing to read them.
    """
    items = [DataItem(tomogram_name(path), str(path)) for path in tomogram_files(paths)]
    if not items:
        raise InputError("expected at least one tomogram, or a folder with some, got none")
    check_names_differ([item.name for item in items], "tomograms", "their tables would overwrite each other; rename "
                       "one, or use two output folders")
    return _readable(items)


def tomogram_files(paths: Sequence[PathLike]) -> List[pathlib.Path]:
    """Return the tomograms among files and folders: files as they are, folders as the tomograms they hold."""
    files: List[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        files += ([pathlib.Path(item.tomogram) for item in items_from_folder(path, need_coordinates=False)]
                  if path.is_dir() and not is_ngff(path) else [path])
    return files


def check_names_differ(names: Sequence[str], what: str = "items", advice: str = "give every item its own name") -> None:
    """Refuse two tomograms of one name.

    Raises
    ------
    InputError
        Naming the first name that occurs twice, and the advice.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two {what} are named {twice!r}: {advice}")


def entries(params: Mapping[str, Any], members: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """Return the items of a params.json as they stand there.

    Raises
    ------
    InputError
        If they are no list of objects, or one has a member that is not among members.
    """
    found = objects(params, "items")
    for position, entry in enumerate(found, start=1):
        unknown = [key for key in entry if key not in members]
        if unknown:
            raise InputError(f"item {position}: unknown member {unknown[0]!r}"
                             f"{suggestion(str(unknown[0]), list(members))}")
    return found


def _folder(folder: PathLike) -> pathlib.Path:
    """Return the folder, or raise InputError when it is missing or a file."""
    path = pathlib.Path(folder)
    if not path.is_dir():
        raise InputError(f"{'expected a folder, got a file' if path.exists() else 'no such folder'}: {folder}")
    return path


def is_tomogram(path: pathlib.Path) -> bool:
    """Tell whether a file, or an OME-Zarr folder, is an input tomogram and not one of our own outputs beside it."""
    return (path.suffix.lower() in TOMOGRAM_SUFFIXES and not path.name.startswith(".")
            and (path.is_file() or is_ngff(path))
            and not path.stem.endswith(("_instances", pathlib.PurePath(REGIONS).stem))
            and "_probability_" not in path.stem)


def items_from_params(params: Mapping[str, Any]) -> List[DataItem]:
    """Return the items of a params.json (see docs/architecture.rst), in the order of the file.

    Raises
    ------
    InputError
        If an item has no tomogram, an unknown member or a name that another one has.
    """
    items: List[DataItem] = []
    for position, entry in enumerate(entries(params, MEMBERS), start=1):
        tomogram = str(entry.get("tomogram") or "")
        if not tomogram:
            raise InputError(f"item {position} needs a 'tomogram'")
        name = str(entry.get("name") or tomogram_name(tomogram))
        voxel = number(entry.get("voxel_size") or 0.0, f"item {name}: voxel_size")
        paths = {key: str(entry.get(key) or "") for key in ("coordinates", "mask", "negatives", "regions")}
        items.append(DataItem(name, tomogram, voxel_size_ang=voxel, **paths))
    check_names_differ([item.name for item in items])
    return _readable(items)


def _readable(items: List[DataItem]) -> List[DataItem]:
    """Return the items, or raise InputError when some need a package that is not installed: before anything starts."""
    if any(is_ngff(pathlib.Path(item.tomogram)) for item in items):
        require_zarr()
    return items
