"""What twenty corrections are worth: F1 on other tomograms before and after ``refine``.

``python benchmarks/corrections.py DATA --diameter-angstrom D --out DIR [--labels 10] [--answers 20] [--minutes 2]``
takes a data folder as for ``train`` whose first tomogram is trained on and whose others are scored. A model is trained
with a few labels of the first (``--unannotated unknown``; ``--model`` takes one that is there) and picks it. A
simulated annotator, who knows the truth, answers: false picks, best score first and at most half of the answers,
become places without a particle; missed particles, in random order, become particles; right picks that are no
labels yet are confirmed with what is left. ``refine`` goes on with labels and answers, and for comparison with the
labels alone.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time
from typing import Tuple

import numpy as np

from deepetpicker.config import RefineOptions, TrainOptions
from deepetpicker.evaluation import match_by_distance
from deepetpicker.evaluation.run import evaluate
from deepetpicker.io.classes import read_classes
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates, write_coordinates
from deepetpicker.io.items import DataItem, items_from_folder
from deepetpicker.io.regions import NEGATIVES, write_negatives
from deepetpicker.io.volumes import open_volume
from deepetpicker.picking.run import pick
from deepetpicker.training.run import refine, train

Answers = Tuple[CoordinateTable, np.ndarray]


def known(item: DataItem, voxel_ang: float) -> Tuple[CoordinateTable, float]:
    """Return the truth of a tomogram and its voxel size in angstrom."""
    volume = open_volume(item.tomogram, voxel_ang, item.name, quiet=True)
    table = read_coordinates(item.coordinates, Frame(volume.voxel_size_ang, volume.shape_zyx, 0, item.name))
    return table, volume.voxel_size_ang


def put(folder: pathlib.Path, item: DataItem, table: CoordinateTable, negatives: np.ndarray) -> pathlib.Path:
    """Make a data folder of one tomogram; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / pathlib.Path(item.tomogram).name
    if not link.exists():
        os.symlink(os.path.abspath(item.tomogram), link)
    write_coordinates(folder / f"{item.name}.csv", table)
    if len(negatives):
        write_negatives(folder / f"{item.name}{NEGATIVES}", negatives)
    return folder


def answered(truth: CoordinateTable, labels: np.ndarray, picks: CoordinateTable, radius_vox: float, n: int,
             seed: int) -> Answers:
    """Return labels with what the annotator adds, and the places without a particle.

    Parameters
    ----------
    truth : CoordinateTable
        All particles.
    labels : (L,) int
        Rows of the truth that were annotated before.
    picks : CoordinateTable
        Of the model, in the same tomogram.
    radius_vox : float
        Largest distance of a hit.
    n, seed : int
        Answers, and seed of their order.
    """
    ranked = picks.sorted_by_score()
    hit = match_by_distance(truth, ranked, radius_vox)
    false = np.setdiff1d(np.arange(len(ranked)), hit.pick_index)[:n // 2]
    rng = np.random.default_rng(seed)
    missed = rng.permutation(np.setdiff1d(np.arange(len(truth)), np.concatenate([hit.truth_index, labels])))
    right = rng.permutation(np.setdiff1d(hit.truth_index, labels))
    added = np.concatenate([missed, right])[:n - len(false)].astype(int)
    print(f"answers: {len(false)} false picks, {min(len(missed), len(added))} missed particles, "
          f"{max(0, len(added) - len(missed))} right picks confirmed", flush=True)
    return truth.select(np.sort(np.concatenate([labels, added]))), ranked.positions_zyx_vox[false]


def score(model: str, args: argparse.Namespace, name: str) -> str:
    """Return F1, precision and recall of a model's picks in all tomograms but the first."""
    items = items_from_folder(args.data)[1:]
    folder = args.out / f"picks_{name}"
    pick(model, [item.tomogram for item in items], folder, quiet=True)
    voxel = read_classes(args.data)[1]
    params = {"items": [{"name": i.name, "truth": i.coordinates, "picks": str(folder / f"{i.name}.csv"),
                         "tomogram": i.tomogram, "voxel_size": known(i, voxel)[1],
                         "instances": str(pathlib.Path(i.tomogram).with_name(f"{i.name}_instances.mrc"))}
                        for i in items]}
    total = evaluate(params=params).overall
    return ", ".join(f"{key} {total[key]:.3f}" for key in ("F1", "precision", "recall"))


def main() -> None:
    """Print F1 before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--diameter-angstrom", type=float, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--answers", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--epochs", type=int, default=0, help="of refining, in place of minutes")
    parser.add_argument("--model", default="", help="a model that was trained with the same labels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    first = items_from_folder(args.data)[0]
    truth, voxel = known(first, read_classes(args.data)[1])
    labels = np.sort(np.random.default_rng(args.seed).permutation(len(truth))[:args.labels])
    few = put(args.out / "labels", first, truth.select(labels), np.zeros((0, 3)))
    given = {"diameter_angstrom": (args.diameter_angstrom,), "seed": args.seed}
    model = args.model
    if not model:
        model = str(args.out / "before.safetensors")
        train(few, model, TrainOptions(unannotated="unknown", **given), quiet=True)
    pick(model, [first.tomogram], args.out / "picks", quiet=True)
    picks = read_coordinates(args.out / "picks" / f"{first.name}.csv")
    radius = args.diameter_angstrom / voxel / 2
    corrected = put(args.out / "corrected", first, *answered(truth, labels, picks, radius, args.answers, args.seed))
    print(f"before: {score(model, args, 'before')}", flush=True)
    for name, folder in (("after, with the answers", corrected), ("after, without them", few)):
        out, start = args.out / f"{name.split()[1]}.safetensors", time.process_time()
        time_of = {"epochs": args.epochs} if args.epochs else {"minutes": args.minutes}
        manifest = refine(model, folder, out, RefineOptions(**time_of, **given), quiet=True)
        print(f"{name}: {score(str(out), args, name.split()[1])}; {manifest['outputs']['epochs']} epochs, "
              f"{time.process_time() - start:.0f} CPU s; {manifest['outputs']['verdict']['text']}", flush=True)


if __name__ == "__main__":
    main()
