"""What a session holds at one moment, to be read in many ways."""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np

from deepetpicker.annotation.records import (
    AnnotatedTomogram,
    Change,
    ClassLook,
    Negative,
    Particle,
    Position,
    Record,
)
from deepetpicker.errors import InputError
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.regions import Region

Kind = TypeVar("Kind", Particle, Negative, Region)


class Annotations:
    """Particles, negatives, regions and classes of several tomograms.

    Parameters
    ----------
    where : str
        What messages call it.
    """

    def __init__(self, where: str = "the annotation") -> None:
        self.where = where
        self._records: Dict[str, Dict[str, Dict[int, Record]]] = {}
        self._next = 1

    @property
    def tomograms(self) -> List[AnnotatedTomogram]:
        """Tomograms in the order in which they came."""
        found = [entry[0] for entry in self._records.get("tomogram", {}).values()]
        return [one for one in found if isinstance(one, AnnotatedTomogram)]

    @property
    def classes(self) -> List[ClassLook]:
        """Classes by ascending id."""
        found = self._of("class", "")
        return [one for _, one in sorted(found.items()) if isinstance(one, ClassLook)]

    def tomogram(self, name: str) -> AnnotatedTomogram:
        """Return a tomogram of the session.

        Raises
        ------
        InputError
            If there is none of that name.
        """
        for one in self.tomograms:
            if one.name == name:
                return one
        raise InputError(f"no tomogram {name!r} in {self.where}: there are "
                         f"{', '.join(t.name for t in self.tomograms) or 'none'}")

    def particles(self, tomogram: str) -> Dict[int, Particle]:
        """Return the particles of a tomogram by their keys."""
        return _only(Particle, self._of("particle", tomogram))

    def negatives(self, tomogram: str) -> Dict[int, Negative]:
        """Return the negatives of a tomogram by their keys."""
        return _only(Negative, self._of("negative", tomogram))

    def regions(self, tomogram: str) -> Dict[int, Region]:
        """Return the regions of a tomogram by their keys."""
        return _only(Region, self._of("region", tomogram))

    def get(self, kind: str, tomogram: str, key: int) -> Optional[Record]:
        """Return one record, None when there is none."""
        return self._of(kind, tomogram).get(key)

    def table(self, tomogram: str, only_reviewed: bool = False) -> CoordinateTable:
        """Return the particles of a tomogram, or those somebody has looked at, as a table, as they came."""
        found = [one for one in self.particles(tomogram).values() if one.reviewed or not only_reviewed]
        return CoordinateTable(np.array([p.position_zyx_vox for p in found], float).reshape(-1, 3),
                               np.array([p.class_id for p in found], np.int64),
                               np.array([p.score for p in found], float))

    def counts(self, tomogram: str) -> Dict[int, int]:
        """Return the number of particles of each class in a tomogram, by class id; 0 for classes without any."""
        found = {one.kind.id: 0 for one in self.classes}
        for particle in self.particles(tomogram).values():
            found[particle.class_id] = found.get(particle.class_id, 0) + 1
        return found

    def unreviewed(self, tomogram: str) -> List[int]:
        """Return the keys of particles that nobody has looked at yet."""
        return [key for key, one in self.particles(tomogram).items() if not one.reviewed]

    def ordered(self, tomogram: str, only_unreviewed: bool = False) -> List[int]:
        """Return the keys of particles in the order in which one walks through them: best score first, then as made."""
        found = self.particles(tomogram)
        keys = [key for key in found if not (only_unreviewed and found[key].reviewed)]
        return sorted(keys, key=lambda key: (-np.nan_to_num(found[key].score, nan=np.inf), key))

    def nearest(self, tomogram: str, position_zyx_vox: Sequence[float], within_vox: float) -> Optional[Tuple[str, int]]:
        """Return kind and key of the particle or negative nearest to a position, None when none is near enough."""
        best: Tuple[float, Optional[Tuple[str, int]]] = (within_vox, None)
        for kind, found in (("particle", self.particles(tomogram)), ("negative", self.negatives(tomogram))):
            for key, one in found.items():
                distance = float(np.linalg.norm(np.subtract(one.position_zyx_vox, position_zyx_vox)))
                if distance <= best[0]:
                    best = (distance, (kind, key))
        return best[1]

    def _of(self, kind: str, tomogram: str) -> Dict[int, Record]:
        """Return the records of a kind in a tomogram, to be read only."""
        return self._records.get(kind, {}).get(tomogram, {})

    def _apply(self, changes: Sequence[Change]) -> None:
        """Make changes in memory."""
        for one in changes:
            records = self._records.setdefault(one.kind, {}).setdefault(one.tomogram, {})
            if one.after is None:
                records.pop(one.key, None)
            else:
                records[one.key] = one.after
            if one.kind not in ("class", "tomogram"):
                self._next = max(self._next, one.key + 1)


def _only(kind: Type[Kind], records: Mapping[int, Record]) -> Dict[int, Kind]:
    """Return the records of one kind."""
    return {key: one for key, one in records.items() if isinstance(one, kind)}


def moved(particle: Particle, position_zyx_vox: Sequence[float]) -> Particle:
    """Return a particle at another place, looked at."""
    z, y, x = (float(v) for v in position_zyx_vox)
    place: Position = (z, y, x)
    return Particle(place, particle.class_id, particle.score, True)
