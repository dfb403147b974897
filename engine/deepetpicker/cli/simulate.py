"""``deepetpicker simulate``: tomograms with known particles, for tests, tutorials and training without annotation."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import List, Sequence

from deepetpicker.config import SimulateOptions, add_arguments as add_options, from_arguments
from deepetpicker.terminal import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``simulate`` to a parser."""
    parser.description = ("Simulate cryo-electron tomograms with known particles: tilt series, CTF, noise, missing "
                          "wedge and weighted back-projection. Writes OUT/NAME.mrc, NAME.csv, NAME_instances.mrc, "
                          "classes.json and manifest.json.")
    parser.add_argument("out", metavar="OUT", help="data folder to write")
    field = SimulateOptions.__dataclass_fields__["maps"]
    parser.add_argument("--maps", nargs="+", action="extend", default=argparse.SUPPRESS, metavar="A.mrc",
                        help=f"{field.metadata['help']}; several after one flag (OUT then comes before it), "
                        "comma-separated or with several flags")
    add_options(parser, SimulateOptions, skip=("maps",))


def main(args: argparse.Namespace) -> int:
    """Simulate; return 0 (bad input raises InputError)."""
    from deepetpicker.simulation import simulate

    options = from_arguments(SimulateOptions, args)
    if hasattr(args, "maps"):
        options = dataclasses.replace(options, maps=tuple(split_maps(args.maps)))
    manifest = simulate(args.out, options, quiet=getattr(args, "quiet", False))
    total = sum(item["n_particles"] for item in manifest["items"])
    show(f"{args.out}: {len(manifest['items'])} tomograms, {total} particles ({manifest['seconds']:.1f} s)")
    return 0


def split_maps(words: Sequence[str]) -> List[str]:
    """Return map paths from command-line words; a word with commas is a list unless a file of that name exists."""
    paths: List[str] = []
    for word in words:
        paths += [word] if os.path.exists(word) else [part.strip() for part in word.split(",") if part.strip()]
    return paths
