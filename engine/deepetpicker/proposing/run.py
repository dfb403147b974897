"""The command ``propose``: candidates for every tomogram, ranked by their likeness to examples where there are some."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import pathlib
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np

from deepetpicker.config import ProposeOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.atomic import atomic_output
from deepetpicker.io.classes import ParticleClass, write_classes
from deepetpicker.io.coordinates import CoordinateTable, Frame, find_coordinates, read_coordinates, write_coordinates
from deepetpicker.io.items import DataItem, items_from_files, items_from_params
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.io.voxelsize import folder_size, given_sizes
from deepetpicker.preparation.scene import Scene
from deepetpicker.proposing.features import features_at, n_features
from deepetpicker.proposing.ranking import FEWEST, apart, rank_like, snapped
from deepetpicker.proposing.source import Finder, finder_of
from deepetpicker.terminal import progress

PathLike = Union[str, "os.PathLike[str]"]
log = logging.getLogger(__name__)

SNAP = 0.7  # particle radii within which a candidate is the example itself
SEPARATE = 0.75  # particle diameters within which ranked candidates are one
WIDER = 3  # times the candidates asked for are looked at when examples rank them


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """Candidates of a tomogram (N), their features (N, F), and those of its examples and counter-examples."""

    item: DataItem
    volume: Volume
    table: CoordinateTable
    features: np.ndarray
    examples: np.ndarray
    against: np.ndarray
    seconds: float


def propose(tomograms: Sequence[PathLike] = (), out: PathLike = "proposals", options: ProposeOptions = ProposeOptions(),
            params: Optional[Mapping[str, Any]] = None, like: PathLike = "", unlike: PathLike = "",
            quiet: bool = False) -> Dict[str, Any]:
    """Propose candidates in tomograms; one that fails does not stop the others.

    Parameters
    ----------
    tomograms : sequence of path
        Tomograms or folders; their file stems name the outputs. Left out when params has ``items``.
    out : path
        Folder for NAME.csv (best first), NAME_features.npy (a row of features per row of the table), classes.json and
        manifest.json.
    options : ProposeOptions
        Particle diameter, number of candidates, contrast.
    params : mapping, optional
        Content of a params.json; the ``coordinates`` of its items are examples.
    like, unlike : path
        Folders with coordinate files NAME.csv (or another format) of some examples, and of what is none of them.
        Three examples in all, of whatever tomogram, rank the candidates of all tomograms by their likeness to them.
    quiet : bool
        True shows no progress.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    InputError
        For bad options, fewer than three examples, or when not one tomogram could be read.
    """
    if not options.diameter_angstrom > 0:
        raise InputError("expected a particle diameter in angstrom, got none: give --diameter-angstrom")
    items = items_from_params(params) if params and params.get("items") else items_from_files(tomograms)
    manifest, folder = Manifest("propose", options.to_dict()), pathlib.Path(out)
    has_examples = bool(str(like)) or any(item.coordinates for item in items)
    finder = finder_of(options, folder, quiet)
    found: List[_Found] = []
    with progress(len(items), "proposing", "tomogram", quiet) as bar:
        for item in items:
            try:
                found.append(_candidates(item, options, like, unlike, has_examples, finder))
                manifest.add_input(found[-1].volume)
            except DeepETPickerError as error:
                log.error("%s: %s", item.name, error)
                manifest.add_item(item.name, "failed", str(error))
            bar.update(1)
    for text in finder.warnings:
        log.warning("%s", text)
        manifest.warn(text)
    for path in (options.map, like, unlike, *(item.coordinates for item in items)):
        if str(path) and pathlib.Path(path).is_file():
            manifest.add_file(path)
    if not found:
        raise InputError(f"none of {len(items)} tomogram(s) could be used; the first: {manifest.items[0]['reason']}")
    if has_examples:
        found = _ranked(found, options.diameter_angstrom, manifest)
    for one in found:
        _write(one, folder, options.most, manifest)
    write_classes(folder, [ParticleClass(1, "particle", options.diameter_angstrom)])
    manifest.outputs.update(folder=str(folder), features=n_features())
    manifest.write(folder / "manifest.json")
    return manifest.to_dict()


def _candidates(item: DataItem, options: ProposeOptions, like: PathLike, unlike: PathLike, wider: bool,
                finder: Finder) -> _Found:
    """Return the candidates of one tomogram with everything that is needed to rank them."""
    start = time.monotonic()
    sizes = given_sizes(options.voxel_size, item.voxel_size_ang, folder_size(item.tomogram))
    volume = open_volume(item.tomogram, sizes, item.name)
    scene = Scene.open(volume, options.diameter_angstrom)
    most = options.most * (WIDER if wider else 1)
    table = finder(volume, scene, most)
    if options.contrast == "auto" and scene.is_ambiguous:
        other = "dark" if scene.contrast == "bright" else "bright"
        finder.warnings.append(f"{item.name}: dark and bright places of this size stand out about alike, particles "
                               f"were taken to be {scene.contrast}: look at the candidates, and try the contrast "
                               f"'{other}' when they are none (hollow particles count by their inside)")
    features = features_at(scene, table.positions_zyx_vox)
    examples, against = (
        features_of(scene, _positions(volume, path), table.positions_zyx_vox, features, volume.voxel_size_ang)
        for path in (item.coordinates or _beside(like, item.name), _beside(unlike, item.name)))
    return _Found(item, volume, table, features, examples, against, time.monotonic() - start)


def features_of(scene: Scene, positions_zyx_vox: np.ndarray, candidates_zyx_vox: np.ndarray, features: np.ndarray,
                voxel_size_ang: float) -> np.ndarray:
    """Return the features (N, F) of examples at positions (N, 3): those of the candidate there, if there is one.

    Parameters
    ----------
    scene : Scene
        The tomogram.
    positions_zyx_vox : (N, 3) float
        Examples in its voxels.
    candidates_zyx_vox, features : (M, 3), (M, F) float
        Its candidates and their features.
    voxel_size_ang : float
        Its voxel size in angstrom.
    """
    radius_vox = scene.radius_vox * scene.grid.working_voxel_ang / voxel_size_ang
    rows, near = snapped(positions_zyx_vox, candidates_zyx_vox, SNAP * radius_vox)
    out = features_at(scene, positions_zyx_vox)
    out[near] = features[rows[near]]
    return out


def _beside(folder: PathLike, name: str) -> str:
    """Return the coordinate file of a tomogram in a folder; empty when there is none."""
    if not str(folder):
        return ""
    if not pathlib.Path(folder).is_dir():
        raise InputError(f"expected a folder of coordinate files, got {folder}")
    return str(find_coordinates(pathlib.Path(folder) / f"{name}.mrc") or "")


def _positions(volume: Volume, path: str) -> np.ndarray:
    """Return the positions (N, 3) of a coordinate file in the tomogram's voxels; N is 0 for no file."""
    if not path:
        return np.empty((0, 3))
    return read_coordinates(path, Frame(volume.voxel_size_ang, volume.shape_zyx, 0, volume.name)).positions_zyx_vox


