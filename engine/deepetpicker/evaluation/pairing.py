"""Which pick table belongs to which truth table, and what is known about their classes and tomograms."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any, Dict, List, Mapping, Tuple, Union

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.atomic import whole
from deepetpicker.io.coordinates import SUFFIXES, find_coordinates
from deepetpicker.io.items import TOMOGRAM_SUFFIXES, check_names_differ, entries
from deepetpicker.io.jsonvalues import number
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.volumes import tomogram_name

PathLike = Union[str, "os.PathLike[str]"]

INSTANCES_SUFFIX = "_instances"
_MEMBERS = ("name", "truth", "picks", "candidates", "tomogram", "instances", "seen", "voxel_size")
ROLES = ("", "training", "validation")


@dataclasses.dataclass(frozen=True)
class EvaluationItem:
    """The files of one tomogram; all names are opaque.

    Parameters
    ----------
    name : str
        Unique name of the tomogram.
    truth : str
        Table of the true particles.
    picks : str
        Table of the picks; empty when there is none, then every particle counts as missed.
    candidates : str
        Table of the picks at any score, for the curves; empty takes the picks.
    tomogram, instances : str
        Tomogram and instance mask; empty when there is none.
    voxel_size_ang : float
        Voxel size in angstrom; 0 reads the header.
    seen : str
        What the tomogram was to the model that picked: ``training`` or ``validation``; empty when it was neither or
        nobody knows.
    """

    name: str
    truth: str
    picks: str = ""
    candidates: str = ""
    tomogram: str = ""
    instances: str = ""
    voxel_size_ang: float = 0.0
    seen: str = ""


def items_from_folders(truth: PathLike, picks: PathLike) -> Tuple[List[EvaluationItem], List[str]]:
    """Pair the tables of two folders by name: the file names without suffix must be equal.

    Parameters
    ----------
    truth : path
        Holds ``NAME.csv`` (or another coordinate file), and where known ``NAME.mrc`` and ``NAME_instances.mrc``. In a
        folder with tomograms, tables without one count only if there are picks of that name.
    picks : path
        Holds ``NAME.csv`` (or another coordinate file). Where ``pick`` wrote its manifest.json, all candidates of a
        tomogram are found through it, for the curves.

    Returns
    -------
    items : list of EvaluationItem
        Sorted by name.
    warnings : list of str
        Picks without truth, which are left out.

    Raises
    ------
    InputError
        If a folder is missing or holds no table, or no name of one occurs in the other.
    """
    truth_tables, pick_tables = _tables(truth), _tables(picks)
    listed = _listed_candidates(pathlib.Path(picks))
    others = {path.stem for path in listed.values()}
    pick_tables = {name: path for name, path in pick_tables.items() if name not in others}
    tomograms = {tomogram_name(p): p for p in whole(pathlib.Path(truth).iterdir())
                 if p.suffix.lower() in TOMOGRAM_SUFFIXES}
    names = [n for n in truth_tables if not tomograms or n in tomograms or n in pick_tables]
    if not names:
        raise InputError(f"no table of true particles in {truth}: looked for NAME with one of {', '.join(SUFFIXES)}")
    if not set(names) & set(pick_tables):
        raise InputError(f"no table in {picks} has the name of one in {truth}: expected {_some(names)}, found "
                         f"{_some(list(pick_tables)) or 'no table at all'}; names must be equal up to the suffix")
    warnings = [f"{n}: picks without truth, left out" for n in pick_tables if n not in truth_tables]
    return [_item(n, truth_tables[n], pick_tables, tomograms, listed) for n in names], warnings


def items_from_params(params: Mapping[str, Any]) -> List[EvaluationItem]:
    """Return the items of a params.json.

    Each is an object with ``truth`` and optionally ``name``, ``picks``, ``candidates``, ``tomogram``, ``instances``,
    ``voxel_size`` (angstrom) and ``seen`` (``training`` or ``validation``).

    Raises
    ------
    InputError
        If an item has no truth, an unknown member or role, or a name that another one has.
    """
    items: List[EvaluationItem] = []
    for position, entry in enumerate(entries(params, _MEMBERS), start=1):
        texts = {key: str(entry.get(key) or "") for key in _MEMBERS[:-1]}
        if not texts["truth"]:
            raise InputError(f"item {position} needs a 'truth' table")
        if texts["seen"] not in ROLES:
            raise InputError(f"item {position}: 'seen' must be training, validation or empty, got {texts['seen']!r}")
        texts["name"] = texts["name"] or pathlib.Path(texts["truth"]).stem
        voxel_size_ang = number(entry.get("voxel_size") or 0.0, f"item {texts['name']}: voxel_size")
        items.append(EvaluationItem(**texts, voxel_size_ang=voxel_size_ang))
    check_names_differ([item.name for item in items])
    return items


def _tables(folder: PathLike) -> Dict[str, pathlib.Path]:
    """Return the coordinate files of a folder by name, sorted; of several with one name the preferred suffix."""
    path = pathlib.Path(folder)
    if not path.is_dir():
        raise InputError(f"{'expected a folder, got a file' if path.exists() else 'no such folder'}: {folder}")
    names = {p.stem for p in whole(path.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()}
    found = {name: find_coordinates(path / f"{name}.mrc") for name in sorted(names)}
    return {name: table for name, table in found.items() if table is not None}


def _listed_candidates(folder: pathlib.Path) -> Dict[str, pathlib.Path]:
    """Return the candidate tables that a manifest of ``pick`` in the folder lists, by the tomogram's name."""
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    try:
        entries = read_manifest(path).get("items") or []
    except (InputError, FormatError):
        return {}
    listed = {str(e.get("name")): folder / pathlib.PurePath(str(e["candidates"])).name for e in entries
              if isinstance(e, Mapping) and e.get("candidates")}
    return {name: table for name, table in listed.items() if table.is_file()}


def _item(name: str, truth: pathlib.Path, picks: Mapping[str, pathlib.Path], tomograms: Mapping[str, pathlib.Path],
          candidates: Mapping[str, pathlib.Path]) -> EvaluationItem:
    """Return the files of one name, with what lies beside its truth."""
    instances = [truth.with_name(name + INSTANCES_SUFFIX + suffix) for suffix in TOMOGRAM_SUFFIXES]
    mask = next((str(path) for path in instances if path.is_file()), "")
    return EvaluationItem(name, str(truth), str(picks.get(name, "")), str(candidates.get(name, "")),
                          str(tomograms.get(name, "")), mask)


def _some(names: List[str]) -> str:
    """Return the first few names for a message."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
