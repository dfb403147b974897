"""Propose candidates without a model: blobs of the right size, or what looks like a few examples."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from typing import Any, Mapping, Optional

from deepetpicker.config import ProposeOptions, add_arguments as add_options, from_arguments, read_params
from deepetpicker.terminal import show

NICE = 10  # beside a window, which goes first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``propose`` to parser."""
    parser.add_argument("tomograms", nargs="*", metavar="TOMO",
                        help="tomograms (.mrc, .rec, .map, .zarr), or folders of them")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="folder for NAME.csv, NAME_features.npy, classes.json and manifest.json")
    parser.add_argument("--like", default="", metavar="DIR",
                        help="folder with NAME.csv of a few examples (3 in all or more): what looks like them comes "
                        "first, in all tomograms")
    parser.add_argument("--unlike", default="", metavar="DIR",
                        help="folder with NAME.csv of a few places that are not what is looked for")
    parser.add_argument("--follow", action="store_true",
                        help="for windows: write NAME.npz with candidates and features one tomogram after the other, "
                        "and answer questions on standard input, until that ends")
    add_options(parser, ProposeOptions)


def main(args: argparse.Namespace) -> int:
    """Propose; return 0 when every tomogram could be used, 1 when some failed."""
    params = read_params(args.params) if getattr(args, "params", None) else None
    if args.follow:
        return _follow(args, params)
    from deepetpicker.proposing.run import propose

    manifest = propose(args.tomograms, args.out, from_arguments(ProposeOptions, args), params, args.like, args.unlike,
                       getattr(args, "quiet", False))
    total = sum(item.get("n_picks", 0) for item in manifest["items"])
    show(f"{total} candidates in {len(manifest['items'])} tomogram(s), in {args.out}")
    return 1 if any(item["status"] == "failed" for item in manifest["items"]) else 0


def _follow(args: argparse.Namespace, params: Optional[Mapping[str, Any]]) -> int:
    """Serve a window until it is closed, at a low priority; return 0, or 1 when some tomograms failed."""
    from deepetpicker.io.items import items_from_files, items_from_params
    from deepetpicker.proposing.follow import follow

    items = items_from_params(params) if params and params.get("items") else items_from_files(args.tomograms)
    os.nice(NICE)

    def say(word: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(word) + "\n")
        sys.stdout.flush()

    return 1 if follow(items, pathlib.Path(args.out), from_arguments(ProposeOptions, args), sys.stdin, say) else 0