def _ranked(found: Sequence[_Found], diameter_ang: float, manifest: Manifest) -> List[_Found]:
    """Return the candidates of all tomograms ranked by their likeness to all examples."""
    examples, against, every = (np.concatenate([getattr(one, name) for one in found])
                                for name in ("examples", "against", "features"))
    if len(examples) < FEWEST:
        raise InputError(f"expected at least {FEWEST} examples in all tomograms together, got {len(examples)}: label "
                         "more, or propose without examples")
    manifest.outputs.update(examples=len(examples), against=len(against))
    scores = np.split(rank_like(every, examples, against), np.cumsum([len(one.table) for one in found])[:-1])
    ranked = []
    for one, own in zip(found, scores):
        order = apart(one.table.positions_zyx_vox, own, SEPARATE * diameter_ang / one.volume.voxel_size_ang)
        table = dataclasses.replace(one.table, scores=own).select(order)
        ranked.append(dataclasses.replace(one, table=table, features=one.features[order]))
    return ranked


def _write(one: _Found, folder: pathlib.Path, most: int, manifest: Manifest) -> None:
    """Write table and features of one tomogram and record them."""
    name, table = one.item.name, one.table.select(np.arange(min(most, len(one.table))))
    frame = Frame(one.volume.voxel_size_ang, one.volume.shape_zyx, 0, name)
    write_coordinates(folder / f"{name}.csv", table, frame)
    stream = io.BytesIO()
    np.save(stream, one.features[:most].astype(np.float32), allow_pickle=False)
    with atomic_output(folder / f"{name}_features.npy") as part:
        part.write_bytes(stream.getvalue())
    log.info("%s: %d candidates (%.1f s)", name, len(table), one.seconds)
    if not len(table):
        manifest.warn(f"{name}: no candidates: is the diameter right, and the contrast?")
    manifest.add_item(name, "done", seconds=round(one.seconds, 3), picks=str(folder / f"{name}.csv"),
                      features=str(folder / f"{name}_features.npy"), n_picks=len(table))
