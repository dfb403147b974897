"""``deepetpicker convert``: particle positions from one file format to another, and from and to copick projects."""

from __future__ import annotations

import argparse
import logging
import pathlib
from typing import Dict, Optional, Tuple

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert`` to a parser."""
    parser.description = ("Convert particle positions; the formats are told by the file suffixes (docs/formats.rst). "
                          "The configuration of a copick project (.json) as IN makes OUT a data folder for train and "
                          "evaluate; as OUT it takes the picks of the folder IN.")
    parser.add_argument("source", metavar="IN", help="coordinate file to read, copick project, or folder of picks")
    parser.add_argument("target", metavar="OUT", help="coordinate file to write, data folder, or copick project")
    parser.add_argument("--voxel-size", type=float, default=0.0, metavar="V",
                        help="voxel size of the tomogram [angstrom] (RELION 5 needs it)")
    parser.add_argument("--shape", default="", metavar="Z,Y,X", help="tomogram shape [voxels] (RELION 5 needs it)")
    parser.add_argument("--box-size", type=int, default=0, metavar="B", help="box edge [voxels] (.cbox needs it)")
    parser.add_argument("--tomogram", default="", metavar="NAME",
                        help="name of the tomogram inside files that list several")
    parser.add_argument("--from", dest="source_format", default="auto", metavar="FORMAT",
                        help="format of IN: csv, coords, relion3, relion4, relion5, box, cbox, imod (default: by "
                        "suffix)")
    parser.add_argument("--to", dest="target_format", default="auto", metavar="FORMAT",
                        help="format of OUT (default: by suffix; .star is relion4)")
    parser.add_argument("--user", default="", help="copick: whose picks (written: deepetpicker)")
    parser.add_argument("--session", default="", help="copick: session of the picks (written: 0, those of a tool)")
    parser.add_argument("--tomo-type", default="", metavar="TYPE", help="copick: which tomograms, such as wbp")


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from deepetpicker.io.coordinates import Frame, convert
    from deepetpicker.io.coordinates.copick import is_project

    if is_project(args.source):
        return from_copick(args)
    if is_project(args.target):
        return to_copick(args)
    frame = Frame(args.voxel_size, parse_shape(args.shape), args.box_size, args.tomogram)
    count = convert(args.source, args.target, frame, args.source_format, args.target_format)
    log.info("%s: %d particles written", args.target, count)
    return 0


def from_copick(args: argparse.Namespace) -> int:
    """Make a data folder of a copick project; return the exit code."""
    from deepetpicker.io.coordinates.copick import Wanted, export_folder, open_project

    counts = export_folder(open_project(args.source), args.target,
                           Wanted(args.user, args.session, args.tomo_type, args.voxel_size))
    log.info("%s: %d particles in %d tomogram(s)", args.target, sum(counts.values()), len(counts))
    return 0


def to_copick(args: argparse.Namespace) -> int:
    """Put a folder of picks into a copick project; return the exit code."""
    from deepetpicker.errors import InputError
    from deepetpicker.io.atomic import whole
    from deepetpicker.io.classes import read_classes
    from deepetpicker.io.coordinates import read_coordinates
    from deepetpicker.io.coordinates.copick import Wanted, import_tables, open_project

    folder = pathlib.Path(args.source)
    classes, voxel_size_ang = read_classes(folder)
    picked, sizes = picks_of(folder)
    paths = picked or {p.stem: p for p in whole(folder.glob("*.csv"))}
    if not paths:
        raise InputError(f"no picks in {folder}: expected NAME.csv per tomogram, as pick writes them")
    sizes = {name: args.voxel_size or sizes.get(name, 0.0) or voxel_size_ang for name in paths}
    unknown = next((name for name in paths if not sizes[name]), None)
    if unknown is not None:
        raise InputError(f"{unknown}: copick counts in angstrom and the voxel size is not known: give --voxel-size")
    tables = {name: read_coordinates(path) for name, path in paths.items()}
    written = import_tables(open_project(args.target), tables, sizes, classes,
                            Wanted(args.user or "deepetpicker", args.session or "0"))
    log.info("%s: %d particles of %d tomogram(s), %d file(s) written", args.target, sum(map(len, tables.values())),
             len(tables), len(written))
    return 0


def picks_of(folder: pathlib.Path) -> Tuple[Dict[str, pathlib.Path], Dict[str, float]]:
    """Return tables and voxel sizes in angstrom of a folder that pick has written, by name; nothing of another."""
    from deepetpicker.io.manifest import read_manifest

    if not (folder / "manifest.json").is_file():
        return {}, {}
    content = read_manifest(folder / "manifest.json")
    sizes = {str(one.get("path")): float(one.get("voxel_size_angstrom") or 0.0) for one in content.get("inputs") or []}
    done = [item for item in content["items"] if item.get("picks")]
    return ({item["name"]: pathlib.Path(item["picks"]) for item in done},
            {item["name"]: sizes.get(str(item.get("tomogram")), 0.0) for item in done})


def parse_shape(text: str) -> Optional[Tuple[int, int, int]]:
    """Return a shape (z, y, x) in voxels from ``Z,Y,X``; None from an empty text.

    Raises
    ------
    InputError
        If the text is not three whole numbers >= 1.
    """
    from deepetpicker.errors import InputError

    if not text.strip():
        return None
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--shape must be three whole numbers Z,Y,X, got {text!r}") from error
    return z, y, x
