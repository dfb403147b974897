"""How the variants of a study pick: labels in, tables of picks and the seconds they took out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import pathlib
import time
from typing import Any, Dict

from deepetpicker.config import PickOptions, StudyOptions, TrainOptions, from_mapping
from deepetpicker.picking.run import pick
from deepetpicker.studying.data import StudyData, Tables, digest, picking_params, training_params
from deepetpicker.studying.variants import Variant
from deepetpicker.training.recipe import filled_in
from deepetpicker.training.run import train
from deepetpicker.training.run_folder import read_metrics

log = logging.getLogger(__name__)

EPOCHS = 10  # in which a budget of voxels is trained
FEWEST_PATCHES = 64  # in an epoch of a budget of minutes


@dataclasses.dataclass(frozen=True)
class Picked:
    """What a method did.

    Attributes
    ----------
    folder : pathlib.Path
        Holds NAME.csv (the picks) and NAME_candidates.csv (those at any score) of each scored tomogram.
    facts : dict
        JSON-ready: ``training_s`` (learning from the labels), ``picking_s``, and what else there is to know.
    """

    folder: pathlib.Path
    facts: Dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One variant with one seed.

    Attributes
    ----------
    variant : Variant
        What is to be done.
    seed : int
        Of labels and training.
    data : StudyData
        Tomograms.
    labels : dict of str to CoordinateTable
        What it may know of the labelled tomograms.
    options : StudyOptions
        Budget and device.
    folder : pathlib.Path
        The study's.
    quiet : bool
        True shows no progress.
    """

    variant: Variant
    seed: int
    data: StudyData
    labels: Tables
    options: StudyOptions
    folder: pathlib.Path
    quiet: bool = False

    @property
    def name(self) -> str:
        """Unique in the study and good for a file name."""
        return f"{self.variant.name}_seed{self.seed}"

    @property
    def picks(self) -> pathlib.Path:
        """Folder of its picks."""
        return self.folder / "picks" / self.name


def by_network(task: Task) -> Picked:
    """Train on the labels and pick, by the functions that the commands use."""
    facts = trained(task)
    options = from_mapping(PickOptions, {"device": task.options.device, **task.variant.pick})
    start = time.perf_counter()
    pick(facts["model"], (), task.picks, options, picking_params(task.data.scored), task.quiet)
    return Picked(task.picks, {**facts, "picking_s": round(time.perf_counter() - start, 2)})


def trained(task: Task) -> Dict[str, Any]:
    """Train the network of a task, unless that was done before; return its facts.

    Two variants that differ in how they pick share a model: its name says what it was trained with.
    """
    options = training_options(task)
    wanted = json.dumps([options.to_dict(), digest(task.labels), [str(one.volume.path) for one in task.data.labelled]])
    name = f"seed{task.seed}_{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    params = training_params(task.data, task.labels, task.folder / "labels" / name)
    manifest = train("", task.folder / "models" / f"{name}.safetensors", options, task.quiet, params)
    outputs, used = manifest["outputs"], manifest["options"]
    steps = outputs["epochs"] * -(-used["patches_per_epoch"] // used["batch"])
    seconds = sum(row["seconds"] for row in read_metrics(outputs["metrics"]))
    return {"model": outputs["model"], "training_s": round(seconds, 2), "steps": steps, "batch": used["batch"],
            "patch": used["patch"], "megavoxels": round(steps * used["batch"] * used["patch"] ** 3 / 1e6, 3),
            "widths": used["widths"], "verdict": outputs["verdict"]["grade"]}


def training_options(task: Task) -> TrainOptions:
    """Return how the network of a task is trained: the study's budget, the variant's options, all else as by default.

    A budget of voxels becomes as many optimiser steps as it has batches of patches, and none ends early.
    """
    study, data = task.options, task.data
    values: Dict[str, Any] = {"seed": task.seed, "device": study.device, "check": False, "patience": 0,
                              "refit": "no", **task.variant.train}
    if sum(map(len, task.labels.values())) < data.n_labels:
        values["unannotated"] = "unknown"
        values["self_training"] = "no"  # one training each as with "refit", or budgets would differ
    if study.quick:
        values.update(widths=(4, 6), patch=32, batch=2)
    options = from_mapping(TrainOptions, values)
    if study.minutes:
        return dataclasses.replace(options, minutes=study.minutes, patches_per_epoch=max(
            FEWEST_PATCHES, sum(map(len, task.labels.values()))))
    full = filled_in(options, [c.diameter_ang / data.voxel_size_ang for c in data.classes])
    steps = max(1, round(1e6 * study.megavoxels / (full.batch * full.patch ** 3)))
    epochs = min(EPOCHS, steps)
    return dataclasses.replace(options, epochs=epochs, patches_per_epoch=full.batch * max(1, round(steps / epochs)))
