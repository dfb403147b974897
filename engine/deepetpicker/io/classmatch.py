"""Which class of some picks is which class of a reference, when each counts its classes in its own way."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Sequence, Set, Tuple

from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass, class_named, values_by_class


@dataclasses.dataclass(frozen=True)
class ClassMatch:
    """The classes of a reference and of picks as one table.

    Attributes
    ----------
    classes : tuple of ParticleClass
        The reference's classes with their own ids, and behind them those that only the picks have.
    of_picks : dict of int to int
        Id in ``classes`` of each class of the picks.
    warnings : tuple of str
        What the user should know.
    """

    classes: Tuple[ParticleClass, ...]
    of_picks: Dict[int, int]
    warnings: Tuple[str, ...] = ()


def match_classes(reference: Sequence[ParticleClass], picks: Sequence[ParticleClass], given: str = "") -> ClassMatch:
    """Return which class is which: as given, else by name where both sides have names, else by id.

    One class on each side is taken for the same one. Nothing is guessed beyond that: ids that only partly agree can be
    two numberings of the same classes.

    Parameters
    ----------
    reference, picks : sequence of ParticleClass
        Classes of the two sides; all that can occur, where that is known.
    given : str
        ``1: 0, 2: 1``: class of the picks and class of the reference, by id or name; may be empty.

    Raises
    ------
    InputError
        If it cannot be told which class is which, or what is given does not fit.
    """
    found = _given(reference, picks, given)
    if not found and len(reference) == len(picks) == 1:
        return _the_only_ones(reference[0], picks[0])
    for one in picks:
        alike = [r for r in reference if r.name == one.name and r.is_named and one.is_named]
        if len(alike) == 1 and one.id not in found and alike[0].id not in found.values():
            found[one.id] = alike[0].id
    left = [r for r in reference if r.id not in found.values()]
    open_picks = [p for p in picks if p.id not in found]
    _match_by_id(left, open_picks, found)
    if reference and picks and not found:
        raise InputError(_cannot_tell(reference, picks))
    return _table(reference, picks, found)


def _given(reference: Sequence[ParticleClass], picks: Sequence[ParticleClass], text: str) -> Dict[int, int]:
    """Return the pairs of a user's text: id of the reference's class by that of the picks'."""
    what = "which class of the picks is which of the reference"
    found: Dict[int, int] = {}
    if (text or "").strip() and ":" not in text:
        raise InputError(f"{what}: expected PICKS: REFERENCE for each class, such as 1: 0, 2: 1, got {text!r}")
    for pick_id, word in values_by_class(text, picks, what).items():
        one = class_named(word, reference)
        if one is None:
            raise InputError(f"{what}: the reference has no class {word!r}, but "
                             f"{', '.join(c.label for c in reference)}")
        if one.id in found.values():
            raise InputError(f"{what}: two classes of the picks are {one.label}: give each its own")
        found[pick_id] = one.id
    return found


def _the_only_ones(reference: ParticleClass, pick: ParticleClass) -> ClassMatch:
    """Return the match of one class on each side, with a warning when their names differ."""
    warnings = []
    if reference.is_named and pick.is_named and reference.name != pick.name:
        warnings.append(f"the picks are called {pick.name} and the reference {reference.name}: taken for the same, as "
                        "there is one class on each side")
    return ClassMatch((_merged(reference, pick),), {pick.id: reference.id}, tuple(warnings))


def _match_by_id(reference: Sequence[ParticleClass], picks: Sequence[ParticleClass], found: Dict[int, int]) -> None:
    """Add the pairs of equal ids to those found, leaving out classes whose names say that they differ.

    Raises
    ------
    InputError
        If neither side's ids are among the other's.
    """
    by_id = {r.id: r for r in reference}
    told = {p.id for p in picks if p.id in by_id and p.is_named and by_id[p.id].is_named}
    ours = {i for i, r in by_id.items() if i not in told and not (r.is_named and all(p.is_named for p in picks))}
    theirs = {p.id for p in picks if p.id not in told and not (p.is_named and all(r.is_named for r in reference))}
    if ours and theirs and not (ours <= theirs or theirs <= ours):
        raise InputError(_cannot_tell(reference, picks))
    found.update({i: i for i in sorted(ours & theirs)})


def _cannot_tell(reference: Sequence[ParticleClass], picks: Sequence[ParticleClass]) -> str:
    """Return the message that classes cannot be matched."""
    pairs = ", ".join(f"{p.id}: {r.id}" for p, r in zip(picks, reference))
    return (f"expected classes that the reference ({', '.join(c.label for c in reference)}) and the picks "
            f"({', '.join(c.label for c in picks)}) share by id or name, and cannot tell which is which: say it as "
            f"PICKS: REFERENCE, for example {pairs}")


def _table(reference: Sequence[ParticleClass], picks: Sequence[ParticleClass], found: Dict[int, int]) -> ClassMatch:
    """Return the one table of both sides; a class of the picks alone keeps its id unless the reference uses it."""
    table = {r.id: r for r in reference}
    warnings: List[str] = []
    alone: List[ParticleClass] = []
    for one in picks:
        if one.id in found:
            table[found[one.id]] = _merged(table[found[one.id]], one)
        else:
            alone.append(one)
    used: Set[int] = set(table)
    for one in alone:
        new = one.id if one.id not in used else max(used) + 1
        used.add(new)
        found[one.id] = new
        table[new] = dataclasses.replace(one, id=new)
    if alone and reference:
        warnings.append(f"{', '.join(c.label for c in alone)} of the picks: not in the reference, which has "
                        f"{', '.join(c.label for c in reference)}")
    return ClassMatch(tuple(table[i] for i in sorted(table)), dict(found), tuple(warnings))


def _merged(reference: ParticleClass, pick: ParticleClass) -> ParticleClass:
    """Return a class with what both sides know of it; the reference goes first."""
    return dataclasses.replace(reference, name=reference.name if reference.is_named or not pick.is_named else pick.name,
                               diameter_ang=reference.diameter_ang or pick.diameter_ang)
