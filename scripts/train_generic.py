"""Make the generic model that the package ships: tomograms of random assemblies, a training, a file of half precision.

    python scripts/train_generic.py --out FOLDER

Every tomogram has other particles, other imaging conditions and another voxel size; what they share is that the
particles to find are about twenty voxels across. Nothing is downloaded, and no protein is among them. The command goes
on where it was interrupted. It writes FOLDER/generic.safetensors; engine/deepetpicker/network/generic.safetensors is a
copy of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import pathlib
from typing import Sequence, Tuple

import numpy as np

from deepetpicker.config import TrainOptions
from deepetpicker.io.classes import ParticleClass, write_classes
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.volumes import write_volume
from deepetpicker.network.generic import ACROSS_VOX, WIDTHS
from deepetpicker.network.modelfile import load_model, save_model
from deepetpicker.simulation.varied import random_kinds, varied_tomogram
from deepetpicker.terminal import progress
from deepetpicker.training.run import train

SHAPE_ZYX = (64, 144, 144)
WANTED, SMALLER, LARGER = (0.55, 1.35), (0.15, 0.38), (1.9, 2.8)  # extents in units of ACROSS_VOX
N_VALIDATION = 6
BATCH, PATCHES_PER_EPOCH = 8, 800
log = logging.getLogger("train_generic")


def one_tomogram(seed: int, index: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return a tomogram (Z, Y, X) and the centres of the particles to find (N, 3) in it."""
    rng = np.random.default_rng([seed, index])
    voxel = float(np.exp(rng.uniform(math.log(6), math.log(18))))
    wanted = random_kinds(rng, WANTED, int(rng.integers(2, 6)), ACROSS_VOX * voxel, voxel)
    smaller = random_kinds(rng, SMALLER, int(rng.integers(0, 3)), ACROSS_VOX * voxel, voxel)
    larger = random_kinds(rng, LARGER, int(rng.random() < 0.4), ACROSS_VOX * voxel, voxel)
    counts = [int(rng.integers(2, 16)) for _ in wanted]
    return varied_tomogram(rng, SHAPE_ZYX, voxel, wanted, counts, [*smaller, *larger])


def make_tomograms(folder: pathlib.Path, n: int, seed: int) -> None:
    """Write n tomograms with their tables; those that are there are kept. All say that a voxel is 10 angstrom."""
    write_classes(folder, [ParticleClass(1, "particle", 10 * ACROSS_VOX)], 10.0)
    with progress(n, "tomograms of random assemblies", "tomogram", False) as bar:
        for index in range(n):
            name = f"random_{index:04d}"
            if not (folder / f"{name}.mrc").is_file():
                tomogram, centres = one_tomogram(seed, index)
                write_coordinates(folder / f"{name}.csv", CoordinateTable.from_positions(centres.round(3)))
                write_volume(folder / f"{name}.mrc", tomogram, 10.0)
            bar.update()


def main(argv: Sequence[str] = ()) -> None:
    """Make the tomograms, train, and write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for everything")
    parser.add_argument("--tomograms", type=int, default=200)
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps of 8 patches")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv or None)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    data = arguments.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    make_tomograms(data, arguments.tomograms, arguments.seed)
    names = [f"random_{k:04d}" for k in range(arguments.tomograms)]
    epochs = max(1, round(arguments.steps * BATCH / PATCHES_PER_EPOCH))
    train(data, arguments.out / "full.safetensors", TrainOptions(
        validation=tuple(names[-N_VALIDATION:]), epochs=epochs, patches_per_epoch=PATCHES_PER_EPOCH, patch=32,
        batch=BATCH, widths=WIDTHS, averaging=0.995, patience=0, validate_every=max(1, epochs // 5), select="voxels",
        check=False, init="none", seed=arguments.seed))
    network, card = load_model(arguments.out / "full.safetensors")
    made = {"tomograms": [], "steps": arguments.steps,
            "made_from": f"{arguments.tomograms} tomograms of random assemblies (scripts/train_generic.py)",
            "options": card.training["options"], "kept_epoch": card.training["kept_epoch"]}
    save_model(arguments.out / "generic.safetensors", network, dataclasses.replace(card, training=made, validation=[
        row for row in card.validation if row.get("val_loss") is not None], warnings=[]), is_half=True)


if __name__ == "__main__":
    main()
