"""Ways to pick that are not ours: blobs, templates, and a plain segmentation with clustering.

Each looks for candidates of every class; labels give the score threshold of each class, where its F1 is best.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from typing import Any, Callable, Dict, List, Mapping, Sequence

import numpy as np

from deepetpicker.config import PickOptions
from deepetpicker.errors import InputError
from deepetpicker.evaluation.thresholds import score_picks
from deepetpicker.geometry import WorkingGrid
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.volumes import open_volume
from deepetpicker.picking.peaks import deduplicate
from deepetpicker.picking.run import pick
from deepetpicker.preparation.scene import CLIP, Scene
from deepetpicker.proposing.blobs import APART, find_blobs, peak_offsets, separate_peaks
from deepetpicker.simulation.particles import from_map, from_phantom
from deepetpicker.simulation.phantoms import phantom
from deepetpicker.studying import template
from deepetpicker.studying.clusters import mean_shift, segmented
from deepetpicker.studying.data import Tomogram, picking_params
from deepetpicker.studying.methods import Picked, Task, trained
from deepetpicker.studying.variants import BLOBS

Search = Callable[[Tomogram], CoordinateTable]

MOST = 1000  # candidates of a class in a tomogram
FLOOR = 0.01  # candidates with a lower score are none


def by_blobs(task: Task) -> Picked:
    """Pick blobs of each class's size, dark or bright as its labels are."""
    start = time.perf_counter()
    contrasts = {c.id: "dark" if _brightness(task, c) < 0 else "bright" for c in task.data.classes}

    def search(one: Tomogram) -> CoordinateTable:
        """Return the blobs of all classes."""
        tables = [find_blobs(Scene.open(one.volume, c.diameter_ang), MOST, contrasts[c.id]) for c in task.data.classes]
        return _together(task.data.classes, tables)

    return _with_thresholds(task, search, {"contrast": sorted(set(contrasts.values()))}, start)


def by_template(task: Task) -> Picked:
    """Pick what correlates with each class's map in any orientation, or with the mean of its labels as they lie."""
    from deepetpicker.network.predictor import choose_device

    start, options = time.perf_counter(), task.options
    maps = options.maps or (("phantom",) * len(task.data.classes) if task.data.is_simulated else ())
    if maps and len(maps) != len(task.data.classes):
        raise InputError(f"expected a map for each of {len(task.data.classes)} classes, in the order of their ids, got "
                         f"{len(maps)}: give --maps with all of them, or without for the mean of the labels")
    means = {} if maps else {c.id: _mean_label(task, c) for c in task.data.classes}
    dark = {c.id: _brightness(task, c) < 0 for c in task.data.classes} if maps else {}
    device = choose_device(options.device)

    def search(one: Tomogram) -> CoordinateTable:
        """Return the peaks of the correlation of all classes."""
        tables = []
        for number, c in enumerate(task.data.classes):
            scene = Scene.open(one.volume, c.diameter_ang)
            if maps:
                turned = template.rotated(_density(maps[number], c, scene) * (-1 if dark[c.id] else 1),
                                          options.orientations)
                shown = (template.behind_wedge(box, options.tilt_range) for box in turned)
            else:
                shown = (mean for mean in [means[c.id]])
            score = template.correlation(np.clip(scene.grey_zyx, -CLIP, CLIP), shown, scene.radius_vox, device)
            voxels, heights = separate_peaks(score, APART * 2 * scene.radius_vox, MOST)
            tables.append(CoordinateTable(scene.grid.to_input(voxels + peak_offsets(score, voxels)),
                                          np.ones(len(voxels), np.int64), heights))
        return _together(task.data.classes, tables)

    facts = {"orientations": options.orientations if maps else 1, "template": "map" if maps else "mean of the labels"}
    return _with_thresholds(task, search, facts, start)


def by_clusters(task: Task) -> Picked:
    """Train a network, segment the tomograms and cluster the voxels of each class by mean shift."""
    facts = trained(task)
    start, folder = time.perf_counter(), task.folder / "maps" / task.name
    options = PickOptions(device=task.options.device, save_map=True)
    radius = {c.id: max(float(task.variant.train["label_diameter"]) / 2, c.diameter_ang / task.data.voxel_size_ang / 4)
              for c in task.data.classes}

    def search(one: Tomogram) -> CoordinateTable:
        """Return the clusters of all classes."""
        item = pick(facts["model"], (), folder, options, picking_params([one]), task.quiet)["items"][0]
        paths = [item["maps"][str(c.id)] for c in task.data.classes]
        classes = segmented(np.stack([open_volume(path, task.data.voxel_size_ang).data_zyx for path in paths]))
        voxel = one.volume.voxel_size_ang
        grid = WorkingGrid(one.volume.shape_zyx, voxel, max(task.data.voxel_size_ang, voxel))
        tables = [mean_shift(classes == channel, radius[c.id]) for channel, c in enumerate(task.data.classes, 1)]
        return _together(task.data.classes, [dataclasses.replace(
            table, positions_zyx_vox=grid.to_input(table.positions_zyx_vox)) for table in tables])

    picked = _with_thresholds(task, search, facts, start)
    shutil.rmtree(folder, ignore_errors=True)
    return picked


