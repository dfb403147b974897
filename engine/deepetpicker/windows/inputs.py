"""What the command line gives the windows: tomograms, tables of particles and their classes."""

from __future__ import annotations

import logging
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from deepetpicker.annotation.records import AnnotatedTomogram
from deepetpicker.annotation.session import Session
from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass, default_class, read_classes
from deepetpicker.io.coordinates import (
    SUFFIXES,
    CoordinateTable,
    Frame,
    check_against_volume,
    find_coordinates,
    read_coordinates,
)
from deepetpicker.io.items import check_names_differ, items_from_params, tomogram_files
from deepetpicker.io.volumes import open_volume, tomogram_name
from deepetpicker.report.slices import DEFAULT_DIAMETER_VOX
from deepetpicker.windows.scene import Scene, TomogramFile, make_layer

log = logging.getLogger(__name__)


def find_tomograms(paths: Sequence[str], voxel_size_ang: float = 0.0, shown: Sequence[str] = (),
                   params: Optional[Mapping[str, Any]] = None) -> List[TomogramFile]:
    """Return the tomograms of files and folders.

    Parameters
    ----------
    paths : sequence of str
        Files, or folders that hold some.
    voxel_size_ang : float
        Voxel size in angstrom of all of them; 0 reads the headers.
    shown : sequence of str
        Other versions of the same tomograms, files of the same names or folders with them, to show in their place.
    params : mapping, optional
        Content of a params.json, whose items come first.

    Raises
    ------
    InputError
        If there are none, two have the same name, or a version that is to be shown belongs to none.
    """
    found = [(item.name, item.tomogram, item.voxel_size_ang) for item in items_from_params(params or {})]
    found += [(tomogram_name(path), str(path), voxel_size_ang) for path in tomogram_files(paths)]
    if not found:
        raise InputError("give at least one tomogram, or a folder with some")
    names = [name for name, _, _ in found]
    check_names_differ(names, "tomograms", "give files of different names")
    others = {tomogram_name(path): str(path) for path in tomogram_files(shown)}
    foreign = [name for name in others if name not in names]
    if foreign:
        raise InputError(f"{others[foreign[0]]} is to be shown, but none of the tomograms is named {foreign[0]!r}: "
                         "give it the name of its tomogram")
    return [TomogramFile(name, path, voxel, others.get(name, "")) for name, path, voxel in found]


def read_tables(tomograms: Sequence[TomogramFile], paths: Sequence[str], what: str = "--picks"
                ) -> Dict[str, CoordinateTable]:
    """Return the particles of tomograms, in their voxels, by name.

    Parameters
    ----------
    tomograms : sequence of TomogramFile
        Where they lie.
    paths : sequence of str
        Coordinate files named like the tomograms, or folders that hold them. A single file goes with a single
        tomogram whatever its name, and one that lists several tomograms with all of them.
    what : str
        What messages call the files.

    Raises
    ------
    InputError
        If a file belongs to no tomogram, or more than half of its positions lie outside.
    """
    tables: Dict[str, CoordinateTable] = {}
    for name, path in _pairs(tomograms, paths, what):
        tomogram = next(one for one in tomograms if one.name == name)
        volume = open_volume(tomogram.path, tomogram.voxel_size_ang, name, quiet=True)
        table = read_coordinates(path, Frame(volume.voxel_size_ang, volume.shape_zyx, tomogram=name))
        table, warnings = check_against_volume(table, volume.shape_zyx, volume.voxel_size_ang, f"{name} ({path})")
        for text in warnings:
            log.warning("%s", text)
        tables[name] = CoordinateTable.concatenate([tables[name], table]) if name in tables else table
    return tables


def table_files(tomograms: Sequence[TomogramFile], paths: Sequence[str]) -> List[str]:
    """Return the coordinate files of tomograms as they are now; those that cannot be told are left out."""
    try:
        return [str(file) for _, file in _pairs(tomograms, paths, "")]
    except InputError:
        return []


