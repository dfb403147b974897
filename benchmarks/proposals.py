"""How many particles are among the candidates that ``propose`` makes without a label, and with a few examples.

``python benchmarks/proposals.py DATA --diameter-angstrom D [--class ID] [--method generic] [--clicks 5,10]
[--seeds 3]`` takes a data
folder as for ``train``. Recall is that of twice as many candidates as there are particles; a hit lies within half a
diameter of the centre, one to one. Examples are drawn from the first tomogram, the other ones are scored.
"""

from __future__ import annotations

import argparse
import time
from typing import List, Tuple

import numpy as np

from deepetpicker.config import ProposeOptions, numbers
from deepetpicker.evaluation import match_by_distance
from deepetpicker.io.classes import read_classes
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates
from deepetpicker.io.items import items_from_folder
from deepetpicker.io.volumes import open_volume
from deepetpicker.preparation.scene import Scene
from deepetpicker.proposing.blobs import find_blobs
from deepetpicker.proposing.features import features_at
from deepetpicker.proposing.generic import GenericFinder
from deepetpicker.proposing.ranking import apart, rank_like
from deepetpicker.proposing.run import SEPARATE, features_of

Looked = Tuple[str, CoordinateTable, CoordinateTable, np.ndarray, np.ndarray, float]  # .., features, of the truth, vox


def look(data: str, diameter_ang: float, class_id: int, method: str) -> List[Looked]:
    """Return name, truth, 600 candidates, features of candidates and of the truth, and radius of each tomogram."""
    _, voxel = read_classes(data)
    finder = GenericFinder(ProposeOptions(diameter_angstrom=diameter_ang))
    found = []
    for item in items_from_folder(data):
        volume = open_volume(item.tomogram, voxel, item.name, quiet=True)
        truth = read_coordinates(item.coordinates, Frame(volume.voxel_size_ang, volume.shape_zyx, 0, item.name))
        truth = truth.select(truth.class_ids == class_id) if class_id >= 0 else truth
        start = time.monotonic()
        scene = Scene.open(volume, diameter_ang)
        table = find_blobs(scene, 600) if method == "blob" else finder(volume, scene, 600)
        features = features_at(scene, table.positions_zyx_vox)
        print(f"{item.name}: {len(truth)} particles, {time.monotonic() - start:.1f} s")
        found.append((item.name, truth, table, features,
                      features_of(scene, truth.positions_zyx_vox, table.positions_zyx_vox, features,
                                  volume.voxel_size_ang),
                      diameter_ang / volume.voxel_size_ang / 2))
    return found


def recall(truth: CoordinateTable, table: CoordinateTable, radius_vox: float) -> float:
    """Return the share of the truth that is among the first candidates, twice as many as particles."""
    first = table.select(np.arange(min(2 * len(truth), len(table))))
    return match_by_distance(truth, first, radius_vox).tp / max(1, len(truth))


def main() -> None:
    """Print a row for the blobs and one for each number of examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--diameter-angstrom", type=float, required=True)
    parser.add_argument("--class", dest="class_id", type=int, default=-1, help="only this class; default: all of them")
    parser.add_argument("--method", choices=("generic", "blob"), default="generic")
    parser.add_argument("--clicks", type=numbers, default=(5.0, 10.0))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    looked = look(args.data, args.diameter_angstrom, args.class_id, args.method)
    plain = [recall(truth, table, radius) for _, truth, table, _, _, radius in looked[1:]]
    print(f"{args.method}: recall {np.mean(plain):.3f}")
    every = np.concatenate([one[3] for one in looked])
    ends = np.cumsum([len(one[2]) for one in looked])
    for clicks in map(int, args.clicks):
        found = []
        for seed in range(args.seeds):
            examples = looked[0][4]
            chosen = np.random.default_rng(seed).choice(len(examples), min(clicks, len(examples)), replace=False)
            scores = np.split(rank_like(every, examples[chosen]), ends[:-1])
            found += [recall(truth, table.select(apart(table.positions_zyx_vox, own, 2 * SEPARATE * radius)), radius)
                      for (_, truth, table, _, _, radius), own in zip(looked[1:], scores[1:])]
        print(f"{clicks} examples: recall {np.mean(found):.3f} (lowest {min(found):.3f}), {args.seeds} draws")


if __name__ == "__main__":
    main()
