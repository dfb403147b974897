"""One forward pass on a CPU, variant by variant: layout, number type, folding, what is kept, freed memory.

Usage: python benchmarks/network.py [--tile 96] [--repeats 5]

The variants take turns; printed are medians. Each choice of the inference path has its line here.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from typing import Any, Callable, Dict, List

import torch

from deepetpicker.benchmarking.baseline import plain_logits
from deepetpicker.benchmarking.run import processor
from deepetpicker.config import NetworkOptions
from deepetpicker.memory import freed_memory
from deepetpicker.network.folded import FoldedResUNet
from deepetpicker.network.resunet import ResUNet3D

BORDER = 12


def main() -> int:
    """Print the table; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tile", type=int, default=72, help="edge of the tile, voxels (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    say(f"{processor()}; tile {args.tile}, {torch.get_num_threads()} threads, median of {args.repeats}")
    calls = variants(args.tile)
    seconds: Dict[str, List[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for repeat in range(args.repeats + 1):  # the first one warms up
            for name, call in calls.items():
                memory = {"kept": freed_memory(kept=True), "given back": freed_memory(kept=False)}
                with memory.get(name.rpartition(", memory ")[2], contextlib.nullcontext()):
                    if repeat:
                        call()  # the allocator settles
                    begin = time.perf_counter()
                    call()
                    seconds[name].append(time.perf_counter() - begin)
    for name, times in seconds.items():
        say(f"{name:58s} {statistics.median(times[1:]):7.3f} s  ({min(times[1:]):.3f} to {max(times[1:]):.3f})")
    return 0


def variants(tile: int) -> Dict[str, Callable[[], object]]:
    """Return a call for each variant by its name."""
    network = ResUNet3D(NetworkOptions()).eval()
    x = torch.randn(1, 1, tile, tile, tile)
    keep = (slice(BORDER, tile - BORDER),) * 3
    plain: Any = FoldedResUNet(network)
    last: Any = FoldedResUNet(network)  # torch's types know no memory format
    last = last.to(memory_format=torch.channels_last_3d)
    half: Any = FoldedResUNet(network).to(torch.bfloat16)
    half = half.to(memory_format=torch.channels_last_3d)
    inner = f"the inner {tile - 2 * BORDER}^3 kept"
    return {
        "float32 as published": lambda: plain_logits(network, x),
        "float32, folded": lambda: plain(x),
        "float32, folded, channels last": lambda: last(x),
        f"float32, folded, channels last, {inner}": lambda: last(x, keep),
        f"float32, folded, channels last, {inner}, memory given back": lambda: last(x, keep),
        f"float32, folded, channels last, {inner}, memory kept": lambda: last(x, keep),
        f"bfloat16, folded, channels last, {inner}, memory kept": lambda: half(x.bfloat16(), keep),
    }


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
