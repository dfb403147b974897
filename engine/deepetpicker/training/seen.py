"""What a training leaves in the model card beside weights: what it has seen, and how its scores are to be read."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from deepetpicker.calibration import Calibration
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.preparation.portrait import portrait
from deepetpicker.preparation.prominence import StandsOut
from deepetpicker.sampling.gather import Gathered
from deepetpicker.sampling.patches import Annotated


def seen(gathered: Gathered, regions: Sequence[Annotated], is_complete: bool) -> Dict[str, Any]:
    """Return what the tomograms of a training look like and how crowded they are, as JSON-ready values.

    Parameters
    ----------
    gathered : Gathered
        The tomograms with their particles.
    regions : sequence of Annotated
        Those trained on and those held out; two of one tomogram count once.
    is_complete : bool
        False when many particles were not annotated: then there are more than are counted.

    Returns
    -------
    dict
        ``portraits`` (``Portrait.to_dict`` of each tomogram), ``density`` (class id to the particles in a million
        working voxels of each tomogram that has any), ``prominence`` (class id to how far its particles stand out,
        see :class:`~deepetpicker.preparation.prominence.StandsOut`), ``is_complete``.
    """
    largest = max(c.diameter_ang for c in gathered.classes) / gathered.voxel_size_ang
    sources = {region.name: region.source for region in regions}
    crowds: Dict[str, List[float]] = {str(c.id): [] for c in gathered.classes}
    for volume, table in zip(gathered.volumes, gathered.tables):
        scale = max(volume.voxel_size_ang, gathered.voxel_size_ang) / volume.voxel_size_ang
        million = float(np.prod([float(n) for n in volume.shape_zyx])) / scale**3 / 1e6
        for class_id, count in zip(*np.unique(table.class_ids, return_counts=True)):
            crowds[str(class_id)].append(round(float(count / million), 3))
    return {"portraits": [portrait(source, largest).to_dict() for source in sources.values()], "density": crowds,
            "prominence": {str(c): one.to_list() for c, one in standing_out(gathered).items()},
            "is_complete": is_complete}


def standing_out(gathered: Gathered) -> Dict[int, StandsOut]:
    """Return by class id how far the annotated particles stand out of their tomograms, where enough of them tell."""
    found = {}
    for one in gathered.classes:
        known = StandsOut.of(np.concatenate(gathered.prominences[one.id]))
        if known:
            found[one.id] = known
    return found


def with_scores(classes: Sequence[ClassCard], best: Mapping[str, Any]) -> Tuple[ClassCard, ...]:
    """Return classes with the threshold and the calibration that the kept epoch has given them.

    Parameters
    ----------
    classes : sequence of ClassCard
        Of the training.
    best : mapping
        The kept epoch, from ``EpochEnd.best``; checkpoints of older versions have no calibrations.
    """
    scales = best.get("calibrations") or [None] * len(classes)
    maps = [scale and Calibration.from_dict(scale) for scale in scales]
    return tuple(dataclasses.replace(one, threshold=row["threshold"], calibration=scale)
                 for one, row, scale in zip(classes, best["picks"], maps))
