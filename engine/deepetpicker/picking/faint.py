"""Candidates that stand out too little to be particles."""

from __future__ import annotations

import dataclasses
from typing import Dict, Mapping, Tuple

import numpy as np

from deepetpicker.config import PickOptions
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.prominence import StandsOut, prominence


@dataclasses.dataclass(frozen=True)
class Faint:
    """What was left out of the candidates of a tomogram.

    Attributes
    ----------
    counts : dict
        Class id to how many would have been picks; of classes that were looked at.
    shares : dict
        Class id to how far the better half of the picks stands out, by what annotated particles do (0..1).
    """

    counts: Dict[int, int] = dataclasses.field(default_factory=dict)
    shares: Dict[int, float] = dataclasses.field(default_factory=dict)


def is_looked_for(options: PickOptions, card: ModelCard) -> bool:
    """Tell whether faint candidates are dropped: as the user says, else where a part of the particles taught."""
    return options.faint == "drop" or (options.faint == "auto" and card.is_partial)


def without_faint(candidates: CoordinateTable, volume: Volume, card: ModelCard, limits: Mapping[int, float]
                  ) -> Tuple[CoordinateTable, Faint]:
    """Return the candidates of a tomogram that stand out as particles do, and what was left out.

    Parameters
    ----------
    candidates : CoordinateTable
        In the tomogram's voxels.
    volume : Volume
        The tomogram.
    card : ModelCard
        Of the model; one made before this was measured leaves nothing out.
    limits : mapping
        Class id to the score at and above which candidates are picks.
    """
    known = (card.training.get("seen") or {}).get("prominence") or {}
    kept, faint = np.ones(len(candidates), bool), Faint()
    for one in card.classes:
        theirs, rows = StandsOut.from_list(known.get(str(one.id))), np.flatnonzero(candidates.class_ids == one.id)
        if theirs is None or not len(rows):
            continue
        scores = candidates.scores[rows]
        values = prominence(volume, candidates.positions_zyx_vox[rows], one.diameter_ang)
        picked = scores >= limits[one.id]
        share = theirs.share_of(values[picked], scores[picked])
        are_faint = theirs.are_faint(values, share)
        kept[rows] = ~are_faint
        faint.counts[one.id], faint.shares[one.id] = int((are_faint & picked).sum()), round(share, 3)
    return candidates.select(np.flatnonzero(kept)), faint