def _pairs(tomograms: Sequence[TomogramFile], paths: Sequence[str], what: str) -> List[Tuple[str, pathlib.Path]]:
    """Return which coordinate file belongs to which tomogram."""
    names, pairs = [one.name for one in tomograms], []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            found = [(name, find_coordinates(path / f"{name}.mrc")) for name in names]
            pairs += [(name, file) for name, file in found if file is not None]
            if not any(file for _, file in found):
                raise InputError(f"{what}: no coordinates in {path}: looked for {names[0]} with one of "
                                 f"{', '.join(SUFFIXES)}")
        elif path.stem in names:
            pairs.append((path.stem, path))
        elif not path.exists():
            raise InputError(f"{what}: no such file: {path}")
        elif len(names) == 1:
            pairs.append((names[0], path))
        elif path.suffix.lower() == ".star":
            pairs += [(name, path) for name in names]
        else:
            raise InputError(f"{what}: {path} belongs to none of the tomograms {', '.join(names[:4])}: expected a file "
                             "with the name of its tomogram")
    return pairs


def find_classes(tables: Mapping[str, CoordinateTable], places: Sequence[str],
                 given: Sequence[ParticleClass] = (), diameter_ang: float = 0.0) -> List[ParticleClass]:
    """Return the classes that occur in tables, and those that were given, with what is known of them.

    Parameters
    ----------
    tables : mapping
        Particles by tomogram.
    places : sequence of str
        Files and folders beside which a classes.json may lie; the first that has one counts.
    given : sequence of ParticleClass
        Says more than any file.
    diameter_ang : float
        Diameter in angstrom of the classes of which no diameter is known; 0 when that is not known either.
    """
    known: Dict[int, ParticleClass] = {}
    for place in map(pathlib.Path, places):
        folder = place if place.is_dir() else place.parent
        if folder.is_dir() and not known:
            known = {one.id: one for one in read_classes(folder)[0]}
    names = {i: name for table in tables.values() for i, name in table.class_names.items()}
    wanted = {one.id: one for one in given}
    ids = sorted({int(i) for table in tables.values() for i in table.class_ids} | set(wanted))
    found = []
    for one in ids:
        before = known.get(one, ParticleClass(one, names.get(one, default_class(one).name)))
        told = wanted.get(one, before)
        name = told.name if told.is_named else before.name
        found.append(ParticleClass(one, name, told.diameter_ang or before.diameter_ang or diameter_ang))
    return found


def picks_scene(tomograms: Sequence[TomogramFile], tables: Mapping[str, CoordinateTable],
                classes: Sequence[ParticleClass]) -> Scene:
    """Return the scene of tables, a layer per class."""
    layers = []
    for number, one in enumerate(classes):
        pieces = {name: [(t.positions_zyx_vox[t.class_ids == one.id], t.scores[t.class_ids == one.id])]
                  for name, t in tables.items()}
        layers.append(make_layer(number, one.name, one.diameter_ang, pieces))
    return Scene(tomograms, layers)


def prepare_session(session: Session, scene: Scene, start: Mapping[str, CoordinateTable],
                    classes: Sequence[ParticleClass]) -> List[str]:
    """Let a session know the tomograms of a scene, classes, and particles to start from.

    Parameters
    ----------
    session : Session
        May hold annotations already: they stay as they are.
    scene : Scene
        Its tomograms must be readable.
    start : mapping
        Particles by tomogram that nobody has looked at; they are taken over for tomograms that are new to the session.
    classes : sequence of ParticleClass
        Those that the session lacks are added; with none at all there is one, "particle".

    Returns
    -------
    list of str
        Tomograms whose start was passed over, since the session knows them.

    Raises
    ------
    InputError
        If a tomogram is not the one that was annotated.
    OutputError
        If the session cannot be written.
    """
    found = []
    for name, one in scene.files.items():
        volume = scene.header(name)
        found.append(AnnotatedTomogram(name, str(pathlib.Path(one.path).absolute()), volume.voxel_size_ang,
                                       volume.shape_zyx))
    new = session.set_tomograms(found)
    session.set_classes(classes)
    if not session.classes:
        session.set_classes([ParticleClass(1, "particle", DEFAULT_DIAMETER_VOX * found[0].voxel_size_ang)])
    session.set_start({name: table for name, table in start.items() if name in new and len(table)})
    return [name for name in start if name not in new]
