"""Reviewing picks without a window: in which order they are looked at, and what an answer does to the session.

Picks that nobody has looked at are particles of the session with ``reviewed`` false; an answer makes it true, or makes
a negative of the particle. So a review is kept, undone, gone on with and turned into tables as any annotation.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.annotation.annotations import moved
from deepetpicker.annotation.outliers import Unlike, unlike_others
from deepetpicker.annotation.records import Change, Negative, Particle, Position
from deepetpicker.annotation.session import Session

SCORE, DOUBT, TOMOGRAM = "score", "doubt", "tomogram"
NEW, ALL, REFUSED_ONLY = "new", "all", "refused"
RIGHT, REFUSED, OPEN, GONE = "right", "refused", "", "gone"


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
    """

    def __init__(self, session: Session, thresholds: Optional[Mapping[int, float]] = None) -> None:
        self.session, self.given = session, dict(thresholds or {})
        self.entries: List[Entry] = []
        self._negatives: Dict[Tuple[str, int], int] = {}  # of an entry, by tomogram and key; below 0 for its own key

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
        names = [tomogram] if tomogram else [one.name for one in self.session.tomograms]
        found: List[Entry] = []
        for name in names:
            if show == REFUSED_ONLY:
                found += self._refused(name)
            else:
                found += [Entry(name, key, one) for key, one in self.session.particles(name).items()
                          if show == ALL or not one.reviewed]
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
        for one in self.session.tomograms:
            for particle in self.session.particles(one.name).values():
                if not math.isnan(particle.score):
                    lows[particle.class_id] = min(particle.score, lows.get(particle.class_id, math.inf))
        return {**lows, **self.given}

    def unlike(self) -> Dict[str, Unlike]:
        """Return for each tomogram how its particles differ from those of the others."""
        tomograms = self.session.tomograms
        return unlike_others({one.name: self.session.table(one.name) for one in tomograms},
                             {one.name: one.shape_zyx[0] for one in tomograms})

    def tomograms(self) -> List[str]:
        """Return the names of the tomograms, those that are unlike the others first."""
        unlike = self.unlike()
        remarkable = sorted((name for name in unlike if unlike[name].reasons), key=lambda n: -unlike[n].distance)
        return remarkable + [name for name in unlike if name not in remarkable]

    # ---- what became of them
    def state(self, number: int) -> str:
        """Return what is known of an entry: ``RIGHT``, ``REFUSED``, ``OPEN``, or ``GONE`` when it was removed."""
        entry = self.entries[number]
        particle = self._particle(entry)
        if particle is not None:
            return RIGHT if particle.reviewed else OPEN
        return REFUSED if self._negative(entry) is not None else GONE

    def now(self, number: int) -> Particle:
        """Return an entry as it is now; what was refused or removed, as it was."""
        entry = self.entries[number]
        return self._particle(entry) or entry.given

    def _particle(self, entry: Entry) -> Optional[Particle]:
        """Return the particle of an entry, None when there is none now."""
        found = self.session.get("particle", entry.tomogram, entry.key)
        return found if isinstance(found, Particle) else None

    def _negative(self, entry: Entry) -> Optional[int]:
        """Return the key of the negative that was made of an entry, None when there is none now."""
        key = self._negatives.get((entry.tomogram, entry.key), 0)
        return key if self.session.get("negative", entry.tomogram, key) is not None else None

    def looked_at(self) -> Tuple[int, int, int]:
        """Return how many particles were looked at, how many there are, and how many places were refused."""
        names = [one.name for one in self.session.tomograms]
        total = sum(len(self.session.particles(name)) for name in names)
        new = sum(len(self.session.unreviewed(name)) for name in names)
        return total - new, total, sum(len(self.session.negatives(name)) for name in names)

    # ---- the answers
    def accept(self, numbers: Sequence[int]) -> None:
        """Note that entries are right; refused ones become particles again."""
        changes: List[Change] = []
        new, renamed = self.session.next_key, []
        for entry in (self.entries[number] for number in numbers):
            particle, negative = self._particle(entry), self._negative(entry)
            if particle is not None and not particle.reviewed:
                changes.append(self._changed(entry, particle, dataclasses.replace(particle, reviewed=True)))
            elif particle is None and negative is not None:
                key, new = (entry.key, new) if entry.key > 0 else (new, new + 1)
                place = self.session.negatives(entry.tomogram)[negative]
                changes.append(Change("negative", entry.tomogram, negative, place, None))
                changes.append(Change("particle", entry.tomogram, key, None,
                                      moved(entry.given, place.position_zyx_vox)))
                renamed.append((entry, key))
        self.session.change_many(changes)
        for entry, key in renamed:
            self._rename(entry, key)

    def refuse(self, numbers: Sequence[int]) -> None:
        """Make negatives of entries."""
        changes: List[Change] = []
        made: Dict[Tuple[str, int], int] = {}
        for entry in (self.entries[number] for number in numbers):
            particle = self._particle(entry)
            if particle is not None:
                new = self.session.next_key + len(made)
                changes += [self._changed(entry, particle, None),
                            Change("negative", entry.tomogram, new, None, Negative(particle.position_zyx_vox))]
                made[entry.tomogram, entry.key] = new
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

    @staticmethod
    def _changed(entry: Entry, before: Particle, after: Optional[Particle]) -> Change:
        """Return the change of the particle of an entry."""
        return Change("particle", entry.tomogram, entry.key, before, after)

    def _rename(self, entry: Entry, key: int) -> None:
        """Let an entry go by the key of the particle that was made of it."""
        if entry.key != key:
            self._negatives[entry.tomogram, key] = self._negatives[entry.tomogram, entry.key]
            self.entries[self.entries.index(entry)] = dataclasses.replace(entry, key=key)

    def find(self, changes: Sequence[Change]) -> List[int]:
        """Return the numbers of the entries that some changes are about."""
        keys = {(change.tomogram, change.key) for change in changes if change.kind == "particle"}
        return [number for number, one in enumerate(self.entries) if (one.tomogram, one.key) in keys]
