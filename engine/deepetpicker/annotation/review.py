"""Reviewing picks without a window: in which order they are looked at, and what an answer does to the session.

Picks that nobody has looked at are particles of the session with ``reviewed`` false; an answer makes it true, or makes
a negative of the particle. So a review is kept, undone, gone on with and turned into tables as any annotation.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.annotation.annotations import moved
from deepetpicker.annotation.records import Change, Negative, Particle, Position
from deepetpicker.annotation.session import Session
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.outliers import Spread, Unlike, unlike_others

SCORE, DOUBT, TOMOGRAM = "score", "doubt", "tomogram"
NEW, ALL, REFUSED_ONLY = "new", "all", "refused"
RIGHT, REFUSED, OPEN, OFFER, GONE = "right", "refused", "", "offer", "gone"
OFFERED = 10 ** 9  # keys from here down are rows of what is offered; other keys below 0 are those of negatives
APART = 0.5  # diameters from any mark within which a candidate is that


@dataclasses.dataclass(frozen=True)
class Entry:
    """A pick in the list: its tomogram, the key of the particle (0: it never was one), and how it was then."""

    tomogram: str
    key: int
    given: Particle


class Review:
    """The picks of a session in the order in which they are looked at.

    Parameters
    ----------
    session : Session
        Holds the picks.
    thresholds : mapping
        Score threshold by class id; of other classes the lowest score counts.
    within : sequence of str, optional
        Names of the tomograms that are reviewed; default: all of the session.
    below : mapping of str to CoordinateTable
        Candidates by tomogram that are offered, too: they become particles only when they are accepted.
    """

    def __init__(self, session: Session, thresholds: Optional[Mapping[int, float]] = None,
                 within: Optional[Sequence[str]] = None,
                 below: Optional[Mapping[str, CoordinateTable]] = None) -> None:
        self.session, self.given, self._within = session, dict(thresholds or {}), within
        self.below = dict(below or {})
        self.entries: List[Entry] = []
        self._negatives: Dict[Tuple[str, int], int] = {}  # key of the negative of an entry, by its tomogram and key
        self._particles: Dict[Tuple[str, int], int] = {}  # key of the particle that was made of an entry without one

    # ---- the order
    def arrange(self, by: str = SCORE, tomogram: str = "", show: str = NEW) -> None:
        """Make the list.

        Parameters
        ----------
        by : str
            ``SCORE``: best first. ``DOUBT``: nearest to the threshold first. ``TOMOGRAM``: tomogram by tomogram, those
            that are unlike the others first, best score first in each.
        tomogram : str
            The only tomogram; empty for all.
        show : str
            ``NEW``: what nobody has looked at. ``ALL``: all particles. ``REFUSED_ONLY``: what was refused.
        """
        names = [tomogram] if tomogram else self.names()
        found: List[Entry] = []
        for name in names:
            if show == REFUSED_ONLY:
                found += self._refused(name)
            else:
                found += [Entry(name, key, one) for key, one in self.session.particles(name).items()
                          if show == ALL or not one.reviewed]
                found += self._offered(name)
        scores = np.array([one.given.score for one in found], float)
        unknown = np.isnan(scores)
        if by == DOUBT:
            lows = self.thresholds()
            low = np.array([lows.get(one.given.class_id, 0.0) for one in found])
            order = np.lexsort((-np.nan_to_num(scores), np.abs(np.nan_to_num(scores) - low), unknown))
        elif by == TOMOGRAM:
            places = {name: place for place, name in enumerate(self.tomograms())}
            order = np.lexsort((-np.nan_to_num(scores), unknown, np.array([places[one.tomogram] for one in found])))
        else:
            order = np.lexsort((-np.nan_to_num(scores), unknown))
        self.entries = [found[at] for at in order]

    def names(self) -> List[str]:
        """Return the names of the tomograms that are reviewed."""
        return [one.name for one in self.session.tomograms if self._within is None or one.name in self._within]

    def _offered(self, name: str) -> List[Entry]:
        """Return an entry for each candidate of a tomogram that nobody has answered."""
        if name not in self.below or not len(self.below[name]):
            return []
        table = self.below[name]
        marks: List[Union[Particle, Negative]] = [*self.session.particles(name).values(),
                                                  *self.session.negatives(name).values()]
        places = np.array([one.position_zyx_vox for one in marks]).reshape(-1, 3)
        voxel = self.session.tomogram(name).voxel_size_ang
        sizes = {one.kind.id: one.kind.diameter_ang / voxel for one in self.session.classes}
        out = []
        for row, (position, class_id, score) in enumerate(zip(table.positions_zyx_vox, table.class_ids.tolist(),
                                                              table.scores.tolist())):
            apart = np.linalg.norm(places - position, axis=1).min() if len(places) else np.inf
            if apart > APART * sizes.get(class_id, 0.0):
                z, y, x = position.tolist()
                out.append(Entry(name, -OFFERED - row, Particle((z, y, x), class_id, score, False)))
        return out

    def _refused(self, name: str) -> List[Entry]:
        """Return an entry for each negative of a tomogram; accepted, it becomes a particle of the first class."""
        first = self.session.classes[0].kind.id if self.session.classes else 1
        known = {negative: key for (tomogram, key), negative in self._negatives.items() if tomogram == name}
        out = []
        for negative, one in self.session.negatives(name).items():
            key = known.get(negative, -negative)
            self._negatives[name, key] = negative
            out.append(Entry(name, key, Particle(one.position_zyx_vox, first, math.nan, False)))
        return out

    def thresholds(self) -> Dict[int, float]:
        """Return the threshold of each class: the given one, or its lowest score."""
        lows: Dict[int, float] = {}
        for name in self.names():
            for particle in self.session.particles(name).values():
                if not math.isnan(particle.score):
                    lows[particle.class_id] = min(particle.score, lows.get(particle.class_id, math.inf))
        return {**lows, **self.given}

    def unlike(self) -> Dict[str, Unlike]:
        """Return for each tomogram how its particles differ from those of the others."""
        tables = {name: self.session.table(name) for name in self.names()}
        return unlike_others({name: Spread.of(table.scores, table.positions_zyx_vox[:, 0],
                                              self.session.tomogram(name).shape_zyx[0], table.class_ids)
                              for name, table in tables.items()})

    def tomograms(self) -> List[str]:
        """Return the names of the tomograms, those that are unlike the others first."""
        unlike = self.unlike()
        remarkable = sorted((name for name in unlike if unlike[name].reasons), key=lambda n: -unlike[n].distance)
        return remarkable + [name for name in unlike if name not in remarkable]

    # ---- what became of them
    def state(self, number: int) -> str:
        """Return what is known of an entry: ``RIGHT``, ``REFUSED``, ``OPEN``, ``OFFER``, or ``GONE`` (removed)."""
        entry = self.entries[number]
        particle = self._particle(entry)
        if particle is not None:
            return RIGHT if particle.reviewed else OPEN
        if self._negative(entry) is not None:
            return REFUSED
        return OFFER if entry.key <= -OFFERED else GONE

    def now(self, number: int) -> Particle:
        """Return an entry as it is now; what was refused or removed, as it was."""
        entry = self.entries[number]
        return self._particle(entry) or entry.given

    def _particle(self, entry: Entry) -> Optional[Particle]:
        """Return the particle of an entry, None when there is none now."""
        found = self.session.get("particle", entry.tomogram, self._key(entry))
        return found if isinstance(found, Particle) else None

    def _key(self, entry: Entry) -> int:
        """Return the key of the particle of an entry, below 0 when it never had one."""
        return self._particles.get((entry.tomogram, entry.key), entry.key)

    def _negative(self, entry: Entry) -> Optional[int]:
        """Return the key of the negative that was made of an entry, None when there is none now."""
        key = self._negatives.get((entry.tomogram, entry.key), 0)
        return key if self.session.get("negative", entry.tomogram, key) is not None else None

    def looked_at(self) -> Tuple[int, int, int]:
        """Return how many particles were looked at, how many there are, and how many places were refused."""
        names = self.names()
        total = sum(len(self.session.particles(name)) for name in names)
        new = sum(len(self.session.unreviewed(name)) for name in names)
        return total - new, total, sum(len(self.session.negatives(name)) for name in names)

    # ---- the answers
    def accept(self, numbers: Sequence[int]) -> None:
        """Note that entries are right; what was refused or offered becomes a particle."""
        changes: List[Change] = []
        new, made = self.session.next_key, {}
        for entry in (self.entries[number] for number in numbers):
            particle, negative, key = self._particle(entry), self._negative(entry), self._key(entry)
            if particle is not None:
                if not particle.reviewed:
                    changes.append(self._changed(entry, particle, dataclasses.replace(particle, reviewed=True)))
            elif negative is not None or entry.key <= -OFFERED:
                if key < 0:
                    key, new = new, new + 1
                place: Union[Particle, Negative] = entry.given
                if negative is not None:
                    place = self.session.negatives(entry.tomogram)[negative]
                    changes.append(Change("negative", entry.tomogram, negative, place, None))
                after = moved(entry.given, place.position_zyx_vox)
                changes.append(Change("particle", entry.tomogram, key, None, after))
                made[entry.tomogram, entry.key] = key
        self.session.change_many(changes)
        self._particles.update(made)

    def refuse(self, numbers: Sequence[int]) -> None:
        """Make negatives of entries."""
        changes: List[Change] = []
        made: Dict[Tuple[str, int], int] = {}
        for number in numbers:
            entry, particle, new = self.entries[number], self._particle(self.entries[number]), self.session.next_key
            if particle is not None:
                changes.append(self._changed(entry, particle, None))
            if particle is not None or self.state(number) == OFFER:
                made[entry.tomogram, entry.key] = new + len(made)
                place = (particle or entry.given).position_zyx_vox
                changes.append(Change("negative", entry.tomogram, made[entry.tomogram, entry.key], None,
                                      Negative(place)))
        self.session.change_many(changes)
        self._negatives.update(made)

    def give_class(self, numbers: Sequence[int], class_id: int) -> None:
        """Give entries a class, which is an answer: they are right."""
        changes = []
        for entry in (self.entries[number] for number in numbers):
            particle = self._particle(entry)
            if particle is not None:
                after = dataclasses.replace(particle, class_id=class_id, reviewed=True)
                changes += [self._changed(entry, particle, after)] if after != particle else []
        self.session.change_many(changes)

    def move(self, places: Mapping[int, Position]) -> None:
        """Move entries, which is an answer too: they are right there."""
        changes = []
        for number, place in places.items():
            entry = self.entries[number]
            particle = self._particle(entry)
            if particle is not None:
                changes.append(self._changed(entry, particle, moved(particle, place)))
        self.session.change_many(changes)

    def _changed(self, entry: Entry, before: Particle, after: Optional[Particle]) -> Change:
        """Return the change of the particle of an entry."""
        return Change("particle", entry.tomogram, self._key(entry), before, after)

    def find(self, changes: Sequence[Change]) -> List[int]:
        """Return the numbers of the entries that some changes are about."""
        keys = {(change.kind, change.tomogram, change.key) for change in changes}
        return [number for number, one in enumerate(self.entries)
                if ("particle", one.tomogram, self._key(one)) in keys
                or ("negative", one.tomogram, self._negatives.get((one.tomogram, one.key), 0)) in keys]
