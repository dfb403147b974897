"""Go on training a model with corrected picks."""

from __future__ import annotations

import argparse

from deepetpicker.config import RefineOptions, add_arguments as add_options, from_arguments, read_params
from deepetpicker.io.classes import classes_to_json, parse_classes

FIXED = ("init", "recipe", "residual", "coordinates", "pyramid", "activation", "widths")  # the model says them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``refine`` to parser."""
    parser.add_argument("model", metavar="MODEL", help="model file to go on from (.safetensors); it is not changed")
    parser.add_argument("--data", default="", metavar="DIR",
                        help="folder of NAME.mrc with NAME.csv, NAME_negatives.csv and NAME_regions.csv, as annotate "
                        "writes them; left out when --params names the items")
    parser.add_argument("--out", required=True, metavar="MODEL2",
                        help="model file to write (.safetensors); MODEL2_run/ beside it gets metrics and logs")
    parser.add_argument("--classes", default="", metavar="ID:NAME:DIAMETER,...",
                        help="classes of the data, when classes.json is missing or wrong; default: those of the model")
    add_options(parser, RefineOptions, FIXED)


def main(args: argparse.Namespace) -> int:
    """Refine; return 0."""
    from deepetpicker.training.run import refine

    params = read_params(args.params) if getattr(args, "params", None) else {}
    if args.classes:
        params["classes"] = classes_to_json(parse_classes(args.classes))
    refine(args.model, args.data, args.out, from_arguments(RefineOptions, args, FIXED), getattr(args, "quiet", False),
           params)
    return 0
