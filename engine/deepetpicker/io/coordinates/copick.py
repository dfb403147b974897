"""copick projects on a local disk: their picks and tomograms as a data folder, and picks of ours into one.

A project is a configuration file in JSON that names the objects and two folders: what is given (``static_root``) and
what is added (``overlay_root``, which may be the same). Below each lies ``ExperimentRuns/RUN/`` with
``Picks/USER_SESSION_OBJECT.json`` and ``VoxelSpacing10.000/TYPE.zarr``. A run is a tomogram's name.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import pathlib
import re
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple, Union

import numpy as np

from deepetpicker.errors import FormatError, InputError, suggestion
from deepetpicker.io.atomic import whole, write_text
from deepetpicker.io.classes import ParticleClass, classes_to_json, default_class, write_classes
from deepetpicker.io.coordinates.table import CoordinateTable
from deepetpicker.io.items import check_name
from deepetpicker.io.jsonvalues import number, objects, parse
from deepetpicker.io.plainfile import LARGEST_JSON, check_plain

log = logging.getLogger(__name__)
PathLike = Union[str, "os.PathLike[str]"]
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without links answer
_PARAMS = "params.json"
_RUNS, _PICKS, _SPACING = "ExperimentRuns", "Picks", "VoxelSpacing"
_IDENTITY = [[float(row == column) for column in range(4)] for row in range(4)]
_WORD = re.compile(r"^[^<>:\"/\\|?*\x00-\x20\x7f_]+$")  # what copick takes for a user, a session or an object


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which of what a project holds is meant; empty and 0 mean the only one there is.

    Parameters
    ----------
    user, session : str
        Of picks.
    kind : str
        Type of the tomograms: ``wbp``, ``denoised``.
    voxel_size_ang : float
        Of the tomograms, in angstrom.
    """

    user: str = ""
    session: str = ""
    kind: str = ""
    voxel_size_ang: float = 0.0


@dataclasses.dataclass(frozen=True)
class Project:
    """A copick project.

    Parameters
    ----------
    config : pathlib.Path
        Its configuration file.
    classes : tuple of ParticleClass
        Its particles: label, name and twice the radius.
    overlay, static : pathlib.Path
        Folders of what is added and of what is given.
    """

    config: pathlib.Path
    classes: Tuple[ParticleClass, ...]
    overlay: pathlib.Path
    static: pathlib.Path

    @property
    def runs(self) -> List[str]:
        """Names of the runs, sorted."""
        return sorted({name for root in (self.static, self.overlay) for name in _folders(root / _RUNS)})

    def folders(self, run: str, *parts: str) -> List[pathlib.Path]:
        """Return a folder of a run where it is given and where it is added, what is added last."""
        return [root.joinpath(_RUNS, run, *parts) for root in dict.fromkeys((self.static, self.overlay))]

    def picks(self, run: str) -> Dict[Tuple[str, str, str], pathlib.Path]:
        """Return the files of picks of a run by user, session and object."""
        found: Dict[Tuple[str, str, str], pathlib.Path] = {}
        for folder in self.folders(run, _PICKS):
            for path in whole(folder.glob("*.json")) if os.path.isdir(folder) else ():
                parts = path.stem.split("_")
                if len(parts) == 3:
                    found[parts[0], parts[1], parts[2]] = path
        return found

    def tomograms(self, run: str) -> Dict[Tuple[float, str], pathlib.Path]:
        """Return the tomograms of a run by voxel size in angstrom and type."""
        found: Dict[Tuple[float, str], pathlib.Path] = {}
        spacings = [folder / name for folder in self.folders(run) for name in _folders(folder) if _spacing(name)]
        for spacing in spacings:
            for kind in _folders(spacing):
                if kind.endswith(".zarr") and not kind.endswith("_features.zarr"):
                    found[_spacing(spacing.name), kind[:-len(".zarr")]] = spacing / kind
        return found


def is_project(path: PathLike) -> bool:
    """Tell whether a path is named as a configuration file of copick."""
    return pathlib.PurePath(path).suffix.lower() == ".json"


def open_project(config: PathLike) -> Project:
    """Return the project of a configuration file.

    Raises
    ------
    InputError
        If it cannot be read, or its data are not on a local disk.
    FormatError
        If it is no configuration of copick.
    """
    path = pathlib.Path(config)
    content = _read(path, "a configuration of copick")
    kind = content.get("config_type", "filesystem")
    if kind != "filesystem" or not isinstance(content.get("overlay_root"), str):
        raise FormatError(f"{path}: expected a copick project on a file system ('overlay_root'), found "
                          f"{'none' if kind == 'filesystem' else str(kind)[:40]!r}: copy its data to a local folder")
    try:
        listed = [entry for entry in objects(content, "pickable_objects") if entry.get("is_particle")]
        classes = tuple(_class(entry, place) for place, entry in enumerate(listed, start=1))
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    for key in ("name", "id"):
        values = [str(getattr(one, key)) for one in classes]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise FormatError(f"{path}: two objects have the {'label' if key == 'id' else key} {twice}: give each its "
                              "own")
    overlay = _local(content["overlay_root"], path)
    return Project(path, classes, overlay, _local(content.get("static_root") or content["overlay_root"], path))


