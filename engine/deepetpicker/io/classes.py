"""Particle classes: the one table of ids, names and diameters that all commands and Scipion share.

The id of a class is the number that its particles have in coordinate tables, and their group id in Scipion: any whole
number >= 0. It stays the same in params.json, model, pick tables and evaluation; which output channel of a network
belongs to which class is known to the network's code alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.atomic import write_text
from deepetpicker.io.jsonvalues import number, objects, parse
from deepetpicker.io.plainfile import LARGEST_JSON, check_plain

PathLike = Union[str, "os.PathLike[str]"]

CLASSES_FILE = "classes.json"
SAME_DIAMETER = 0.1  # diameters of one particle, as two people measure them, differ by at most so much of the larger
_SEPARATORS = ",;\n"


@dataclasses.dataclass(frozen=True)
class ParticleClass:
    """A kind of particle: id (>= 0), name and diameter in angstrom (0 when unknown)."""

    id: int
    name: str
    diameter_ang: float = 0.0

    @property
    def is_named(self) -> bool:
        """Whether the name says more than the id, so that classes of two sources can be told by it."""
        return self.name not in ("", "particle", f"class_{self.id}", f"class {self.id}")

    @property
    def label(self) -> str:
        """Id and name as messages show them: ``class 0 (ribosome)``."""
        return f"class {self.id} ({self.name})" if self.name else f"class {self.id}"


def default_class(class_id: int) -> ParticleClass:
    """Return a class of which nothing but the id is known."""
    return ParticleClass(class_id, f"class_{class_id}")


def described(classes: Sequence[ParticleClass]) -> str:
    """Return the table in one line: ``class 0 (ring): 100 angstrom, class 1 (rod): 300 angstrom``."""
    return ", ".join(f"{c.label}: " + (f"{c.diameter_ang:g} angstrom" if c.diameter_ang else "diameter not known")
                     for c in classes)


def classes_from_params(params: Mapping[str, Any], key: str = "classes") -> Tuple[ParticleClass, ...]:
    """Return the particle classes of a params.json or classes.json by ascending id; empty when it lists none.

    Raises
    ------
    InputError
        If an entry has no valid id or diameter, or an id comes twice.
    """
    classes = []
    for position, entry in enumerate(objects(params, key), start=1):
        identity = number(entry.get("id"), f"class {position}: id", "a whole number >= 0")
        if identity != int(identity):
            raise InputError(f"class {position}: id must be a whole number >= 0, got {entry.get('id')!r}")
        diameter = number(entry.get("diameter_angstrom") or 0.0, f"class {position}: diameter_angstrom")
        name = str(entry.get("name") or "").strip()
        classes.append(ParticleClass(int(identity), name or default_class(int(identity)).name, diameter))
    return _ordered(classes)


def parse_classes(text: str) -> Tuple[ParticleClass, ...]:
    """Return the classes of a command line: ``0:ribosome:250,1:proteasome:140``; name and diameter may be left out.

    Raises
    ------
    InputError
        If a part is not ID, ID:NAME, ID:NAME:DIAMETER or ID::DIAMETER, or an id comes twice.
    """
    entries = []
    for part in filter(None, (word.strip() for word in text.split(","))):
        fields = [field.strip() for field in part.split(":")]
        if len(fields) > 3:
            raise InputError(f"classes: expected ID:NAME:DIAMETER with the diameter in angstrom, got {part!r}")
        entries.append(dict(zip(("id", "name", "diameter_angstrom"), fields)))
    return classes_from_params({"classes": entries})


def classes_to_json(classes: Iterable[ParticleClass]) -> List[Dict[str, Any]]:
    """Return classes as params.json and classes.json list them."""
    return [{"id": int(c.id), "name": c.name, "diameter_angstrom": float(c.diameter_ang)} for c in classes]


def read_classes(folder: PathLike) -> Tuple[Tuple[ParticleClass, ...], float]:
    """Return the particle classes of a data folder and its voxel size in angstrom.

    Returns
    -------
    tuple
        Classes by ascending id and voxel size; ``((), 0.0)`` when the folder has no classes.json.

    Raises
    ------
    InputError
        If there is no such folder.
    FormatError
        If classes.json is damaged.
    """
    if not pathlib.Path(folder).is_dir():
        raise InputError(f"{'expected a folder, got a file' if pathlib.Path(folder).exists() else 'no such folder'}: "
                         f"{folder}")
    path = pathlib.Path(folder) / CLASSES_FILE
    if not path.exists():
        return (), 0.0
    try:
        check_plain(path, "a list of classes", LARGEST_JSON)
        content = parse(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        voxel = number(content.get("voxel_size_angstrom") or 0.0, "voxel_size_angstrom")
        return classes_from_params(content), voxel
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise FormatError(f"{path} is not a valid list of classes: {error}") from error


def write_classes(folder: PathLike, classes: Sequence[ParticleClass], voxel_size_ang: float = 0.0) -> None:
    """Write the particle classes of a data folder as classes.json; the voxel size in angstrom is left out when 0.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    content: Dict[str, Any] = {"voxel_size_angstrom": float(voxel_size_ang)} if voxel_size_ang else {}
    content["classes"] = classes_to_json(classes)
    write_text(pathlib.Path(folder) / CLASSES_FILE, json.dumps(content, indent=1) + "\n")


