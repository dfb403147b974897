"""Tell whether coordinates fit their tomograms, or would flipped, swapped, scaled or shifted."""

from __future__ import annotations

import argparse

from deepetpicker.config import CheckOptions, add_arguments as add_options, from_arguments, read_params
from deepetpicker.io.classes import classes_to_json, parse_classes
from deepetpicker.terminal import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``check`` to parser."""
    parser.add_argument("--data", default="", metavar="DIR",
                        help="folder of NAME.mrc with NAME.csv (or .coords, .star, ...) and, if there is one, "
                        "classes.json; left out when --params names the items")
    parser.add_argument("--out", default=None, metavar="DIR", help="folder for manifest.json")
    parser.add_argument("--classes", default="", metavar="ID:NAME:DIAMETER,...",
                        help="all classes with their diameters in angstrom, such as 1:ribosome:250,2:proteasome:140; "
                        "replaces classes.json (--diameter-angstrom goes before its diameters)")
    add_options(parser, CheckOptions)


def main(args: argparse.Namespace) -> int:
    """Check; return 0 when all coordinates fit, 1 when some do not or could not be checked."""
    from deepetpicker.checking.run import check

    params = read_params(args.params) if getattr(args, "params", None) else {}
    if args.classes:
        params["classes"] = classes_to_json(parse_classes(args.classes))
    manifest = check(args.data, args.out, from_arguments(CheckOptions, args), params)
    for item in manifest["items"]:
        show(f"{item['name']}: {item['reason'] or item['text']}")
    show(*manifest["warnings"])
    fit = all(item["status"] == "done" and item["fits"] for item in manifest["items"])
    return 0 if fit and not manifest["warnings"] else 1
