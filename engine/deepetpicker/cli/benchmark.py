"""Time picking against the published algorithm on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from typing import List

from deepetpicker.config import BenchmarkOptions, add_arguments as add_options, from_arguments
from deepetpicker.terminal import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``benchmark`` to parser."""
    parser.add_argument("model", nargs="?", default="", metavar="MODEL",
                        help="model file; left out, a network of full size with set weights")
    parser.add_argument("tomogram", nargs="?", default="", metavar="TOMO", help="tomogram; left out, one is simulated")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    add_options(parser, BenchmarkOptions)


def main(args: argparse.Namespace) -> int:
    """Run the benchmark; return 0 when the picks agree, else 1."""
    from deepetpicker.benchmarking import benchmark

    result = benchmark(args.model, args.tomogram, from_arguments(BenchmarkOptions, args),
                       quiet=args.json or getattr(args, "quiet", False))
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        show(*table(result))
    return 0 if result["agree"] else 1


def table(result: dict) -> List[str]:
    """Return the result as lines for people."""
    z, y, x = result["shape_zyx"]
    where = result["where_s"]
    tile = " x ".join(map(str, result["tile_zyx"]))
    return [
        f"{z} x {y} x {x} voxels, {result['tiles']} tiles of {tile}; {result['arithmetic']}; "
        f"{result['threads']} threads; {result['machine']['processor']}",
        f"ours                  {result['ours_s']:8.2f} s (median of {result['repeats']})",
        f"published algorithm   {result['reference_s']:8.2f} s (float32)",
        f"ratio                 {result['ratio']:8.2f}",
        f"where ours goes       scan {where['scan']:.2f} s (network {where['network']:.2f} s; beside it reading "
        f"{where['read']:.2f} s, writing {where['write']:.2f} s), post-processing {where['post_processing']:.2f} s",
        f"convolution rate      {result['gflop_per_s']:.0f} of {result['ceiling_gflop_per_s']:.0f} GFLOP/s "
        f"({100 * (result['ceiling_share'] or 0):.0f} %)",
        f"picks                 {result['picks'][0]} and {result['picks'][1]}, {100 * result['shared']:.0f} % the "
        f"same: {'they agree' if result['agree'] else 'they do NOT agree'}",
    ]
