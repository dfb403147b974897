"""How often the geometry check names the right fault: random wrong coordinates of tomograms whose truth is known.

``python benchmarks/geometry_check.py DATA [--n 100] [--seed 0]`` takes a data folder as for ``train``, with the
diameters in classes.json (``--diameter-angstrom`` otherwise), draws tomogram, class and fault at random, and prints a
row for each kind of fault: tried, named, and what was said instead.
"""

from __future__ import annotations

import argparse
import collections
import time
from typing import Dict, List, Tuple

import numpy as np

from deepetpicker.checking.geometry import Transform, check_geometry, is_inside, transforms
from deepetpicker.checking.run import classes_of
from deepetpicker.config import numbers
from deepetpicker.io.classes import read_classes
from deepetpicker.io.coordinates import Frame, read_coordinates
from deepetpicker.io.items import items_from_folder
from deepetpicker.io.volumes import Volume, open_volume


def undo(transform: Transform, positions_zyx_vox: np.ndarray, shape_zyx: Tuple[int, ...]) -> np.ndarray:
    """Return the wrong coordinates (N, 3) that a transform turns into positions (N, 3), in voxels."""
    size = np.array(shape_zyx, float)
    wrong = np.where(transform.flips, size - 1 - positions_zyx_vox, positions_zyx_vox)
    wrong = wrong - size // 2 if transform.centred else wrong
    wrong = (wrong + 0.5) / transform.scale - 0.5
    return wrong[:, np.argsort(transform.order)]


def scenes(data: str, given_ang: Tuple[float, ...]) -> List[Tuple[str, Volume, np.ndarray, float]]:
    """Return name, tomogram, positions (N, 3) and diameter in angstrom of each class in each tomogram."""
    classes, voxel = read_classes(data)
    out = []
    for item in items_from_folder(data):
        volume = open_volume(item.tomogram, voxel, item.name, quiet=True)
        table = read_coordinates(item.coordinates, Frame(volume.voxel_size_ang, volume.shape_zyx, 0, item.name))
        for one in classes_of(classes, table, given_ang):
            positions = table.positions_zyx_vox[table.class_ids == one.id]
            if len(positions) >= 10:
                out.append((f"{item.name} {one.name}", volume, positions, one.diameter_ang))
    return out


def main() -> None:
    """Draw faults, check them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--diameter-angstrom", type=numbers, default=())
    args = parser.parse_args()
    rng, start = np.random.default_rng(args.seed), time.monotonic()
    known = scenes(args.data, args.diameter_angstrom)
    faults = [t for t in transforms() if t.faults in (1, 2)]
    rows: Dict[str, List[str]] = collections.defaultdict(list)
    for number in range(args.n):
        name, volume, positions, diameter = known[rng.integers(len(known))]
        if number % 5 == 4:  # a common shift of half a voxel along every axis, either way
            off = np.where(rng.integers(0, 2, 3) > 0, 0.5, -0.5)
            fit = check_geometry(volume, positions + off, diameter)
            shift = fit.shift_zyx_vox if fit.fits and fit.is_shifted else None
            right = shift is not None and np.allclose(shift, -off, atol=0.45)
            rows["half a voxel"].append("" if right else f"{name}: {fit}")
            continue
        fault = faults[rng.integers(len(faults))]
        wrong = undo(fault, positions, volume.shape_zyx)
        fit = check_geometry(volume, wrong, diameter)
        there = fit.best.apply(wrong, volume.shape_zyx)
        same = np.allclose(there, positions, atol=0.75) and bool(is_inside(there, volume.shape_zyx).all())
        rows[f"{fault.faults} fault(s)"].append("" if same else f"{name}: {fault} -> {fit}")
    for kind, said in rows.items():
        print(f"{kind}: {said.count('')} of {len(said)} named right")
        for text in filter(None, said):
            print("   ", text)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
