"""The command ``compare``: which picks of two tables are the same particle."""

from __future__ import annotations

import csv
import io
import os
import pathlib
import time
from typing import Any, Dict, List, Mapping, Optional, Union

from deepetpicker.config import CompareOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.evaluation.matching import Match, distance_candidates, take_most_pairs
from deepetpicker.io.atomic import write_text
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates, write_coordinates
from deepetpicker.io.items import check_names_differ, entries
from deepetpicker.io.manifest import Manifest

PathLike = Union[str, "os.PathLike[str]"]

_MEMBERS = ("name", "a", "b", "voxel_size", "shape", "tomogram")
_DEFAULTS = CompareOptions()


def compare(a: CoordinateTable, b: CoordinateTable, radius_vox: float, same_class: bool = False) -> Match:
    """Compare two pick sets of one tomogram one-to-one: intersection and both differences.

    Parameters
    ----------
    a, b : CoordinateTable
        Pick sets, (N,) and (M,) rows; either may be empty.
    radius_vox : float
        Picks at most this far apart may be the same particle, in voxels.
    same_class : bool
        Whether they must also be of the same class.

    Raises
    ------
    InputError
        If the radius is negative or NaN.
    """
    near = distance_candidates(a, b, float(radius_vox))
    if same_class:
        near = near.only(a.class_ids[near.truth_index] == b.class_ids[near.pick_index])
    return take_most_pairs(near)


def compare_files(a: PathLike = "", b: PathLike = "", out: PathLike = "comparison",
                  options: CompareOptions = _DEFAULTS, params: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """Compare the coordinate files of one or more tomograms and write the parts.

    Parameters
    ----------
    a, b : path
        Coordinate files of one tomogram. Left out when params has ``items``.
    out : path
        Folder for NAME_both.csv (rows of A that have a partner), NAME_only_a.csv, NAME_only_b.csv, NAME_pairs.csv (rows
        of A and B counted from 0, and their distance in voxels) and manifest.json.
    options : CompareOptions
        Radius in angstrom, voxel size, whether classes must agree.
    params : mapping, optional
        Content of a params.json; its ``items`` have ``name``, ``a``, ``b``, ``voxel_size`` (angstrom), ``shape`` (z, y,
        x voxels) and ``tomogram`` (its name inside the files); an empty ``a`` or ``b`` is an empty set.

    Returns
    -------
    dict
        The manifest; its items carry the paths ``both``, ``only_a``, ``only_b``, ``pairs``, counts and ``jaccard``.

    Raises
    ------
    InputError
        For bad items or options, or when nothing could be compared.
    """
    items = _items(a, b, params)
    if options.radius_angstrom <= 0:
        raise InputError(f"radius_angstrom must be > 0, got {options.radius_angstrom:g}: give --radius-angstrom, about "
                         "half the particle's diameter")
    folder, manifest = pathlib.Path(out), Manifest("compare", options.to_dict())
    for item in items:
        start = time.monotonic()
        try:
            facts = _compare_item(item, folder, options)
            manifest.add_item(item["name"], "done", seconds=round(time.monotonic() - start, 3), **facts)
        except DeepETPickerError as error:
            manifest.add_item(item["name"], "failed", str(error))
    manifest.write(folder / "manifest.json")
    if manifest.n_failed == len(items):
        raise InputError(f"no tomogram could be compared; {items[0]['name']}: {manifest.items[0]['reason']}")
    return manifest.to_dict()


def _items(a: PathLike, b: PathLike, params: Optional[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Return the items of params, or the one of the two files."""
    given = entries(params or {}, _MEMBERS)
    if not given:
        if not a or not b:
            raise InputError("expected two coordinate files A and B, or a parameter file with items: give both, or "
                             "--params FILE")
        return [{"name": pathlib.Path(a).stem, "a": str(a), "b": str(b)}]
    items: List[Dict[str, Any]] = []
    for number, entry in enumerate(given, start=1):
        name = str(entry.get("name") or pathlib.Path(str(entry.get("a") or entry.get("b") or number)).stem)
        items.append({**entry, "name": name})
    check_names_differ([item["name"] for item in items])
    return items


def _compare_item(item: Mapping[str, Any], folder: pathlib.Path, options: CompareOptions) -> Dict[str, Any]:
    """Compare the tables of one tomogram, write the parts and return the facts for the manifest."""
    voxel_ang = float(item.get("voxel_size") or options.voxel_size)
    if voxel_ang <= 0:
        raise InputError("the voxel size in angstrom is needed to compare positions in voxels: give --voxel-size")
    name, shape_zyx = str(item["name"]), tuple(item.get("shape") or options.shape)
    frame = Frame(voxel_ang, shape_zyx or None, tomogram=str(item.get("tomogram") or options.tomogram))  # type: ignore[arg-type]
    a, b = (read_coordinates(item[k], frame) if item.get(k) else CoordinateTable.empty() for k in ("a", "b"))
    found = compare(a, b, options.radius_angstrom / voxel_ang, options.same_class)
    paths = {key: folder / f"{name}_{key}.csv" for key in ("both", "only_a", "only_b", "pairs")}
    for key, table in (("both", a.select(found.truth_index)), ("only_a", a.select(found.only_a)),
                       ("only_b", b.select(found.only_b))):
        write_coordinates(paths[key], table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row_a", "row_b", "distance_voxels"])
    writer.writerows([i, j, f"{d:.4f}"] for i, j, d in zip(found.truth_index, found.pick_index, found.distances_vox))
    write_text(paths["pairs"], text.getvalue())
    return {**{k: str(p) for k, p in paths.items()}, "n_a": len(a), "n_b": len(b), "n_both": found.tp,
            "n_only_a": len(found.only_a), "n_only_b": len(found.only_b), "jaccard": found.jaccard}
