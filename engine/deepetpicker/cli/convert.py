"""``deepetpicker convert``: particle positions from one file format to another."""

from __future__ import annotations

import argparse
import logging
from typing import Optional, Tuple

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert`` to a parser."""
    parser.description = "Convert particle positions; the formats are told by the file suffixes (docs/formats.rst)."
    parser.add_argument("source", metavar="IN", help="coordinate file to read")
    parser.add_argument("target", metavar="OUT", help="coordinate file to write")
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


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from deepetpicker.io.coordinates import Frame, convert

    frame = Frame(args.voxel_size, parse_shape(args.shape), args.box_size, args.tomogram)
    count = convert(args.source, args.target, frame, args.source_format, args.target_format)
    log.info("%s: %d particles written", args.target, count)
    return 0


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