def values_by_class(text: str, classes: Sequence[ParticleClass], what: str) -> Dict[int, str]:
    """Return what a text says for each class, by id.

    Parameters
    ----------
    text : str
        ``250``: for all classes. ``0: 100, 1: 300`` or ``ring: 100, rod: 300``: by id or name; classes may be left out,
        or share a value without a class: ``100, 1: 300``. ``100, 300``: one for each class, by ascending id. Commas,
        semicolons and line ends separate.
    classes : sequence of ParticleClass
        The classes there are.
    what : str
        What the text is, for messages.

    Raises
    ------
    InputError
        If a class is not known or comes twice, or the number of values does not fit.
    """
    parts = [part.strip() for part in re.split(f"[{_SEPARATORS}]", text or "") if part.strip()]
    ordered = sorted(classes, key=lambda c: c.id)
    shown = ", ".join(c.label for c in ordered)
    if not any(":" in part for part in parts):
        if len(parts) > 1 and len(parts) != len(ordered):
            raise InputError(f"{what}: expected one for all classes or one for each of {shown}, got {len(parts)}: "
                             f"write them as {ordered[0].id}: ..., {ordered[-1].id}: ...")
        return {c.id: parts[k if len(parts) > 1 else 0] for k, c in enumerate(ordered)} if parts else {}
    found: Dict[int, str] = {}
    others = [part for part in parts if ":" not in part]
    for part in (part for part in parts if ":" in part):
        key, _, value = (word.strip() for word in part.partition(":"))
        if not value or len(others) > 1:
            raise InputError(f"{what}: expected CLASS: VALUE for each class, such as {ordered[0].id}: ..., got "
                             f"{text!r}")
        one = class_named(key, ordered)
        if one is None:
            raise InputError(f"{what}: there is no class {key!r}, but {shown}")
        if one.id in found:
            raise InputError(f"{what}: {one.label} comes twice")
        found[one.id] = value
    return {**{c.id: others[0] for c in ordered if others}, **found}


def numbers_by_class(text: str, classes: Sequence[ParticleClass], what: str, low: float = 0.0) -> Dict[int, float]:
    """Return the numbers >= low that a text gives for each class, as :func:`values_by_class`.

    Raises
    ------
    InputError
        As there, or if a value is no such number.
    """
    words = text if ":" in (text or "") else ",".join((text or "").replace(",", " ").replace(";", " ").split())
    found = {}
    for class_id, value in values_by_class(words, classes, what).items():
        found[class_id] = number(value, f"{what}: class {class_id}")
        if found[class_id] < low:
            raise InputError(f"{what}: class {class_id} must be a number >= {low:g}, got {value}")
    return found


