"""``deepetpicker info``: what a model file says about itself."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``info`` to a parser."""
    parser.description = "Show the model card of a model file."
    parser.add_argument("model", metavar="MODEL", help="model file (.safetensors)")
    parser.add_argument("--json", action="store_true", help="print the whole card as JSON")


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    import json

    from deepetpicker.io.modelcard import format_info, info, read_card

    if args.json:
        sys.stdout.write(json.dumps(info(args.model), indent=1) + "\n")
    else:
        sys.stdout.write(format_info(read_card(args.model)))
    return 0
