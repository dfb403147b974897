"""How time and memory of picking grow with the tomogram: one process per volume, alternating over the shapes.

Usage: python benchmarks/scale.py [--shapes 128,128,128 200,512,512 ...] [--repeats 5] [--memory-limit GB] [--json FILE]

Prints, for each shape, the plan made before the start and what became of it: seconds from the command to the tables,
seconds of the scan per million voxels, the share of post-processing, and the peak resident memory. The volumes are
noise with dark blobs, the network has full size and set weights (benchmarking/detector.py), so that the work is real.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Tuple

import numpy as np

from deepetpicker.benchmarking.run import detector_model, processor
from deepetpicker.config import PickOptions
from deepetpicker.io.volumes import VolumeWriter, open_volume
from deepetpicker.memory import ask_for_large_pages, resident_bytes
from deepetpicker.picking.picker import Picker

SHAPES = ("128,128,128", "128,256,256", "200,512,512", "400,1024,1024")
VOXEL_ANG = 13.3
BLOB_SIGMA_VOX = 4.0


def main() -> int:
    """Measure and print; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="Z,Y,X")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-limit", type=float, default=0.0, metavar="GB")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = PickOptions(device=args.device, precision=args.precision, memory_limit=args.memory_limit, mirrors=1)
    if args.one:
        ask_for_large_pages()
        model, path = args.one
        say(json.dumps(pick_once(model, path, options)))
        return 0
    shapes = [tuple(int(n) for n in text.split(",")) for text in args.shapes]
    with tempfile.TemporaryDirectory() as folder:
        model = str(detector_model(pathlib.Path(folder), VOXEL_ANG))
        paths = [write_volume(pathlib.Path(folder), shape) for shape in shapes]
        runs: Dict[Tuple[int, ...], List[Dict[str, Any]]] = {shape: [] for shape in shapes}
        for _ in range(args.repeats):
            for shape, path in zip(shapes, paths):
                runs[shape].append(in_a_process(model, path, sys.argv[1:]))
                report(shape, runs[shape])
    if args.json:
        args.json.write_text(json.dumps({"processor": processor(), "runs": [
            {"shape_zyx": shape, "runs": done} for shape, done in runs.items()]}, indent=1))
    return 0


def write_volume(folder: pathlib.Path, shape: Tuple[int, ...]) -> pathlib.Path:
    """Write a volume of noise with dark blobs, a few planes at a time, and return its path."""
    path = folder / ("x".join(map(str, shape)) + ".mrc")
    rng = np.random.default_rng(0)
    centres = rng.uniform(10, np.array(shape) - 10, (max(1, math.prod(shape) // 100_000), 3))
    reach = int(4 * BLOB_SIGMA_VOX)
    with VolumeWriter(path, shape, np.float32, VOXEL_ANG) as out:  # type: ignore[arg-type]
        for z0 in range(0, shape[0], 8):
            slab = rng.standard_normal((min(8, shape[0] - z0), *shape[1:]), np.float32)
            for centre in centres[np.abs(centres[:, 0] - z0 - 4) < reach + 4]:
                y, x = (slice(max(0, int(c) - reach), int(c) + reach) for c in centre[1:])
                grid = np.ogrid[z0:z0 + len(slab), y.start:min(y.stop, shape[1]), x.start:min(x.stop, shape[2])]
                squares = sum((g - c) ** 2 for g, c in zip(grid, centre))
                slab[:, y, x] -= 4 * np.exp(-squares / (2 * BLOB_SIGMA_VOX**2)).astype(np.float32)
            out.write(z0, slab)
    return path


def in_a_process(model: str, path: pathlib.Path, arguments: List[str]) -> Dict[str, Any]:
    """Pick a volume in a process of its own; return what it says and how long it took from its start to its end."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, *arguments, "--one", model, str(path)], check=True,
                          stdout=subprocess.PIPE, text=True)
    return {**json.loads(done.stdout), "wall_s": time.perf_counter() - begin}


def pick_once(model: str, path: str, options: PickOptions) -> Dict[str, Any]:
    """Pick a volume; return the plan, the seconds of its parts and the peak memory."""
    volume = open_volume(path)
    picker = Picker(model, options, quiet=True)
    plan = picker.plan(volume)
    begin = time.perf_counter()
    found = picker.candidates(volume, pathlib.Path(path).parent)
    return {"plan": str(plan), "expected_s": plan.seconds, "expected_bytes": plan.memory_bytes,
            "computed_voxels": plan.tiles.voxels, "candidates": len(found), "peak_bytes": resident_bytes(peak=True),
            "picking_s": time.perf_counter() - begin, "arithmetic": str(picker.predictor.arithmetic),
            **{f"{name}_s": seconds for name, seconds in picker.seconds.items()}}


def report(shape: Tuple[int, ...], runs: List[Dict[str, Any]]) -> None:
    """Print the medians of the runs of a shape so far."""
    def middle(key: str) -> float:
        return statistics.median(run[key] for run in runs)

    say(f"{' x '.join(map(str, shape)):18s} {len(runs)} run(s); plan: {runs[0]['plan']}; {runs[0]['arithmetic']}\n"
        f"    command to end {middle('wall_s'):.1f} s, picking {middle('picking_s'):.2f} s = "
        f"{middle('picking_s') / math.prod(shape) * 1e6:.3f} s per million voxels "
        f"({middle('scan_s') / runs[0]['computed_voxels'] * 1e6:.3f} per million computed), post-processing "
        f"{100 * middle('post_processing_s') / middle('picking_s'):.1f} %, peak {middle('peak_bytes') / 1e6:.0f} MB, "
        f"{runs[0]['candidates']} candidates")


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
