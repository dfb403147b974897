"""OME-Zarr (OME-NGFF) tomograms: which arrays of a folder are the tomogram, at which voxel size, along which axes."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from typing import Any, List, Mapping, Optional, Sequence, Tuple, cast

import numpy as np

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.jsonvalues import objects
from deepetpicker.io.volumes.blocks import BlockArray, Layout, require_zarr
from deepetpicker.io.volumes.zarrmeta import ArrayFacts, is_inside, missing_files, read_facts, read_json
from deepetpicker.io.voxelsize import TOLERANCE, Given, resolve_voxel_size

MOST_LEVELS = 32
ALIGNED_VOX = 0.05  # of a voxel: levels that are farther off each other than this are not taken for one another
_ANGSTROM = {"angstrom": 1.0, "Å": 1.0, "nanometer": 10.0, "nm": 10.0, "micrometer": 1e4, "um": 1e4, "µm": 1e4,
             "millimeter": 1e7, "meter": 1e10, "picometer": 0.01}
_OLD_AXES = "tczyx"  # of versions before 0.3, which do not name them


@dataclasses.dataclass(frozen=True)
class Level:
    """One of the versions of a tomogram that an OME-Zarr folder holds.

    Parameters
    ----------
    voxel_size_ang : float
        Voxel size in angstrom.
    data_zyx : (Z, Y, X) array
        Its voxels, read when they are asked for; the first begins where the first of the tomogram does.
    """

    voxel_size_ang: float
    data_zyx: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Stored:
    """An array as the metadata describe it: lengths per element along z, y and x; 0 where nothing is said."""

    folder: pathlib.Path
    facts: ArrayFacts
    scale_zyx: Tuple[float, ...]
    shift_zyx: Tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a folder holds: its tomogram, coarser versions of it, and what is odd about them."""

    levels: Tuple[Level, ...]
    warnings: Tuple[str, ...]


def is_ngff(path: pathlib.Path) -> bool:
    """Tell whether a path is named as an OME-Zarr tomogram and is a folder."""
    return path.suffix.lower() == ".zarr" and path.is_dir()


def read_ngff(root: pathlib.Path, voxel_size_ang: Given) -> Contents:
    """Return the tomogram in an OME-Zarr folder; no voxel is read.

    Parameters
    ----------
    root : path
        The folder, ``NAME.zarr``.
    voxel_size_ang : float or mapping
        As of :func:`~deepetpicker.io.volumes.open_volume`.

    Raises
    ------
    InputError
        If zarr is not installed, something cannot be read, or the voxel size is unknown or not the same along all
        axes.
    FormatError
        If the folder holds no tomogram, or metadata that cannot be true.
    """
    require_zarr()
    image = _multiscale(root)
    names, factors = _axes(image, root)
    try:
        stored = _arrays(image, names, root)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"{root}: damaged OME-Zarr metadata ({type(error).__name__}: {error}): copy it again"
                          ) from error
    require_zarr(stored[0].facts.version)
    order = tuple(names.index(axis) for axis in "zyx")
    sizes_zyx = [scale * factor for scale, factor in zip(stored[0].scale_zyx, factors)]
    voxel, warnings = resolve_voxel_size(voxel_size_ang, sizes_zyx[::-1], str(root))
    warnings += _incomplete(stored[0])
    levels: List[Level] = []
    for number, one in enumerate(stored):
        layout, text = _layout(one, stored[0], order)
        if layout is None:
            warnings.append(f"version {one.folder.name} is not used: {text}")
            continue
        ratio = (_ratio(one, stored[0]) or 1.0) if number else 1.0
        data = BlockArray(root, one.folder, one.facts, layout)
        levels.append(Level(voxel * ratio, cast(np.ndarray, data)))  # it does what is asked of a memory map
    return Contents(tuple(levels), tuple(warnings))


def _multiscale(root: pathlib.Path) -> Mapping[str, Any]:
    """Return the metadata of the first image of a folder."""
    if os.path.exists(root / "zarr.json"):
        content = read_json(root / "zarr.json", root)
        attributes = content.get("attributes") or {}
        if isinstance(attributes, Mapping) and isinstance(attributes.get("ome"), Mapping):
            attributes = attributes["ome"]
    elif os.path.exists(root / ".zattrs"):
        attributes = read_json(root / ".zattrs", root)
    else:
        attributes = {}
    try:
        images = objects(attributes, "multiscales") if isinstance(attributes, Mapping) else []
    except InputError as error:
        raise FormatError(f"{root}: damaged OME-Zarr metadata ({error}): copy it again") from error
    if not images:
        raise FormatError(f"{root} holds no OME-Zarr image: expected 'multiscales' in its metadata (.zattrs or "
                          "zarr.json), found none; give the folder that has them, or write the tomogram as OME-Zarr")
    return images[0]


def _axes(image: Mapping[str, Any], root: pathlib.Path) -> Tuple[List[str], List[float]]:
    """Return the names of the stored axes, and angstrom per unit along z, y and x (0 without a unit of length)."""
    axes = image.get("axes") or list(_OLD_AXES)
    if not isinstance(axes, list) or not all(isinstance(axis, (str, Mapping)) for axis in axes):
        raise FormatError(f"{root}: expected a list of axes, found {str(axes)[:80]}")
    pairs = [(axis, None) if isinstance(axis, str) else (axis.get("name"), axis.get("unit")) for axis in axes]
    names = [str(name).lower() for name, _ in pairs]
    if len(set(names)) != len(names) or not {"x", "y", "z"} <= set(names):
        raise FormatError(f"{root}: expected axes x, y and z, each once, found {', '.join(names)[:80]}: a tomogram is "
                          "one 3D image")
    units = dict(zip(names, (unit for _, unit in pairs)))
    return names, [_ANGSTROM.get(str(units[axis]), 0.0) for axis in "zyx"]


