"""The class table in Scipion: the id of a class is the group id of its particles.

Sets of coordinates carry the table (ids, names, diameters) as one more attribute, so that picks know the classes of the
model they come from, and so do sets that are chosen from them.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, List, Optional, Sequence, Tuple

from pyworkflow.object import String
from tomo.objects import Coordinate3D, SetOfCoordinates3D

from deepetpicker.errors import InputError
from deepetpicker.io.classes import (
    ParticleClass,
    classes_from_params,
    classes_to_json,
    default_class,
    numbers_by_class,
    values_by_class,
)
from deepetpicker_plugin.sets import convert

Table = Tuple[ParticleClass, ...]

ATTRIBUTE = "_deepetpickerClasses"
UNKNOWN_VOX = 20  # diameter that *annotate* begins with where nobody says one
ROUNDING_ANG = 0.01
BY_CLASS = ("One for all classes, or by group id (or name): 0: 100, 1: 300. Without ids they count for the group ids "
            "in ascending order; the summary shows the table.")


def setClasses(coordinates: SetOfCoordinates3D, classes: Sequence[ParticleClass]) -> None:
    """Write the class table into a set of coordinates."""
    if classes:
        setattr(coordinates, ATTRIBUTE, String(json.dumps(classes_to_json(classes))))


def knownClasses(coordinates: Any) -> Table:
    """Return the class table that a set of coordinates carries; empty when it carries none."""
    text = getattr(coordinates, ATTRIBUTE, None)
    try:
        return classes_from_params({"classes": json.loads(text.get() or "[]")}) if text is not None else ()
    except ValueError:  # written by something else
        return ()


def makerOf(output: Any, project: Any) -> Any:
    """Return the protocol that made an output, None where it is not known."""
    return None if output.getObjParentId() is None else project.getProtocol(int(output.getObjParentId()))


def called(maker: Any) -> str:
    """Return what a protocol is called; nothing where it is not known."""
    return "" if maker is None else str(maker.getObjLabel() or maker.getRunName())


def tableOf(coordinates: SetOfCoordinates3D, project: Any) -> Table:
    """Return the class table of a set, or that of the set from which other plugins have chosen it; empty without one.

    Subsets and sets on another binning lose what they carried, and not their group ids.
    """
    one, seen = coordinates, set()  # type: ignore[var-annotated]
    while one is not None and one.getObjParentId() is not None and int(one.getObjParentId()) not in seen:
        if knownClasses(one):
            break
        seen.add(int(one.getObjParentId()))
        maker = makerOf(one, project)
        sets = [] if maker is None else [pointer.get() for _, pointer in maker.iterInputAttributes()
                                         if isinstance(pointer.get(), SetOfCoordinates3D)]
        one = sets[0] if len(sets) == 1 and sets[0].getSize() >= coordinates.getSize() else None
    found = knownClasses(one)
    return found if one is coordinates else tuple(c for c in found if c.id in groupIds(coordinates))


def groupIds(coordinates: SetOfCoordinates3D) -> List[int]:
    """Return the group ids that occur in a set, ascending."""
    return sorted({int(g or 0) for g in coordinates.getUniqueValues(Coordinate3D.GROUP_ID_ATTR)})


def classesOf(coordinates: SetOfCoordinates3D) -> Table:
    """Return the classes that a set carries or that occur in it, by ascending id."""
    found = {c.id: c for c in knownClasses(coordinates)}
    for group in groupIds(coordinates):
        found.setdefault(group, default_class(group))
    return tuple(found[i] for i in sorted(found))


def lookOf(classes: Sequence[ParticleClass]) -> convert.Classes:
    """Return name and diameter (angstrom) by id, as the windows take them."""
    return {c.id: (c.name, c.diameter_ang) for c in classes}


def tableLines(classes: Sequence[ParticleClass], samplingRate: float) -> List[str]:
    """Return the table as summary lines: ``Group 0 (ring): diameter 100 Å (10.0 voxels)``."""
    return [f"Group {c.id} ({c.name}): diameter "
            f"{convert.inBoth(round(c.diameter_ang, 1), samplingRate) if c.diameter_ang else 'not known'}"
            for c in classes]


def withDiameters(classes: Sequence[ParticleClass], text: Optional[str], what: str) -> Table:
    """Return classes with the diameters (angstrom) of a form's text; where it says nothing, those they have.

    Raises
    ------
    InputError
        If the text does not fit the classes, or a diameter is 0.
    """
    given = numbers_by_class(text or "", classes, what)
    if any(d <= 0 for d in given.values()):
        raise InputError(f"{what}: expected diameters > 0 Å, got {text}")
    return tuple(dataclasses.replace(c, diameter_ang=given.get(c.id, c.diameter_ang)) for c in classes)


def withNames(classes: Sequence[ParticleClass], text: Optional[str], what: str) -> Table:
    """Return classes with the names of a form's text; where it says nothing, those they have.

    Raises
    ------
    InputError
        If the text does not fit the classes, or two get the same name.
    """
    parts = values_by_class(text or "", classes, what)
    named = tuple(dataclasses.replace(c, name=parts.get(c.id, c.name)) for c in classes)
    names = [c.name for c in named]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"{what}: the name {twice[0]!r} is given twice: classes need different names, such as "
                         f"{', '.join(f'{c.id}: name' for c in classes)}")
    return named


@dataclasses.dataclass(frozen=True)
class Source:
    """One of several sets of coordinates: the set, what it is called, and its class table where others know it."""

    coordinates: SetOfCoordinates3D
    label: str
    table: Optional[Table] = None

    @property
    def classes(self) -> Table:
        """Class table of the set."""
        return knownClasses(self.coordinates) if self.table is None else self.table


@dataclasses.dataclass(frozen=True)
class Sorted:
    """The particles of several sets, sorted into classes.

    Attributes
    ----------
    classes : tuple of ParticleClass
        By ascending id.
    ofGroup : list of dict of int to int
        For each set the class id of each of its group ids.
    """

    classes: Table
    ofGroup: List[Dict[int, int]]


def sortClasses(sources: Sequence[Source], useGroups: bool = True, setsAreClasses: bool = True) -> Sorted:
    """Return the classes of several sets of coordinates.

    A class has the group id of its particles wherever this is unambiguous. Where it is not (two sets of different
    particles with the same group id, or several groups taken for one kind), classes are counted from 1, in the order of
    the sets and their groups.

    Parameters
    ----------
    sources : sequence of Source
        The sets.
    useGroups : bool
        Whether the groups of a set are different kinds of particles.
    setsAreClasses : bool
        Whether different sets are different kinds of particles.
    """
    groups = [groupIds(source.coordinates) for source in sources]
    members: Dict[Tuple[int, int], List[Tuple[int, int]]] = {}
    for number, mine in enumerate(groups):
        for group in mine:
            key = (number if setsAreClasses else 0, group if useGroups else -1)
            members.setdefault(key, []).append((number, group))
    keys = sorted(members)
    own = [{group for _, group in members[key]} for key in keys]
    clear = all(len(found) == 1 for found in own) and len(set().union(*own)) == len(own)
    ids = [next(iter(found)) if clear else position for position, found in enumerate(own, start=1)]
    ofGroup: List[Dict[int, int]] = [{} for _ in sources]
    classes = []
    for key, classId in zip(keys, ids):
        for number, group in members[key]:
            ofGroup[number][group] = classId
        alone = len(sources) > 1 and setsAreClasses and sum(k[0] == key[0] for k in keys) == 1
        classes.append(_describe(classId, members[key], sources, sources[key[0]].label if alone else ""))
    return Sorted(tuple(sorted(_distinct(classes), key=lambda c: c.id)), ofGroup)


def _describe(classId: int, members: Sequence[Tuple[int, int]], sources: Sequence[Source], label: str) -> ParticleClass:
    """Return a class with what its sets know of it; a label is the name where they know none."""
    known = [c for number, group in members for c in sources[number].classes if c.id == group]
    names = {c.name for c in known if c.is_named}
    diameters = {c.diameter_ang for c in known if c.diameter_ang > 0}
    word = " ".join(label.replace(":", " ").replace(",", " ").replace(";", " ").split())
    plain = {c.name for c in known if c.name}  # such as "particle", which tells no classes apart
    name = next(iter(names)) if len(names) == 1 else word or (
        next(iter(plain)) if len(plain) == 1 else default_class(classId).name)
    return ParticleClass(classId, name, max(diameters) if len(names) < 2 and diameters else 0.0)


def _distinct(classes: Sequence[ParticleClass]) -> List[ParticleClass]:
    """Return classes with different names: where two have the same, the id is put behind."""
    names = [c.name for c in classes]
    return [dataclasses.replace(c, name=f"{c.name} {c.id}") if names.count(c.name) > 1 else c for c in classes]


def fromCoordinates(sources: Sequence[Source], found: Sorted, classes: Sequence[ParticleClass],
                    project: Any) -> List[str]:
    """Return, as summary lines, whose diameters those of some classes are, which the form does not say."""
    if not classes:
        return []
    names = [called(makerOf(source.coordinates, project)) for source, _ in _knowing(sources, found, classes)]
    labels = dict.fromkeys(f"*{name}*" if name else "the coordinates" for name in names)
    return [f"Diameter of {', '.join(c.label for c in classes)}: that of {', '.join(labels)}, as *Particle diameter* "
            "does not say another"]


def _knowing(sources: Sequence[Source], found: Sorted,
             classes: Sequence[ParticleClass]) -> List[Tuple[Source, ParticleClass]]:
    """Return the sets that know the diameter of some classes, each with the class."""
    wanted = {c.id: c for c in classes}
    return [(source, wanted[ofGroup[c.id]]) for source, ofGroup in zip(sources, found.ofGroup) for c in source.classes
            if c.diameter_ang > 0 and ofGroup.get(c.id) in wanted]


def unmeasured(sources: Sequence[Source], found: Sorted, classes: Sequence[ParticleClass], project: Any) -> List[str]:
    """Return, as warnings, which diameters are only those with which *annotate* begins when nobody says any."""
    lines = []
    for source, one in _knowing(sources, found, classes):
        maker = makerOf(source.coordinates, project)
        begun = getattr(maker, "marksSome", False) and not (maker.diameterAngstrom.get() or "").strip() and (
            maker.inputCoordinates.get() is None)
        rate = source.coordinates.getSamplingRate()
        if begun and abs(one.diameter_ang - UNKNOWN_VOX * rate) < ROUNDING_ANG:
            size = convert.inBoth(one.diameter_ang, rate)
            lines.append(f"*Particle diameter* is empty, and {size} of {one.label} is what *{called(maker)}* began "
                         "with; nobody has changed it. Does it fit? The wizard shows it.")
    return lines
