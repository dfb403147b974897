"""Pick particles in tomograms with a trained model."""

from __future__ import annotations

import argparse

from deepetpicker.config import ClusterOptions, PickOptions, add_arguments as add_options, from_arguments, read_params
from deepetpicker.memory import ask_for_large_pages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pick`` to parser."""
    parser.add_argument("model", metavar="MODEL", help="model file (.safetensors)")
    parser.add_argument("tomograms", nargs="*", metavar="TOMO",
                        help="tomograms (.mrc, .rec, .map, .zarr) or folders with some")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="folder for NAME.csv, NAME_candidates.csv and manifest.json; shards of one run share it")
    add_options(parser, PickOptions)
    add_options(parser, ClusterOptions, title="many workers")


def main(args: argparse.Namespace) -> int:
    """Pick; return 0 when every tomogram (of this shard) was picked, 1 when some failed."""
    options = from_arguments(PickOptions, args)
    given = {key: value for key, value in vars(args).items() if key != "params"}  # which holds what decides the picks
    cluster = from_arguments(ClusterOptions, argparse.Namespace(**given))
    if not options.memory_limit:  # large pages are rounded up
        ask_for_large_pages()
    from deepetpicker.picking.run import pick

    params = read_params(args.params) if getattr(args, "params", None) else None
    manifest = pick(args.model, args.tomograms, args.out, options, params, getattr(args, "quiet", False), cluster)
    return 1 if any(item["status"] == "failed" for item in manifest["items"]) else 0