def export_folder(project: Project, folder: PathLike, wanted: Wanted) -> Dict[str, int]:
    """Write the picks of a project as a data folder: a table and a link to the tomogram per run, and classes.json.

    Parameters
    ----------
    project : Project
        It is not changed.
    folder : path
        Gets ``RUN.csv`` and ``RUN.zarr``; there may be none of that name yet. Where the file system has no links,
        ``params.json`` names the tomograms instead.
    wanted : Wanted
        Which picks and which tomograms.

    Returns
    -------
    dict
        Particles per run.

    Raises
    ------
    InputError
        If it is not clear which picks or tomograms are meant, or none are.
    FormatError
        If a file of picks is damaged.
    OutputError
        If a file cannot be written.
    """
    from deepetpicker.io.coordinates import write_coordinates

    files = {run: project.picks(run) for run in project.runs}
    user, session = _chosen({key[:2] for found in files.values() for key in found}, (wanted.user, wanted.session),
                            ("--user", "--session"), f"{project.config}: picks")
    tomograms = {run: project.tomograms(run) for run in project.runs}
    size, kind = _chosen({key for found in tomograms.values() for key in found},
                         (wanted.voxel_size_ang, wanted.kind), ("--voxel-size", "--tomo-type"),
                         f"{project.config}: tomograms")
    tables = {run: _table(project, [path for key, path in sorted(found.items()) if key[:2] == (user, session)], size)
              for run, found in files.items() if any(key[:2] == (user, session) for key in found)}
    target = pathlib.Path(folder)
    there = [name for run in tables for name in (f"{run}.csv", f"{run}.zarr", _PARAMS)
             if os.path.lexists(target / name)]
    if there:
        raise InputError(f"{target / there[0]} is there already: expected a folder without it, give another one")
    paths = {run: os.path.abspath(tomograms[run][size, kind]) for run in tables if (size, kind) in tomograms[run]}
    for run, table in tables.items():
        check_name(run)
        write_coordinates(target / f"{run}.csv", table)
    write_classes(target, project.classes, size)
    if not all(_link(path, target / f"{run}.zarr") for run, path in paths.items()):
        items = [{"name": run, "tomogram": path, "coordinates": str((target / f"{run}.csv").absolute()),
                  "voxel_size": size} for run, path in paths.items()]
        params = {"items": items, "classes": classes_to_json(project.classes)}
        write_text(target / _PARAMS, json.dumps(params, indent=1) + "\n")
        log.warning("%s: this file system has no links, %s names the tomograms: use it as train --params %s", target,
                    _PARAMS, target / _PARAMS)
    return {run: len(table) for run, table in tables.items()}


def import_tables(project: Project, tables: Mapping[str, CoordinateTable], sizes_ang: Mapping[str, float],
                  classes: Sequence[ParticleClass], wanted: Wanted) -> List[pathlib.Path]:
    """Write particles into a project, one file per run and class; all of them are checked before one is written.

    Parameters
    ----------
    project : Project
        Its overlay folder gets the files; none that is there is replaced.
    tables : mapping
        Particles by run.
    sizes_ang : mapping
        Voxel size that each table counts in, in angstrom.
    classes : sequence of ParticleClass
        What the ids in the tables mean.
    wanted : Wanted
        User and session under which they are written.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If the project has no such run or object, picks of that user and session are there already, or a name cannot be
        one in copick.
    OutputError
        If a file cannot be written.
    """
    for flag, word in (("--user", wanted.user), ("--session", wanted.session)):
        if not _WORD.match(word):
            raise InputError(f"{flag}: expected a word without blanks, underscores, slashes and colons, got {word!r}")
    known, runs = {one.name for one in project.classes}, project.runs
    contents: Dict[pathlib.Path, Dict[str, Any]] = {}
    for run, table in tables.items():
        if run not in runs:
            raise InputError(f"{project.config} has no run {run!r}{suggestion(run, runs)}: expected the picks' names "
                             f"to be those of its runs ({', '.join(runs[:6]) or 'none'})")
        for class_id in sorted(set(table.class_ids.tolist())):
            name = next((one.name for one in classes if one.id == class_id), default_class(class_id).name)
            if name not in known:
                raise InputError(f"{project.config} has no object {name!r}{suggestion(name, sorted(known))}: expected "
                                 f"one of {', '.join(sorted(known)) or 'none'}; add it to pickable_objects, or give "
                                 "the class the name it has there (classes.json beside the picks)")
            path = project.folders(run, _PICKS)[-1] / f"{wanted.user}_{wanted.session}_{name}.json"
            if (wanted.user, wanted.session, name) in project.picks(run):
                raise InputError(f"{path} is there already: give another --session")
            contents[path] = _content(run, name, wanted, table.select(table.class_ids == class_id), sizes_ang[run])
    for path, content in contents.items():
        write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return list(contents)