def _arrays(image: Mapping[str, Any], names: Sequence[str], root: pathlib.Path) -> List[_Stored]:
    """Return the arrays of an image, the finest first."""
    listed = objects(image, "datasets")
    if not 0 < len(listed) <= MOST_LEVELS:
        raise FormatError(f"{root}: expected 1 to {MOST_LEVELS} datasets, found {len(listed)}")
    found: List[_Stored] = []
    for entry in listed:
        folder = _inside(root, entry.get("path"))
        facts = read_facts(folder, root)
        if len(facts.shape) != len(names):
            raise FormatError(f"{folder}: expected {len(names)} axes ({', '.join(names)}), found {len(facts.shape)}")
        if any(n > 1 for n, name in zip(facts.shape, names) if name not in "xyz"):
            raise FormatError(f"{folder} holds several volumes ({' x '.join(map(str, facts.shape))} along "
                              f"{', '.join(names)}): expected one; write each to a folder of its own")
        scale, shift = _transformed(entry, image, len(names), folder)
        order = [names.index(axis) for axis in "zyx"]
        if min(facts.shape[axis] for axis in order) < 2 and not found:
            raise FormatError(f"{folder} holds no 3D volume: expected x, y and z > 1, found "
                              f"{' x '.join(str(facts.shape[axis]) for axis in order[::-1])}")
        found.append(_Stored(folder, facts, tuple(scale[k] for k in order), tuple(shift[k] for k in order)))
    return found


def _inside(root: pathlib.Path, path: Any) -> pathlib.Path:
    """Return the folder of an array, or refuse a path that leads elsewhere."""
    if not isinstance(path, str) or not path or "\0" in path or pathlib.PurePath(path).is_absolute() \
            or ".." in pathlib.PurePath(path).parts or not is_inside(root / path, root):
        raise FormatError(f"{root}: expected the path of an array within the folder, found {str(path)[:60]!r}")
    return root / path


def _transformed(entry: Mapping[str, Any], image: Mapping[str, Any], n: int, folder: pathlib.Path
                 ) -> Tuple[List[float], List[float]]:
    """Return scale and translation along the stored axes, those of the array and then those of the image."""
    scale, shift = [0.0] * n, [0.0] * n
    steps = [*objects(entry, "coordinateTransformations")]
    if any(step.get("type") == "scale" for step in steps):
        scale = [1.0] * n
        steps += objects(image, "coordinateTransformations")
    for step in steps:
        kind = step.get("type")
        values: Any = step.get(str(kind))
        if kind == "identity":
            continue
        good = kind in ("scale", "translation") and isinstance(values, list) and len(values) == n and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)
        if not good or (kind == "scale" and min(values) <= 0):
            raise FormatError(f"{folder}: expected a scale > 0 or a translation of {n} numbers, found {str(step)[:80]}")
        if kind == "scale":
            scale, shift = ([a * b for a, b in zip(one, values)] for one in (scale, shift))
        else:
            shift = [a + b for a, b in zip(shift, values)]
    return scale, shift


def _ratio(one: _Stored, first: _Stored) -> Optional[float]:
    """Return how many voxels of the tomogram a voxel of a version is long; None when not the same along all axes."""
    if not min(one.scale_zyx) or not min(first.scale_zyx):
        return None
    ratios = [a / b for a, b in zip(one.scale_zyx, first.scale_zyx)]
    return ratios[0] if max(ratios) <= min(ratios) * (1 + TOLERANCE / 10) and max(ratios) >= 1 else None


def _layout(one: _Stored, first: _Stored, order: Tuple[int, ...]) -> Tuple[Optional[Layout], str]:
    """Return how an array becomes the tomogram or a version of it, or None and why it cannot."""
    shape, whole = ([s.facts.shape[axis] for axis in order] for s in (one, first))
    if one is not first:
        ratio = _ratio(one, first)
        if ratio is None:
            return None, "its voxels are not those of the first, scaled alike along all axes"
        apart = [abs(n - m / ratio) for n, m in zip(shape, whole)]
        if max(apart) > 1.001 or min(shape) < 2:
            return None, f"it has {' x '.join(map(str, shape[::-1]))} voxels, which does not cover the same box"
        if not _is_aligned(one, first, ratio):
            return None, "its translation does not fit that of the first"
        shape = [max(1, math.ceil(m / ratio - 1e-6)) for m in whole]
    z, y, x = shape
    a, b, c = order
    return Layout((a, b, c), (z, y, x)), ""


def _is_aligned(one: _Stored, first: _Stored, ratio: float) -> bool:
    """Tell whether the voxels of a version begin where those of the tomogram do.

    A translation is where the centre of the first voxel lies. Where all have the same one, as files do whose writer
    did not care, averaging of whole blocks is assumed, which keeps the outer edge.
    """
    moved = [(a - b) / s for a, b, s in zip(one.shift_zyx, first.shift_zyx, first.scale_zyx)]
    return (all(abs(m) <= 1e-6 for m in moved)
            or all(abs(m - (ratio - 1) / 2) <= ALIGNED_VOX * ratio for m in moved))


def _incomplete(one: _Stored) -> List[str]:
    """Return a warning when chunks of the tomogram are missing; refuse it when all are."""
    try:
        missing = missing_files(one.facts, one.folder)
    except OSError as error:
        raise InputError(f"cannot read the tomogram {one.folder}: {error.strerror or error}") from error
    if missing == one.facts.n_files:
        raise FormatError(f"{one.folder} holds none of its {missing} chunks: copy the tomogram again")
    return [f"{missing} of {one.facts.n_files} chunks are missing; their voxels have the fill value, as the format "
            "says: copy the tomogram again if it should have none such"] if missing else []
