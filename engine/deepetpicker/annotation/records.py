"""What can be annotated, and the one kind of change that everything consists of."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from deepetpicker.errors import FormatError
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.items import check_name
from deepetpicker.io.regions import Region

Position = Tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Particle:
    """A particle that somebody or something has marked.

    Parameters
    ----------
    position_zyx_vox : tuple of float
        Centre z, y, x in voxels of its tomogram, 0-based, an integer is a voxel centre.
    class_id : int
        Its class.
    score : float
        Score it came with; NaN when it was clicked.
    reviewed : bool
        False for one that came with the start and that nobody has looked at yet.
    """

    position_zyx_vox: Position
    class_id: int
    score: float = math.nan
    reviewed: bool = True


@dataclasses.dataclass(frozen=True)
class Negative:
    """A place where no particle of any class is: its centre z, y, x in voxels."""

    position_zyx_vox: Position


@dataclasses.dataclass(frozen=True)
class ClassLook:
    """A class and the colour it is drawn in."""

    kind: ParticleClass
    colour: str


@dataclasses.dataclass(frozen=True)
class AnnotatedTomogram:
    """A tomogram of a session.

    Parameters
    ----------
    name : str
        Unique name.
    path : str
        Its file, absolute.
    voxel_size_ang : float
        Voxel size in angstrom.
    shape_zyx : tuple of int
        Shape in voxels.
    """

    name: str
    path: str
    voxel_size_ang: float
    shape_zyx: Tuple[int, int, int]


Record = Union[Particle, Negative, Region, ClassLook, AnnotatedTomogram]
KINDS = {"particle": Particle, "negative": Negative, "region": Region, "class": ClassLook,
         "tomogram": AnnotatedTomogram}


@dataclasses.dataclass(frozen=True)
class Change:
    """One record that is made, changed or removed.

    Parameters
    ----------
    kind : str
        A key of ``KINDS``.
    tomogram : str
        Tomogram it belongs to; empty for classes.
    key : int
        Identity within the session; for a class its id.
    before, after : record or None
        None where there is none.
    """

    kind: str
    tomogram: str
    key: int
    before: Optional[Record]
    after: Optional[Record]

    def reversed(self) -> Change:
        """Return the change that takes this one back."""
        return dataclasses.replace(self, before=self.after, after=self.before)


def record_to_json(record: Optional[Record]) -> Optional[Dict[str, Any]]:
    """Return a record as JSON-ready values; numbers keep all their digits."""
    if record is None:
        return None
    if isinstance(record, Particle):
        return {"zyx": list(record.position_zyx_vox), "class": record.class_id, "reviewed": record.reviewed,
                "score": None if math.isnan(record.score) else record.score}
    if isinstance(record, Negative):
        return {"zyx": list(record.position_zyx_vox)}
    if isinstance(record, Region):
        return {"low": list(record.low_zyx_vox), "high": list(record.high_zyx_vox)}
    if isinstance(record, ClassLook):
        return {"id": record.kind.id, "name": record.kind.name, "diameter_angstrom": record.kind.diameter_ang,
                "colour": record.colour}
    return {"name": record.name, "path": record.path, "voxel_size_angstrom": record.voxel_size_ang,
            "shape_zyx": list(record.shape_zyx)}


def record_from_json(kind: str, value: Optional[Mapping[str, Any]]) -> Optional[Record]:
    """Return the record that :func:`record_to_json` made.

    Raises
    ------
    FormatError
        If a member is missing or of the wrong kind.
    """
    if value is None:
        return None
    try:
        if kind == "particle":
            score = value["score"]
            return Particle(_position(value["zyx"]), int(value["class"]), math.nan if score is None else float(score),
                            bool(value["reviewed"]))
        if kind == "negative":
            return Negative(_position(value["zyx"]))
        if kind == "region":
            return Region(_voxel(value["low"]), _voxel(value["high"]))
        if kind == "class":
            return ClassLook(ParticleClass(int(value["id"]), str(value["name"]), float(value["diameter_angstrom"])),
                             str(value["colour"]))
        if kind == "tomogram":
            check_name(str(value["name"]))  # its tables are named after it
            return AnnotatedTomogram(str(value["name"]), str(value["path"]), float(value["voxel_size_angstrom"]),
                                     _voxel(value["shape_zyx"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"expected a {kind}, got {value}") from error
    raise FormatError(f"expected one of {', '.join(KINDS)}, got {kind!r}")


def _position(values: Any) -> Position:
    """Return three numbers."""
    z, y, x = (float(value) for value in values)
    return z, y, x


def _voxel(values: Any) -> Tuple[int, int, int]:
    """Return three whole numbers."""
    z, y, x = (int(value) for value in values)
    return z, y, x


def change_to_json(change: Change) -> Dict[str, Any]:
    """Return a change as JSON-ready values."""
    return {"what": change.kind, "in": change.tomogram, "key": change.key, "before": record_to_json(change.before),
            "after": record_to_json(change.after)}


def change_from_json(value: Mapping[str, Any]) -> Change:
    """Return the change that :func:`change_to_json` made.

    Raises
    ------
    FormatError
        If a member is missing or of the wrong kind.
    """
    try:
        kind, tomogram, key = str(value["what"]), str(value["in"]), int(value["key"])
        before, after = value["before"], value["after"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"expected a change, got {value}") from error
    return Change(kind, tomogram, key, record_from_json(kind, before), record_from_json(kind, after))
