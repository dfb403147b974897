"""Self-training: what a first network surely finds among what nobody annotated are labels of the one that is kept.

With ten labels in a tomogram of forty particles a network learns these ten by heart. Trained for a short time it finds
most of the others, though not where exactly; trained anew with all of them it finds more, and centres them better
(docs/studies.rst). Held-out parts never get such labels: the run is judged by what was annotated.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import shutil
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np
from scipy.spatial import cKDTree

from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.preparation.prominence import StandsOut, prominence
from deepetpicker.sampling.patches import Annotated
from deepetpicker.training.job import Job
from deepetpicker.training.recipe import RECIPES
from deepetpicker.training.run_folder import RunFolder
from deepetpicker.training.seen import standing_out
from deepetpicker.training.validation import Looked, Validator

log = logging.getLogger(__name__)

SURE = 0.5  # height of a peak that becomes a label (an ideal one has 0.75), and of a pick unless more is known
LOOKED_AT = 8  # times the tiles of a validation
DOUBTFUL = 0.3  # height of what may be a particle
ONE, APART = 0.5, 0.75  # diameters: nearer candidates are one, farther ones two; between them, who knows
MANY_TIMES, FEW = 20, 5  # so many times the labels, of at least so many, are too many to be believed


def is_wanted(options: TrainOptions) -> bool:
    """Tell whether a run trains twice: as the user says, else as the recipe does where much is not annotated.

    Raises
    ------
    InputError
        If the user says so on several devices.
    """
    if options.devices * options.nodes > 1:
        if options.self_training == "yes":
            raise InputError("self-training was asked for on several devices: expected one (--devices 1 --nodes 1), or "
                             "--self-training no")
        return False
    return options.self_training == "yes" or (options.self_training == "auto" and options.unannotated == "unknown"
                                              and RECIPES[options.recipe].trains_itself)


def first_job(job: Job, options: TrainOptions) -> Job:
    """Return the parts of the first training: its own network and its own folder, in the run's."""
    run = RunFolder(job.run.path / f"{job.run.model.stem}_first.safetensors")
    return dataclasses.replace(job, options=options, network=copy.deepcopy(job.network), run=run)


def with_found(job: Job, weights: Mapping[str, Any]) -> Tuple[List[Annotated], Dict[str, int]]:
    """Return the tomograms to train on with what a network surely finds in them, and how much that was.

    Parameters
    ----------
    job : Job
        The run.
    weights : mapping
        State of the first network.

    Returns
    -------
    list of Annotated, dict
        As ``job.train`` with more positions; number of new labels by the tomogram's name.
    """
    network = ResUNet3D(job.network.options)
    network.load_state_dict(weights)
    every = dataclasses.replace(job.rule, is_unknown=False)  # else only what is certain would be looked at
    looker = Validator(job.train, every, job.validator.peak_rules, LOOKED_AT * job.options.validation_tiles,
                       job.options.alpha, network.stride)
    looker(network.to(job.arithmetic.device), job.arithmetic)
    found, known = {one.name: one for one in looker.looked}, standing_out(job.gathered)
    trained, counts = [], {}
    for tomogram in job.train:
        table = None
        if tomogram.name in found:
            table = prominent(tomogram, sure(tomogram, found[tomogram.name], job), job, known)
        counts[tomogram.name] = len(table) if table is not None else 0
        trained.append(tomogram if table is None else _extended(tomogram, table, job))
    return trained, counts


