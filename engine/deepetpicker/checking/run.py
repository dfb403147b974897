"""The command ``check``: whether the coordinates of each tomogram fit it."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.checking.faint import faint_places
from deepetpicker.checking.geometry import FEWEST, Fit, check_geometry, is_inside, shift_of_all
from deepetpicker.config import CheckOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.classes import (
    ParticleClass,
    check_diameters,
    classes_from_params,
    default_class,
    read_classes,
    with_diameters,
)
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates
from deepetpicker.io.items import DataItem, items_from_folder, items_from_params
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.io.voxelsize import Given, given_sizes

PathLike = Union[str, "os.PathLike[str]"]


def check(data: PathLike = "", out: Optional[PathLike] = None, options: CheckOptions = CheckOptions(),
          params: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """Tell for each tomogram whether its coordinates mark particles, and what would make them.

    Parameters
    ----------
    data : path
        Data folder as for ``train``. Left out when params has ``items``.
    out : path, optional
        Folder for manifest.json.
    options : CheckOptions
        Diameters and voxel size in angstrom.
    params : mapping, optional
        Content of a params.json.

    Returns
    -------
    dict
        The manifest; its items have ``text``, ``fits`` and per class ``n``, ``evidence``, ``chance``, ``best`` and
        ``shift_xyz_vox``.

    Raises
    ------
    InputError
        Without items or diameters.
    """
    items, classes, voxel = _input(data, params or {})
    manifest = Manifest("check", options.to_dict())
    found: Dict[str, List[Fit]] = {}
    for item in items:
        start = time.monotonic()
        try:
            volume, table = _read(item, given_sizes(options.voxel_size, item.voxel_size_ang, voxel))
            known = classes_of(classes, table, options.diameter_angstrom)
            fits, faint = check_table(volume, table, known), _faint(volume, table, known)
        except DeepETPickerError as error:
            manifest.add_item(item.name, "failed", str(error))
            continue
        manifest.add_input(volume)
        for one, fit in fits:
            found.setdefault(one.name, []).extend([] if fit is None else [fit])
        manifest.add_item(item.name, "done", seconds=round(time.monotonic() - start, 3),
                          text="; ".join([f"{one.name}: {said(fit)}" for one, fit in fits] + faint),
                          fits=all(fit is None or (fit.fits and not fit.is_shifted) for _, fit in fits),
                          classes=[{"id": one.id, "name": one.name, **_facts(fit)} for one, fit in fits])
    for name, several in found.items():
        text = shift_of_all(several)
        if text:
            manifest.warn(f"{name}, over {len(several)} tomograms: {text}")
    if out is not None:
        manifest.write(pathlib.Path(out) / "manifest.json")
    return manifest.to_dict()


def check_table(volume: Volume, table: CoordinateTable, classes: Sequence[ParticleClass],
                thorough: bool = True) -> List[Tuple[ParticleClass, Optional[Fit]]]:
    """Return for each class what the check of its particles found; None for fewer than can be judged.

    Parameters
    ----------
    volume : Volume
        The tomogram.
    table : CoordinateTable
        Its particles.
    classes : sequence of ParticleClass
        Classes with their diameters.
    thorough : bool
        False looks no further when coordinates fit as they are.
    """
    found: List[Tuple[ParticleClass, Optional[Fit]]] = []
    for one in classes:
        positions = table.positions_zyx_vox[table.class_ids == one.id]
        enough = len(positions) >= FEWEST
        found.append((one, check_geometry(volume, positions, one.diameter_ang, thorough) if enough else None))
    return found


def _faint(volume: Volume, table: CoordinateTable, classes: Sequence[ParticleClass]) -> List[str]:
    """Return what is said of single particles that stand out much less than the others."""
    inside = table.select(np.flatnonzero(is_inside(table.positions_zyx_vox, volume.shape_zyx)))
    found = [faint_places([volume], [inside], one) for one in classes]
    return [str(one) for one in found if one is not None]


def said(fit: Optional[Fit]) -> str:
    """Return in words what a check found."""
    return str(fit) if fit else f"fewer than {FEWEST} particles, too few to judge"


def classes_of(classes: Sequence[ParticleClass], table: CoordinateTable,
                   given_ang: Sequence[float]) -> List[ParticleClass]:
    """Return the classes that a table holds, each with a diameter.

    Raises
    ------
    InputError
        If a class has none.
    """
    seen = {int(c) for c in table.class_ids}
    listed = {one.id: one for one in classes}
    every = [listed.get(c, ParticleClass(c, table.class_names.get(c) or default_class(c).name))
             for c in sorted({*seen, *listed})]
    known = [one for one in with_diameters(every, given_ang) if one.id in seen]
    check_diameters(known)
    return known


def _input(data: PathLike, params: Mapping[str, Any]) -> Tuple[List[DataItem], Tuple[ParticleClass, ...], float]:
    """Return items, classes and the folder's voxel size in angstrom."""
    if params.get("items"):
        return items_from_params(params), classes_from_params(params), 0.0
    if not str(data):
        raise InputError("expected a data folder (--data DIR) or a --params file with items, got neither")
    classes, voxel = read_classes(data)
    return items_from_folder(data), classes_from_params(params) or classes, voxel


def _read(item: DataItem, voxel_size_ang: Given) -> Tuple[Volume, CoordinateTable]:
    """Return an item's tomogram and all its coordinates, those outside included."""
    volume = open_volume(item.tomogram, voxel_size_ang, item.name)
    if not item.coordinates:
        raise InputError(f"{item.name}: expected coordinates to check, got none")
    return volume, read_coordinates(item.coordinates, Frame(volume.voxel_size_ang, volume.shape_zyx, 0, item.name))


def _facts(fit: Optional[Fit]) -> Dict[str, Any]:
    """Return a fit as JSON-ready values."""
    if fit is None:
        return {}
    shift = None if fit.shift_zyx_vox is None else [round(float(v), 3) for v in np.flip(fit.shift_zyx_vox)]
    return {"n": fit.n, "evidence": round(fit.evidence, 2), "chance": round(fit.chance, 2), "best": str(fit.best),
            "best_evidence": round(fit.best_evidence, 2), "shift_xyz_vox": shift,
            "shift_error_vox": round(fit.shift_error_vox, 3) if shift else None}