def _with_thresholds(task: Task, search: Search, facts: Dict[str, Any], start: float) -> Picked:
    """Find the threshold of each class on the labelled tomograms and pick the scored ones.

    Of picks of two classes that are closer than a particle the one of the better score stays; of blobs that of the
    larger class, and of classes of one size that of the higher threshold.

    Parameters
    ----------
    task : Task
        Labels, tomograms, folder.
    search : callable
        Gives the candidates of a tomogram, in its voxels, with scores from 0 to 1.
    facts : dict
        What else is known; its ``training_s`` is added to.
    start : float
        When the learning began, by ``time.perf_counter``.
    """
    limits = thresholds(task, {one.name: search(one) for one in task.data.labelled})
    learnt = time.perf_counter()
    for one in task.data.scored:
        found = search(one)
        kept = found.select(found.scores >= np.array([limits[int(c)] for c in found.class_ids]))
        apart = {c.id: c.diameter_ang / 2 / one.volume.voxel_size_ang for c in task.data.classes}
        if task.variant.method == BLOBS:  # its scores say nothing of the class
            order = sorted(task.data.classes, key=lambda c: (-c.diameter_ang, -limits[c.id], c.id))
            kept = by_turns(kept, [c.id for c in order], apart)
        for table, suffix in ((kept, ""), (found, "_candidates")):
            inside = np.clip(table.positions_zyx_vox, 0, np.array(one.volume.shape_zyx) - 1.0)
            write_coordinates(task.picks / f"{one.name}{suffix}.csv",
                              deduplicate(dataclasses.replace(table, positions_zyx_vox=inside), apart))
    return Picked(task.picks, {
        **facts, "training_s": round(facts.get("training_s", 0.0) + learnt - start, 2),
        "picking_s": round(time.perf_counter() - learnt, 2), "thresholds": {str(c): t for c, t in limits.items()}})


def thresholds(task: Task, found: Mapping[str, CoordinateTable]) -> Dict[int, float]:
    """Return the score of each class at which F1 is best for the labels, by class id.

    Parameters
    ----------
    task : Task
        Labels and tomograms.
    found : mapping of str to CoordinateTable
        Candidates of the labelled tomograms by name, in their voxels.
    """
    data, pairs = task.data, []
    for one in data.labelled:
        scale = one.volume.voxel_size_ang / data.voxel_size_ang
        pairs.append((_scaled(task.labels[one.name], scale), _scaled(found[one.name], scale)))
    radii = {c.id: c.diameter_ang / 2 / data.voxel_size_ang for c in data.classes}
    is_complete = sum(map(len, task.labels.values())) == data.n_labels
    return {one.class_id: one.threshold for one in score_picks(pairs, radii, FLOOR, is_complete).classes}


def by_turns(table: CoordinateTable, order: Sequence[int], apart_vox: Dict[int, float]) -> CoordinateTable:
    """Return a table without picks too close to one of a class whose turn was before, or to a better one of their own.

    Parameters
    ----------
    table : CoordinateTable
        Picks with scores from 0 to 1.
    order : sequence of int
        Class ids.
    apart_vox : dict
        Class id to the least distance, as for ``picking.peaks.deduplicate``.
    """
    turn = {class_id: 2.0 * (len(order) - k) for k, class_id in enumerate(order)}
    before = np.array([turn[int(c)] for c in table.class_ids])
    kept = deduplicate(dataclasses.replace(table, scores=table.scores + before), apart_vox)
    after = np.array([turn[int(c)] for c in kept.class_ids])
    return dataclasses.replace(kept, scores=kept.scores - after)


def _scaled(table: CoordinateTable, scale: float) -> CoordinateTable:
    """Return a table with all positions times a factor."""
    return dataclasses.replace(table, positions_zyx_vox=table.positions_zyx_vox * scale)


def _together(classes: Sequence[ParticleClass], tables: List[CoordinateTable]) -> CoordinateTable:
    """Return tables of one class each, in the order of the classes, as one; a score too low or NaN is none."""
    found = CoordinateTable.concatenate([dataclasses.replace(table, class_ids=np.full(len(table), c.id, np.int64))
                                         for c, table in zip(classes, tables)])
    return found.select(found.scores >= FLOOR)


def _brightness(task: Task, one_class: ParticleClass) -> float:
    """Return how bright the labels of a class are against their surroundings; negative is dark."""
    responses = []
    for one in task.data.labelled:
        positions = task.labels[one.name].positions_zyx_vox[task.labels[one.name].class_ids == one_class.id]
        if len(positions):
            scene = Scene.open(one.volume, one_class.diameter_ang)
            responses.append(scene.response_zyx[tuple(scene.voxels(positions).T)])
            break
    return float(np.mean(responses)) if responses else -1.0


def _mean_label(task: Task, one_class: ParticleClass) -> np.ndarray:
    """Return the mean of the labels of a class as they lie, (N, N, N), on the grid of its scenes."""
    total, number = np.zeros(1), 0
    for one in task.data.labelled:
        positions = task.labels[one.name].positions_zyx_vox[task.labels[one.name].class_ids == one_class.id]
        if not len(positions):
            continue
        scene = Scene.open(one.volume, one_class.diameter_ang)
        edge = template.box_edge(scene.radius_vox)
        mean, n = template.mean_at(scene.grey_zyx, scene.grid.to_working(positions), edge)
        total, number = total + mean * n, number + n
    return total / max(number, 1)


def _density(given: str, one_class: ParticleClass, scene: Scene) -> np.ndarray:
    """Return a class's bright density on the grid of a scene, (N, N, N): of a map file, or its phantom."""
    voxel = scene.grid.working_voxel_ang
    particle = from_phantom(phantom(one_class.name), voxel) if given == "phantom" else from_map(given, voxel)
    return template.in_box(particle.density_zyx, template.box_edge(scene.radius_vox))