def sure(tomogram: Annotated, looked: Looked, job: Job) -> CoordinateTable:
    """Return the candidates of a tomogram that are surely particles and that nobody annotated, best first.

    Left out are those near an annotated centre, those where there is certainly none, and those that lie so near to each
    other that they may be two parts of one particle: nobody knows where its centre is then.

    Parameters
    ----------
    tomogram : Annotated
        With the particles that are known in it.
    looked : Looked
        What was found in it, on the working grid.
    job : Job
        The run.
    """
    table = looked.found.select(looked.found.scores >= DOUBTFUL)
    table = table.select(np.argsort(-table.scores, kind="stable"))
    diameter = {c.id: job.rule.diameters_vox[k] for k, c in enumerate(job.gathered.classes, 1)}
    places, scores = table.positions_zyx_vox, table.scores
    widths = np.array([diameter[int(i)] for i in table.class_ids])
    best: List[int] = []  # of the candidates that are one and the same
    for row in range(len(table)):
        if not best or np.linalg.norm(places[best] - places[row], axis=1).min() >= ONE * widths[row]:
            best.append(row)
    alone = cKDTree(places[best]) if best else None
    known = cKDTree(tomogram.positions_zyx_vox) if len(tomogram.positions_zyx_vox) else None
    certain = tomogram.certain.is_background(places, job.rule.negative_radius_vox)
    kept = [row for row in best if scores[row] >= SURE and not certain[row]
            and alone is not None and len(alone.query_ball_point(places[row], APART * widths[row])) == 1
            and (known is None or known.query(places[row])[0] >= APART * widths[row])]
    return table.select(np.array(kept, int))


def prominent(tomogram: Annotated, table: CoordinateTable, job: Job, known: Mapping[int, StandsOut]) -> CoordinateTable:
    """Return the finds of a tomogram that stand out of it as particles do; of classes not in known all."""
    volume = next(one for one in job.gathered.volumes if one.name == tomogram.name)
    places, kept = job.gathered.grid(volume).to_input(table.positions_zyx_vox), np.ones(len(table), bool)
    for one in job.gathered.classes:
        mine = np.flatnonzero(table.class_ids == one.id)
        if one.id in known and len(mine):
            kept[mine] = ~known[one.id].are_faint(prominence(volume, places[mine], one.diameter_ang))
    if not kept.all():
        log.info("%s: %s: %d sure find(s) stand out too little to be particles", job.run.model.stem, tomogram.name,
                 int((~kept).sum()))
    return table.select(np.flatnonzero(kept))


def _extended(tomogram: Annotated, table: CoordinateTable, job: Job) -> Annotated:
    """Return the tomogram with more particles."""
    channel = {c.id: k for k, c in enumerate(job.gathered.classes, 1)}
    channels = np.array([channel[int(i)] for i in table.class_ids], tomogram.channels.dtype)
    return dataclasses.replace(
        tomogram, positions_zyx_vox=np.concatenate([tomogram.positions_zyx_vox, table.positions_zyx_vox]),
        channels=np.concatenate([tomogram.channels, channels]))


def write_found(job: Job, trained: Sequence[Annotated]) -> None:
    """Write the new labels of each tomogram into the run folder, in its own voxels: people want to see them."""
    shutil.rmtree(job.run.found, ignore_errors=True)
    volumes = {volume.name: volume for volume in job.gathered.volumes}
    for before, one in zip(job.train, trained):
        n = len(before.positions_zyx_vox)
        ids = np.array([job.gathered.classes[int(c) - 1].id for c in one.channels[n:]], np.int64)
        positions = job.gathered.grid(volumes[one.name]).to_input(one.positions_zyx_vox[n:])
        write_coordinates(job.run.found / f"{one.name}.csv", CoordinateTable(positions, ids, np.full(len(ids), np.nan)))


def in_words(job: Job, counts: Mapping[str, int]) -> str:
    """Return what the first training found."""
    n_known, n_found = sum(len(t.inside) for t in job.train), sum(counts.values())
    return (f"{n_found} more particles that the first training is sure of in {len(counts)} tomogram(s) become labels, "
            f"beside {n_known} annotated ones")


def odd(job: Job, counts: Mapping[str, int]) -> str:
    """Return what is odd about the number of new labels, for the user; empty when nothing is."""
    n_known, n_found = sum(len(t.inside) for t in job.train), sum(counts.values())
    if not n_found:
        return ("the first training is sure of no particle beside the annotated ones: the second had no more labels; "
                "train longer, or label more")
    if n_found > MANY_TIMES * max(n_known, FEW):
        return (f"the first training is sure of {n_found} particles beside {n_known} annotated ones, which is "
                f"many: look at them in {job.run.found}, and train with --self-training no if they are none")
    return ""
