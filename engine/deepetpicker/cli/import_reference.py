"""Turn a checkpoint of the published reference implementation into a model file."""

from __future__ import annotations

import argparse
import logging

from deepetpicker.config import numbers
from deepetpicker.io.classes import parse_classes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``import-reference`` to parser."""
    parser.add_argument("checkpoint", metavar="CKPT", help="Lightning checkpoint (.ckpt) of the reference")
    parser.add_argument("--out", required=True, metavar="MODEL", help="model file to write (.safetensors)")
    parser.add_argument("--diameter-angstrom", default=(), type=numbers, metavar="D[,D2...]",
                        help="particle diameter, one for all classes or one per class [angstrom]")
    parser.add_argument("--classes", default="", metavar="ID:NAME:DIAMETER,...",
                        help="its classes with their diameters in angstrom, such as 1:ribosome:250,2:proteasome:140; "
                        "by ascending id they are its output channels (default: 1, 2, ... without names)")
    parser.add_argument("--voxel-size", required=True, type=float, metavar="V",
                        help="voxel size of the tomograms it was trained on [angstrom]")
    parser.add_argument("--label-diameter", type=float, default=0.0, metavar="L",
                        help="diameter of its training labels [voxels] (default: the published 7)")
    parser.add_argument("--patch", type=int, default=0, metavar="N",
                        help="edge of its training patch [voxels] (default: what the checkpoint says, else 72)")


def main(args: argparse.Namespace) -> int:
    """Import the checkpoint; return the exit code."""
    from deepetpicker.network.reference import import_reference

    result = import_reference(args.checkpoint, args.out, args.diameter_angstrom, args.voxel_size,
                              args.label_diameter, args.patch, parse_classes(args.classes))
    logging.getLogger(__name__).info("%s: %d parameters, pick with: deepetpicker pick %s TOMO.mrc --out DIR",
                                     result["model"], result["parameters"], result["model"])
    return 0
