"""Train a picker from tomograms and labelled centres."""

from __future__ import annotations

import argparse

from deepetpicker.config import TrainOptions, add_arguments as add_options, from_arguments, read_params
from deepetpicker.io.classes import classes_to_json, parse_classes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train`` to parser."""
    parser.add_argument("--data", default="", metavar="DIR",
                        help="folder of NAME.mrc with NAME.csv (or .coords, .star, ...) and, if there is one, "
                        "classes.json; left out when --params names the items")
    parser.add_argument("--out", required=True, metavar="MODEL",
                        help="model file to write (.safetensors); MODEL_run/ beside it gets metrics and logs")
    parser.add_argument("--classes", default="", metavar="ID:NAME:DIAMETER,...",
                        help="all classes with their diameters in angstrom, such as 1:ribosome:250,2:proteasome:140; "
                        "replaces classes.json (--diameter-angstrom goes before its diameters)")
    add_options(parser, TrainOptions)


def main(args: argparse.Namespace) -> int:
    """Train; return 0."""
    from deepetpicker.training.run import train

    params = read_params(args.params) if getattr(args, "params", None) else {}
    if args.classes:
        params["classes"] = classes_to_json(parse_classes(args.classes))
    train(args.data, args.out, from_arguments(TrainOptions, args), getattr(args, "quiet", False), params)
    return 0
