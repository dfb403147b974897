"""Do picks depend on how a tomogram is cut? Tile, batch, slab, and the tomogram inside a larger one.

Usage: python benchmarks/invariance.py MODEL TOMO [--threshold T]

Prints, for each way of cutting, how many picks it shares with the plain one and how far they moved, in voxels. What
remains comes from coordinate convolution (the network is told where in the tile it is), from the receptive field at
tile and tomogram borders, and from bfloat16.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import pathlib
import sys
import tempfile
from typing import Any, Dict, List

import numpy as np

from deepetpicker.config import PickOptions
from deepetpicker.evaluation import compare
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume, open_volume, write_volume
from deepetpicker.picking.picker import Picker

CUTS: Dict[str, Dict[str, Any]] = {
    "tile 72": {"tile": 72}, "tile 96": {"tile": 96}, "batch 4": {"batch": 4}, "slab 7 planes": {"slab": 7},
    "slab 400 planes": {"slab": 400}, "border 16": {"border": 16}, "bfloat16": {"precision": "bfloat16"},
}
OFFSET = (16, 24, 40)


def main() -> int:
    """Print the table; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("tomogram", type=pathlib.Path)
    parser.add_argument("--threshold", type=float, default=0.5)
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    plain = PickOptions(tile=64, batch=1, precision="float32", threshold=args.threshold, mirrors=1)
    volume = open_volume(args.tomogram)
    expected = picks(args.model, plain, volume)
    say(f"{volume.name}: {len(expected)} picks with tiles of 64, float32")
    for name, change in CUTS.items():
        report(name, expected, picks(args.model, dataclasses.replace(plain, **change), volume))
    with tempfile.TemporaryDirectory() as folder:
        larger = embedded(volume, pathlib.Path(folder))
        found = picks(args.model, plain, larger)
    inside = CoordinateTable(found.positions_zyx_vox - OFFSET, found.class_ids, found.scores, {})
    report(f"inside a larger one, moved by {OFFSET}", expected, inside)
    return 0


def picks(model: pathlib.Path, options: PickOptions, volume: Volume) -> CoordinateTable:
    """Return the picks of a volume at the options' threshold."""
    picker = Picker(model, options, quiet=True)
    return picker.picks(picker.candidates(volume))


def embedded(volume: Volume, folder: pathlib.Path) -> Volume:
    """Return the tomogram inside a larger one of reflected copies, moved by OFFSET voxels (z, y, x)."""
    pads: List = [(offset, 24) for offset in OFFSET]
    path = folder / "larger.mrc"
    write_volume(path, np.pad(np.asarray(volume.data_zyx), pads, mode="reflect"), volume.voxel_size_ang)
    return open_volume(path)


def report(name: str, expected: CoordinateTable, found: CoordinateTable) -> None:
    """Print what two pick sets share."""
    both = compare(expected, found, 3.0)
    moved = both.distances_vox if both.tp else np.zeros(1)
    say(f"{name:44s} {both.tp:4d} of {len(expected)} shared, {len(both.only_b):3d} new; moved: median "
        f"{np.median(moved):.3f}, 95 % {np.quantile(moved, 0.95):.3f}, most {moved.max():.3f} voxels")


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
