"""Tables of an annotation for *train* and others: each time a new folder, never over an earlier one."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
from typing import Any, Dict, List, Optional

import numpy as np

from deepetpicker.annotation.annotations import Annotations
from deepetpicker.annotation.session import SNAPSHOT_FILE, Session
from deepetpicker.errors import OutputError
from deepetpicker.io.atomic import explain, write_text
from deepetpicker.io.classes import classes_to_json, write_classes
from deepetpicker.io.coordinates import write_coordinates
from deepetpicker.io.items import is_tomogram
from deepetpicker.io.regions import NEGATIVES, REGIONS, write_negatives, write_regions

VERSION = "version_{:03d}"
_NAME = re.compile(r"version_(\d+)$")
PARAMS_FILE = "params.json"


def versions(folder: pathlib.Path) -> List[pathlib.Path]:
    """Return the versions in a folder, oldest first."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name)) and path.is_dir()]
    return [path for _, path in sorted(found)]


def unseen_in(folder: pathlib.Path) -> int:
    """Return how many particles of an annotation that was closed nobody has looked at; 0 of one that cannot be read."""
    try:
        records = json.loads((folder / SNAPSHOT_FILE).read_text("utf-8"))["records"]
        return sum(one["what"] == "particle" and one["after"].get("reviewed") is False for one in records)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def save_version(session: Session, only_reviewed: bool = False) -> Optional[pathlib.Path]:
    """Write the tables of a session as a new version; None when there is nothing new to say.

    A version is a data folder: ``NAME.csv`` with the particles of each tomogram that has any annotation, beside a link
    to the tomogram, ``NAME_negatives.csv`` where there are any, ``NAME_regions.csv`` (without a box, nothing is
    complete: ``train`` takes what is not annotated for unknown), ``classes.json``, and a ``params.json`` that names
    all of it. It gets its name when it is whole.

    Parameters
    ----------
    session : Session
        The annotation.
    only_reviewed : bool
        Leaves out particles that it started from and that nobody has looked at.

    Raises
    ------
    OutputError
        If it cannot be written; no half version is left.
    """
    taken = versions(session.folder)
    if session.is_saved or not (taken or _says_something(session)):
        return None
    number = int(_NAME.match(taken[-1].name)[1]) + 1 if taken else 1  # type: ignore[index]
    target, temporary = session.folder / VERSION.format(number), session.folder / f".version.{os.getpid()}"
    try:
        _remove(temporary)
        temporary.mkdir(parents=True)
        write_tables(session, temporary, target, only_reviewed)
        os.rename(temporary, target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(explain(session.folder, error)) from error
    finally:
        _remove(temporary)
    session.mark_saved()
    return target


def _says_something(session: Annotations) -> bool:
    """Tell whether anything is annotated."""
    return any(session.particles(one.name) or session.negatives(one.name) or session.regions(one.name)
               for one in session.tomograms)


def write_tables(session: Annotations, folder: pathlib.Path, named: pathlib.Path,
                 only_reviewed: bool = False) -> None:
    """Write the tables of annotations into a folder; its params.json calls the folder by the name it will have.

    Of each tomogram they say in which boxes it is annotated completely, also when there are none.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    items: List[Dict[str, Any]] = []
    voxels = set()
    for tomogram in session.tomograms:
        name = tomogram.name
        table, negatives, regions = (session.table(name, only_reviewed), session.negatives(name),
                                     session.regions(name))
        if not (len(table) or negatives or regions):
            continue
        voxels.add(round(tomogram.voxel_size_ang, 6))
        write_coordinates(folder / f"{name}.csv", table)
        write_regions(folder / f"{name}{REGIONS}", list(regions.values()))
        beside = {"regions": str(named.absolute() / f"{name}{REGIONS}")}
        if negatives:
            write_negatives(folder / f"{name}{NEGATIVES}", np.array([n.position_zyx_vox for n in negatives.values()]))
            beside["negatives"] = str(named.absolute() / f"{name}{NEGATIVES}")
        with contextlib.suppress(OSError):  # a file system without links: params.json names the tomogram, too
            os.symlink(tomogram.path, folder / f"{name}{pathlib.Path(tomogram.path).suffix}")
        items.append({"name": name, "tomogram": tomogram.path, "coordinates": str(named.absolute() / f"{name}.csv"),
                      "voxel_size": tomogram.voxel_size_ang, **beside})
    classes = [one.kind for one in session.classes]
    write_classes(folder, classes, voxels.pop() if len(voxels) == 1 else 0.0)
    write_text(folder / PARAMS_FILE, json.dumps({"items": items, "classes": classes_to_json(classes)}, indent=1) + "\n")


def training_words(folder: pathlib.Path) -> str:
    """Return what ``train`` needs to read a version: the folder, or its params.json where tomograms are not linked."""
    tomograms = any(is_tomogram(path) for path in folder.iterdir())
    return f"--data {folder}" if tomograms else f"--params {folder / PARAMS_FILE}"


def _remove(folder: pathlib.Path) -> None:
    """Remove a temporary folder with its files, where there is one."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            path.unlink()
        folder.rmdir()
