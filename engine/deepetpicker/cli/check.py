"""Tell whether coordinates fit their tomograms, or would flipped, swapped, scaled or shifted."""

from __future__ import annotations

import argparse
import sys

from deepetpicker.config import CheckOptions, add_arguments as add_options, from_arguments, read_params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``check`` to parser."""
    parser.add_argument("--data", default="", metavar="DIR",
                        help="folder of NAME.mrc with NAME.csv (or .coords, .star, ...) and, if there is one, "
                        "classes.json; left out when --params names the items")
    parser.add_argument("--out", default=None, metavar="DIR", help="folder for manifest.json")
    add_options(parser, CheckOptions)


def main(args: argparse.Namespace) -> int:
    """Check; return 0 when all coordinates fit, 1 when some do not or could not be checked."""
    from deepetpicker.checking.run import check

    params = read_params(args.params) if getattr(args, "params", None) else None
    manifest = check(args.data, args.out, from_arguments(CheckOptions, args), params)
    for item in manifest["items"]:
        sys.stdout.write(f"{item['name']}: {item['reason'] or item['text']}\n")
    return 0 if all(item["status"] == "done" and item["fits"] for item in manifest["items"]) else 1
