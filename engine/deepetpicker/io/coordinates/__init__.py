"""Particle positions in files: one table, one function to read and one to write, a handler per format.

The conventions of each format (axis order, unit, origin) are in docs/formats.rst.
"""

from __future__ import annotations

import logging
import os
import pathlib
from typing import Iterable, Optional, Tuple, Union

import numpy as np

from deepetpicker.io.atomic import atomic_output
from deepetpicker.io.coordinates.checks import check_against_volume
from deepetpicker.io.coordinates.formats import CoordinateFormat, Registry, read_lines, require
from deepetpicker.io.coordinates.star import Cbox, Relion
from deepetpicker.io.coordinates.table import CoordinateTable, Frame
from deepetpicker.io.coordinates.text import Box, Coords, Csv, Imod
from deepetpicker.io.volumes import tomogram_name

__all__ = ["FORMATS", "SUFFIXES", "CoordinateFormat", "CoordinateTable", "Frame", "check_against_volume", "convert",
           "find_coordinates", "read_coordinates", "write_coordinates"]

PathLike = Union[str, "os.PathLike[str]"]
log = logging.getLogger(__name__)

FORMATS = Registry()
FORMATS.add(Csv(), Coords(), Relion(4), Relion(3), Relion(5), Box(), Cbox(), Imod())
SUFFIXES: Tuple[str, ...] = FORMATS.suffixes


def read_coordinates(path: PathLike, frame: Optional[Frame] = None,
                     format: str = "auto") -> CoordinateTable:  # noqa: A002 - the word --from and --to use
    """Return the particle positions of a file.

    Parameters
    ----------
    path : path
        File to read.
    frame : Frame, optional
        What the format needs to know of the tomogram; default: nothing known.
    format : str
        Name of the format; "auto" goes by suffix (and recognises STAR content under any suffix).

    Returns
    -------
    CoordinateTable
        Positions zyx in voxels, 0-based; may be empty.

    Raises
    ------
    InputError
        If the file is missing, or the format needs something that frame lacks (the flag to give is named).
    FormatError
        If the file does not hold what its format promises; file and line are named.
    """
    file = pathlib.Path(path)
    handler = _reader(file) if format == "auto" else FORMATS.by_name(format)
    return handler.read(file, frame or Frame())


def _reader(file: pathlib.Path) -> CoordinateFormat:
    """Return the format of an existing file by its suffix, or by its content when it is a STAR file."""
    handler = FORMATS.by_suffix(file)
    if handler.name in ("csv", "coords") and any(line.startswith("data_") for line in read_lines(file)[:200]):
        return FORMATS.by_name("relion4")
    return handler


def write_coordinates(path: PathLike, table: CoordinateTable, frame: Optional[Frame] = None,
                      format: str = "auto") -> None:  # noqa: A002 - the word --from and --to use
    """Write particle positions, complete or not at all.

    Parameters
    ----------
    path : path
        File to write.
    table : CoordinateTable
        Positions zyx in voxels; may be empty.
    frame : Frame, optional
        What the format needs to know of the tomogram; default: nothing known.
    format : str
        Name of the format; "auto" goes by suffix (``.star`` is RELION 4).

    Raises
    ------
    InputError
        If the format needs something that frame lacks.
    OutputError
        If the file cannot be written.
    """
    target = pathlib.Path(path)
    handler = FORMATS.by_suffix(target) if format == "auto" else FORMATS.by_name(format)
    known = frame or Frame()
    require(known, handler.needs, target, f"writing {handler.name}")
    if not known.tomogram:
        known = Frame(known.voxel_size_ang, known.shape_zyx, known.box_size_vox, target.stem)
    lost = [what for what in handler.loses if _has(table, what)]
    if lost:
        log.info("%s: the format %s cannot hold %s", target.name, handler.name, " and ".join(lost))
    with atomic_output(target) as temporary:
        handler.write(temporary, table, known)


def _has(table: CoordinateTable, what: str) -> bool:
    """Tell whether a table holds what a format may lose."""
    return {"scores": bool(np.isfinite(table.scores).any()), "classes": len(np.unique(table.class_ids)) > 1,
            "class names": bool(table.class_names)}[what]


def find_coordinates(tomogram_path: PathLike, among: Optional[Iterable[pathlib.Path]] = None
                     ) -> Optional[pathlib.Path]:
    """Return the coordinate file beside a tomogram (exactly its stem, known suffixes in order), or None.

    Parameters
    ----------
    tomogram_path : path
        The tomogram.
    among : iterable of Path, optional
        Files of its folder, or those of its stem; default: the folder is listed.
    """
    tomogram = pathlib.Path(tomogram_path)
    name = tomogram_name(tomogram)
    try:
        files = tomogram.parent.iterdir() if among is None else among
        beside = [p for p in files if p.stem == name and p.name != tomogram.name]
    except OSError:
        return None
    for suffix in SUFFIXES:
        for path in sorted(beside):
            if path.suffix.lower() == suffix and path.is_file():
                return path
    return None


def convert(source: PathLike, target: PathLike, frame: Optional[Frame] = None, source_format: str = "auto",
            target_format: str = "auto") -> int:
    """Convert a coordinate file from one format to another.

    Parameters
    ----------
    source, target : path
        File to read and file to write.
    frame : Frame, optional
        What the formats need to know of the tomogram.
    source_format, target_format : str
        Names of the formats; "auto" goes by suffix.

    Returns
    -------
    int
        Number of particles.

    Raises
    ------
    InputError, FormatError, OutputError
        As :func:`read_coordinates` and :func:`write_coordinates`.
    """
    table = read_coordinates(source, frame, source_format)
    write_coordinates(target, table, frame, target_format)
    return len(table)