def _content(run: str, name: str, wanted: Wanted, table: CoordinateTable, voxel_size_ang: float) -> Dict[str, Any]:
    """Return the picks of one object in a run as copick writes them."""
    rows = zip((table.positions_zyx_vox[:, ::-1] * voxel_size_ang).tolist(), table.scores.tolist())
    points = [{"location": dict(zip("xyz", place)), "transformation_": _IDENTITY, "instance_id": 0,
               "score": score if np.isfinite(score) else 1.0} for place, score in rows]
    return {"pickable_object_name": name, "user_id": wanted.user, "session_id": wanted.session, "run_name": run,
            "voxel_spacing": voxel_size_ang, "unit": "angstrom", "points": points, "trust_orientation": False}


def _link(path: str, link: pathlib.Path) -> bool:
    """Make a link to a tomogram; False where there are no links."""
    try:
        os.symlink(path, link)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True


def _table(project: Project, files: Sequence[pathlib.Path], voxel_size_ang: float) -> CoordinateTable:
    """Return the particles in files of picks of one run, in voxels."""
    tables = []
    for path in files:
        content = _read(path, "picks of copick")
        name = content.get("pickable_object_name")
        one = next((c for c in project.classes if c.name == name), None)
        if one is None:
            raise FormatError(f"{path}: {str(name)[:60]!r} is no particle of {project.config}: expected one of "
                              f"{', '.join(c.name for c in project.classes) or 'none'}")
        if content.get("unit", "angstrom") != "angstrom":
            raise FormatError(f"{path}: expected angstrom, found {str(content['unit'])[:40]!r}")
        try:
            points = [_point(point) for point in objects(content, "points")]
        except (InputError, TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise FormatError(f"{path}: damaged picks ({error}): expected points with a location x, y, z of finite "
                              "numbers") from error
        values = np.array(points, float).reshape(-1, 4)
        tables.append(CoordinateTable(values[:, 2::-1] / voxel_size_ang, np.full(len(values), one.id), values[:, 3],
                                      {one.id: one.name}))
    return CoordinateTable.concatenate(tables)


def _point(point: Mapping[str, Any]) -> List[float]:
    """Return x, y, z in angstrom, the shift of the transformation added, and score."""
    matrix = point.get("transformation_") or _IDENTITY
    place = [float(point["location"][axis]) + float(row[3]) for axis, row in zip("xyz", matrix)]
    if not np.isfinite(place).all() or len(place) != 3:
        raise InputError(f"found {place}")
    score = point.get("score")
    return [*place, float("nan") if score is None else float(score)]


def _chosen(found: Set[Any], given: Tuple[Any, Any], flags: Tuple[str, str], what: str) -> Tuple[Any, Any]:
    """Return the only pair that fits what was given, or raise InputError listing the pairs there are."""
    fit = [pair for pair in sorted(found) if all(
        not want or (abs(want - have) < 0.005 if isinstance(want, float) else want == have)
        for want, have in zip(given, pair))]
    if len(fit) != 1:
        pairs = "; ".join(f"{flags[0]} {a} {flags[1]} {b}" for a, b in sorted(fit or found)[:8])
        raise InputError(f"{what}: expected one kind, found {len(fit)}{': choose one of ' + pairs if pairs else ''}")
    return fit[0]


def _class(entry: Mapping[str, Any], place: int) -> ParticleClass:
    """Return an object of a configuration as a class."""
    name = entry.get("name")
    if not isinstance(name, str) or not _WORD.match(name):
        raise InputError(f"object {place}: expected a name without blanks, underscores and slashes, found "
                         f"{str(name)[:60]!r}")
    label = number(entry.get("label", 1), f"object {name}: label", "a whole number >= 0")
    if label != int(label) or label >= 2 ** 63:
        raise InputError(f"object {name}: expected a whole number below 2^63 as its label, found {label:g}")
    return ParticleClass(int(label), name, 2 * number(entry.get("radius") or 0.0, f"object {name}: radius"))


def _local(root: Any, path: pathlib.Path) -> pathlib.Path:
    """Return a root of a configuration as a folder."""
    text = str(root)
    scheme, _, rest = text.rpartition("://")
    if scheme not in ("", "local", "file") or not rest or "\0" in rest:
        raise InputError(f"{path}: expected a local folder, found {text[:80]!r}: copy the project's data to one")
    try:
        os.fsencode(rest)
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: expected a local folder, found {text[:80]!r}: no name can have that") from error
    return pathlib.Path(rest)


def _read(path: pathlib.Path, what: str) -> Mapping[str, Any]:
    """Return the object in a JSON file."""
    check_plain(path, what, LARGEST_JSON)
    try:
        content = parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise FormatError(f"{path}: expected {what}, found no valid JSON ({error})") from error
    if not isinstance(content, Mapping):
        raise FormatError(f"{path}: expected {what}, found {type(content).__name__}")
    return content


def _folders(place: pathlib.Path) -> List[str]:
    """Return the names of the folders in a folder; none when it is missing."""
    try:
        return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _spacing(name: str) -> float:
    """Return the voxel size in angstrom in the name of a folder, 0 when it is none."""
    try:
        size = float(name[len(_SPACING):]) if name.startswith(_SPACING) else 0.0
    except ValueError:
        return 0.0
    return size if np.isfinite(size) and size > 0 else 0.0
