"""``deepetpicker info``: what a model file, or a tomogram, says about itself."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any, Dict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``info`` to a parser."""
    parser.description = "Show the model card of a model file, or what a tomogram says about itself."
    parser.add_argument("model", metavar="FILE",
                        help="model file (.safetensors), or tomogram (.mrc, .rec, .map, .zarr)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    import json

    from deepetpicker.io.items import TOMOGRAM_SUFFIXES
    from deepetpicker.io.modelcard import format_info, info, read_card

    if pathlib.Path(args.model).suffix.lower() in TOMOGRAM_SUFFIXES:
        facts = of_tomogram(args.model)
        sys.stdout.write(json.dumps(facts, indent=1) + "\n" if args.json else in_words(facts))
    elif args.json:
        sys.stdout.write(json.dumps(info(args.model), indent=1) + "\n")
    else:
        sys.stdout.write(format_info(read_card(args.model)))
    return 0


def of_tomogram(path: str) -> Dict[str, Any]:
    """Return what a tomogram says about itself, and each coarser version that its folder holds."""
    from deepetpicker.io.volumes import open_volume

    volume = open_volume(path, quiet=True)
    versions = [{"voxel_size_angstrom": round(one.voxel_size_ang, 4), "shape_zyx": [int(n) for n in one.data_zyx.shape]}
                for one in (volume.level(volume.voxel_size_ang), *volume.coarser)]
    return {"name": volume.name, "type": str(volume.data_zyx.dtype), **versions[0], "coarser": versions[1:],
            "warnings": list(volume.warnings)}


def in_words(facts: Dict[str, Any]) -> str:
    """Return the facts of a tomogram as text."""
    lines = [facts["name"], f"  type       {facts['type']}"]
    for label, one in [("voxels", facts), *(("coarser", one) for one in facts["coarser"])]:
        size = " x ".join(str(n) for n in reversed(one["shape_zyx"]))
        lines.append(f"  {label:<10} {size} (x, y, z) of {one['voxel_size_angstrom']:g} angstrom")
    return "\n".join([*lines, *(f"  note       {text}" for text in facts["warnings"])]) + "\n"
