"""Annotated places that stand out of their tomogram much less than the others: there may be no particle."""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Sequence

import numpy as np

from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.prominence import StandsOut, prominence

UNLIKE = 0.4  # times as far as the others: no simulated particle stands out less than 0.54 times (docs/studies.rst)
FEWEST = 5  # particles that tell how far the others stand out
SEEN = 2.5  # standard deviations that particles stand out at least (empty ground: 1 to 1.7), else they tell nothing
MUCH = 0.2  # share of the particles that is more than a slip
LISTED = 5


@dataclasses.dataclass(frozen=True)
class FaintPlaces:
    """Places of a class that are unlike the others.

    Attributes
    ----------
    label : str
        Of the class.
    places : list of str
        Tomogram and position of each, x y z in voxels.
    n : int
        Particles of the class.
    """

    label: str
    places: List[str]
    n: int

    @property
    def are_many(self) -> bool:
        """Whether they are more than a slip or two."""
        return len(self.places) >= MUCH * self.n

    def __str__(self) -> str:
        some = "; ".join(self.places[:LISTED]) + (" ..." if len(self.places) > LISTED else "")
        return (f"{self.label}: {len(self.places)} of {self.n} particles stand out of the tomogram less than "
                f"{UNLIKE:g} times as far as the others: look whether there is one ({some})")


def faint_places(volumes: Sequence[Volume], tables: Sequence[CoordinateTable], one: ParticleClass,
                 values: Optional[Sequence[np.ndarray]] = None) -> Optional[FaintPlaces]:
    """Return which particles of a class are unlike the others; None when none is, or too few tell.

    Parameters
    ----------
    volumes : sequence of Volume
        The tomograms.
    tables : sequence of CoordinateTable
        Their particles, in the tomograms' voxels.
    one : ParticleClass
        The class, with its diameter.
    values : sequence of (N, 2) float, optional
        :func:`~deepetpicker.preparation.prominence.prominence` of the class in each tomogram, where it is known.
    """
    mine = [table.positions_zyx_vox[table.class_ids == one.id] for table in tables]
    if values is None:
        values = [prominence(volume, at, one.diameter_ang) for volume, at in zip(volumes, mine)]
    every = StandsOut.of(np.concatenate(list(values))) if sum(map(len, values)) >= FEWEST else None
    if every is None or every.typical < SEEN:
        return None
    places: List[str] = []
    for volume, at, theirs in zip(volumes, mine, values):
        near = np.isfinite(theirs).all(1).sum() >= FEWEST  # of tomograms with another contrast their own
        usual = float(np.nanmedian(theirs[:, int(every.is_dark)])) if near else every.typical
        rows = np.flatnonzero(theirs[:, int(every.is_dark)] < UNLIKE * usual)
        places += [f"{volume.name} at {x:.0f} {y:.0f} {z:.0f}" for z, y, x in at[rows]]
    return FaintPlaces(one.label, places, sum(map(len, mine))) if places else None
