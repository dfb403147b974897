"""``deepetpicker compare``: two pick sets as sets, their intersection and both differences."""

from __future__ import annotations

import argparse

from deepetpicker.config import CompareOptions, add_arguments as add_options, from_arguments, read_params
from deepetpicker.terminal import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``compare`` to parser."""
    parser.add_argument("a", nargs="?", default="", metavar="A", help="first coordinate file")
    parser.add_argument("b", nargs="?", default="", metavar="B", help="second coordinate file, of the same tomogram")
    parser.add_argument("--out", required=True, metavar="DIR",
                        help="folder for NAME_both.csv, NAME_only_a.csv, NAME_only_b.csv, NAME_pairs.csv, "
                             "manifest.json")
    add_options(parser, CompareOptions)


def main(args: argparse.Namespace) -> int:
    """Compare; return 0 when every tomogram was compared, 1 when some failed."""
    from deepetpicker.evaluation.comparison import compare_files

    params = read_params(args.params) if getattr(args, "params", None) else None
    manifest = compare_files(args.a, args.b, args.out, from_arguments(CompareOptions, args), params)
    total = {key: sum(item.get(key, 0) for item in manifest["items"]) for key in ("n_both", "n_only_a", "n_only_b")}
    show(f"{total['n_both']} in both, {total['n_only_a']} only in A, {total['n_only_b']} only in B")
    return 1 if any(item["status"] == "failed" for item in manifest["items"]) else 0
