"""Find more like these: the candidates of all tomograms, ranked by what was marked and what was refused.

There is nothing to save: what is accepted becomes a particle of the session, what is refused a negative, and the
ranking follows from these alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from deepetpicker.annotation.annotations import Annotations
from deepetpicker.annotation.background import Background, Start, folder_of, this_python
from deepetpicker.annotation.records import Position
from deepetpicker.annotation.session import Session
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.proposing.candidates import SUFFIX, Candidates, read_candidates
from deepetpicker.proposing.ranking import FEWEST, rank_like, snapped

SNAP = 0.35  # diameters within which a candidate is what was marked
TAKEN, REFUSED = 0.75, 0.35  # diameters about particles and negatives within which no candidate is offered
Place = Tuple[str, Position]


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A candidate that nobody has answered: tomogram, row there, where it is in voxels, and likeness from 0 to 1."""

    tomogram: str
    row: int
    position_zyx_vox: Position
    likeness: float


class Similar:
    """The list of candidates of one class, best first, as the session stands.

    Parameters
    ----------
    session : Session
        What is annotated.
    start : callable
        How the engine is started; see :class:`~deepetpicker.annotation.background.Background`.
    within : sequence of str, optional
        Names of the tomograms to look in; default: all of the session.
    """

    def __init__(self, session: Session, start: Start = this_python, within: Optional[Sequence[str]] = None) -> None:
        self.session, self._start, self._within = session, start, within
        self.class_id: Optional[int] = None
        self.background: Optional[Background] = None
        self.failed: Dict[str, str] = {}
        self.problem = ""
        self.names: List[str] = []
        self._found: Dict[str, Candidates] = {}
        self._trees: Dict[str, Any] = {}
        self._asked: Dict[int, Place] = {}
        self._known: Dict[Place, Optional[np.ndarray]] = {}
        self._later: Set[Tuple[str, int]] = set()
        self._state: Any = None
        self._ranked: List[Proposal] = []

    # ---- the candidates
    def begin(self, class_id: int, first: str = "") -> None:
        """Look for more of a class, in the tomogram ``first`` before the others.

        Raises
        ------
        InputError
            If fewer than three particles of the class were marked, or its diameter is not known.
        OutputError
            If the engine cannot be started.
        """
        look = next(one for one in self.session.classes if one.kind.id == class_id)
        marked = sum(1 for one in self.session.tomograms for p in self.session.particles(one.name).values()
                     if p.class_id == class_id and p.reviewed)
        if marked < FEWEST:
            raise InputError(f"mark at least {FEWEST} particles of the class {look.kind.name} first (there are "
                             f"{marked})")
        if not look.kind.diameter_ang > 0:
            raise InputError(f"the class {look.kind.name} has no diameter: enter it first")
        tomograms = sorted((one for one in self.session.tomograms if self._within is None or one.name in self._within),
                           key=lambda one: one.name != first)
        names = [one.name for one in tomograms]
        running = self.background is not None and not self.problem
        if not running or self.diameter_ang != look.kind.diameter_ang or set(names) != set(self.names):
            self.close()
            self._forget()
            self.names = names
            self.background = Background(folder_of(self.session.folder, look.kind.diameter_ang), tomograms,
                                         look.kind.diameter_ang, self._start)
        if class_id != self.class_id:
            self._later.clear()
        self.class_id, self._state = class_id, None

    def _forget(self) -> None:
        """Forget all candidates: those of another diameter come."""
        for kept in (self.failed, self._found, self._trees, self._asked, self._known, self._later):
            kept.clear()
        self.problem, self._state = "", None

    @property
    def diameter_ang(self) -> float:
        """Diameter in angstrom that the candidates were looked for with; 0 before the first."""
        return self.background.diameter_ang if self.background is not None else 0.0

    @property
    def is_complete(self) -> bool:
        """Whether all tomograms were looked at."""
        return len(self._found) + len(self.failed) == len(self.names)

    def counts(self) -> Tuple[int, int, int]:
        """Return how many tomograms have candidates or failed, of how many, and the number of candidates."""
        return (len(self._found) + len(self.failed), len(self.names), sum(map(len, self._found.values())))

    def poll(self) -> bool:
        """Take over what the background has done; tell whether there was anything."""
        words = self.background.said() if self.background is not None else []
        for word in words:
            if "ended" in word:
                assert self.background is not None
                self.problem = self.background.last_words() or f"the engine ended with status {word['ended']}"
            elif "id" in word:
                place = self._asked.pop(int(word["id"]), None)
                if place is not None:
                    self._known[place] = np.array(word["features"][0]) if "features" in word else None
            elif "error" in word:
                self.failed[str(word["tomogram"])] = str(word["error"])
            elif "tomogram" in word:
                self._take(str(word["tomogram"]))
        if words:
            self._state = None
        return bool(words)

    def _take(self, name: str) -> None:
        """Take over the candidates of a tomogram."""
        from scipy.spatial import cKDTree

        assert self.background is not None
        try:
            found = read_candidates(self.background.folder / f"{name}{SUFFIX}")
        except DeepETPickerError as error:
            self.failed[name] = str(error)
            return
        if found is None:
            self.failed[name] = "its candidates have vanished"
            return
        self._found[name] = found
        self._trees[name] = cKDTree(found.positions_zyx_vox.reshape(-1, 3))

    # ---- the ranking
    def later(self, proposal: Proposal) -> None:
        """Put a candidate behind all others: it was passed over without an answer."""
        self._later.add((proposal.tomogram, proposal.row))
        self._state = None

    def ranked(self) -> List[Proposal]:
        """Return what nobody has answered, the most alike first; nothing before three examples have features."""
        if self._state != (self.session.sequence, self.class_id):
            self._state = (self.session.sequence, self.class_id)
            self._ranked = self._rank()
        return self._ranked

    def _rank(self) -> List[Proposal]:
        """Rank the candidates."""
        names = [one.name for one in self.session.tomograms if one.name in self._found]
        examples: List[np.ndarray] = []
        against: List[np.ndarray] = []
        for name in names:
            wanted, other = marks_of(self.session, name, self.class_id)
            examples += self._features(name, wanted)
            against += self._features(name, other)
        if len(examples) < FEWEST:
            return []
        every = np.concatenate([self._found[name].features for name in names])
        scores = rank_like(every, np.array(examples), np.array(against).reshape(-1, every.shape[1]))
        free = np.concatenate([self._free(name) for name in names])
        rows = np.concatenate([np.arange(len(self._found[name])) for name in names])
        owner = np.repeat(np.arange(len(names)), [len(self._found[name]) for name in names])
        late = np.array([bool(self._later) and (names[o], int(r)) in self._later for o, r in zip(owner, rows)], bool)
        order = np.lexsort((-scores, late))
        return [self._proposal(names[owner[at]], int(rows[at]), float(scores[at])) for at in order[free[order]]]

    def _proposal(self, name: str, row: int, likeness: float) -> Proposal:
        """Return a candidate as it is shown."""
        z, y, x = self._found[name].positions_zyx_vox[row].tolist()
        return Proposal(name, row, (z, y, x), likeness)

    def _features(self, name: str, positions: Sequence[Position]) -> List[np.ndarray]:
        """Return the features of marks in a tomogram, as far as they are known; the others are asked for."""
        found, out = self._found[name], []
        rows, near = snapped(np.array(positions, float).reshape(-1, 3), found.positions_zyx_vox,
                             SNAP * self._diameter_vox(name))
        for position, row, is_near in zip(positions, rows, near):
            place = (name, position)
            if is_near:
                out.append(found.features[row])
            elif place not in self._known:
                self._known[place] = None
                assert self.background is not None
                self._asked[self.background.ask(name, [position])] = place
            elif self._known[place] is not None:
                out.append(self._known[place])
        return out

    def _free(self, name: str) -> np.ndarray:
        """Return which candidates (N,) of a tomogram are neither taken nor refused.

        Particles that nobody has looked at take none: they are asked about.
        """
        free = np.ones(len(self._found[name]), bool)
        if not len(free):
            return free
        looked = [one for one in self.session.particles(name).values() if one.reviewed]
        for records, reach in ((looked, TAKEN), (list(self.session.negatives(name).values()), REFUSED)):
            if records:
                places = np.array([one.position_zyx_vox for one in records])
                for rows in self._trees[name].query_ball_point(places, reach * self._diameter_vox(name)):
                    free[rows] = False
        return free

    def unseen(self, proposal: Proposal, answer: bool) -> Optional[int]:
        """Return the key of the particle that nobody has looked at and that an answer to a candidate is about, or None.

        Parameters
        ----------
        proposal : Proposal
            The candidate.
        answer : bool
            Whether it is a particle: then it is every one that cannot be another particle beside it.
        """
        reach = (TAKEN if answer else REFUSED) * self._diameter_vox(proposal.tomogram)
        found = [(float(np.linalg.norm(np.subtract(one.position_zyx_vox, proposal.position_zyx_vox))), key)
                 for key, one in self.session.particles(proposal.tomogram).items() if not one.reviewed]
        return min(found)[1] if found and min(found)[0] <= reach else None

    def _diameter_vox(self, name: str) -> float:
        """Return the diameter in the voxels of a tomogram."""
        return self.diameter_ang / self.session.tomogram(name).voxel_size_ang

    def close(self) -> None:
        """End the background."""
        if self.background is not None:
            self.background.close()
            self.background = None


def marks_of(session: Annotations, tomogram: str, class_id: Optional[int]) -> Tuple[List[Position], List[Position]]:
    """Return where particles of a class are that somebody looked at, and where other classes and negatives are."""
    looked = [one for one in session.particles(tomogram).values() if one.reviewed]
    wanted = [one.position_zyx_vox for one in looked if one.class_id == class_id]
    other = [one.position_zyx_vox for one in looked if one.class_id != class_id]
    return wanted, other + [one.position_zyx_vox for one in session.negatives(tomogram).values()]