def with_diameters(classes: Sequence[ParticleClass], given_ang: Sequence[float]) -> List[ParticleClass]:
    """Return classes with the diameters that were given.

    Parameters
    ----------
    classes : sequence of ParticleClass
        By ascending id.
    given_ang : sequence of float
        One diameter in angstrom for all, or one for each; none leaves the classes as they are.

    Raises
    ------
    InputError
        For any other number of diameters.
    """
    if not classes or not given_ang:
        return list(classes)
    if len(given_ang) not in (1, len(classes)):
        labels = ", ".join(one.label for one in classes)
        raise InputError(f"expected 1 or {len(classes)} diameters (one each for {labels}), got {len(given_ang)}")
    each = given_ang if len(given_ang) == len(classes) else list(given_ang) * len(classes)
    return [dataclasses.replace(c, diameter_ang=float(d)) for c, d in zip(classes, each)]


def check_diameters(classes: Sequence[ParticleClass]) -> None:
    """Refuse classes of unknown diameter.

    Raises
    ------
    InputError
        Naming them, and where a diameter can be given.
    """
    missing = [one.label for one in classes if not one.diameter_ang > 0]
    if missing:
        raise InputError(f"expected a particle diameter for {', '.join(missing)}, got none: give --diameter-angstrom, "
                         "--classes ID:NAME:DIAMETER, or diameter_angstrom in classes.json")


def class_named(word: str, classes: Sequence[ParticleClass]) -> Optional[ParticleClass]:
    """Return the class with an id or name, None when there is none."""
    by_id = [c for c in classes if word == str(c.id)]
    return next(iter(by_id or [c for c in classes if word == c.name]), None)


def same_particle(one: ParticleClass, other: ParticleClass) -> bool:
    """Tell whether two classes are the same kind of particle: by name, or by id where one has none, and by diameter.

    Diameters that differ by a tenth are the same; an unknown one fits any.
    """
    alike = one.name == other.name if one.is_named and other.is_named else one.id == other.id
    known = one.diameter_ang > 0 and other.diameter_ang > 0
    off = abs(one.diameter_ang - other.diameter_ang)
    return alike and not (known and off > SAME_DIAMETER * max(one.diameter_ang, other.diameter_ang))


def with_known(classes: Sequence[ParticleClass], model: Sequence[ParticleClass]) -> Tuple[ParticleClass, ...]:
    """Return the classes of data and those of a model that the data does not have: nothing that was learnt is lost.

    What the data leaves open of a class, name or diameter, the model says.

    Parameters
    ----------
    classes, model : sequence of ParticleClass
        Those of the data go first: a class of the model whose id they use for another one is left out.
    """
    found = {}
    for one in classes:
        same = next((other for other in model if same_particle(one, other)), None)
        if same is not None:
            one = dataclasses.replace(one, name=one.name if one.is_named else same.name,
                                      diameter_ang=one.diameter_ang or same.diameter_ang)
        found[one.id] = one
    for other in model:
        if other.id not in found and not any(same_particle(one, other) for one in classes):
            found[other.id] = ParticleClass(other.id, other.name, other.diameter_ang)
    return _ordered(found.values())


def news_of(classes: Sequence[ParticleClass], model: Sequence[ParticleClass]) -> List[str]:
    """Return in words what the classes of data are that a model does not know as they are; empty when it knows all."""
    lines = []
    for one in classes:
        if any(same_particle(one, other) for other in model):
            continue
        near = next((m for m in model if m.name == one.name or m.id == one.id), None)
        if near is None or (near.name != one.name and near.is_named and one.is_named):
            named = f", where {near.id} is {near.name}" if near is not None and near.id == one.id else ""
            lines.append(f"{one.label} is not in the model{named}")
        else:
            lines.append(f"{one.label}: {near.diameter_ang:g} angstrom in the model, {one.diameter_ang:g} in the data")
    return lines


def _ordered(classes: Iterable[ParticleClass]) -> Tuple[ParticleClass, ...]:
    """Return classes by ascending id, or raise InputError when an id comes twice."""
    found = sorted(classes, key=lambda one: one.id)
    identities = [one.id for one in found]
    if len(set(identities)) < len(identities):
        raise InputError(f"class ids must differ, got {identities}")
    return tuple(found)
