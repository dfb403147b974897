"""Which class of the picks is which class of the truth, before anything is matched."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterable, Mapping, Sequence, Set, Tuple, Union

from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.evaluation.pairing import EvaluationItem
from deepetpicker.io.classes import ParticleClass, classes_from_params, default_class, read_classes
from deepetpicker.io.classmatch import ClassMatch, match_classes
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates

PathLike = Union[str, "os.PathLike[str]"]
_ANY = Frame(1.0, (1, 1, 1))  # class ids are the same in any frame


def matched_classes(items: Sequence[EvaluationItem], classes: Sequence[ParticleClass], picks: PathLike,
                    params: Mapping[str, Any]) -> ClassMatch:
    """Return the classes of truth and picks as one table, in the ids of the truth.

    Parameters
    ----------
    items : sequence of EvaluationItem
        Their tables say which classes occur.
    classes : sequence of ParticleClass
        What is known of the truth's.
    picks : path
        Folder of the picks, whose classes.json (from ``pick``) says what is known of theirs; empty when there is none.
    params : mapping
        Content of a params.json: ``pick_classes`` and ``class_map`` (``1: 0, 2: 1``, picks and truth).

    Raises
    ------
    InputError
        If the class map does not fit.
    """
    theirs = classes_from_params(params, "pick_classes") or (read_classes(picks)[0] if picks else ())
    reference = _table((_read(i.truth, i.name) for i in items), classes)
    picked = _table((_read(path, i.name) for i in items for path in (i.picks, i.candidates)), theirs)
    given = str(params.get("class_map") or "")
    try:
        return match_classes(reference, picked, given)
    except InputError as error:
        if given:
            raise InputError(f"--class-map: {error}") from error
        table = {c.id: c for c in (*picked, *reference)}
        text = f"{error} (--class-map); until then classes are compared by their ids"
        return ClassMatch(tuple(table[i] for i in sorted(table)), {c.id: c.id for c in picked}, (text,))


def _read(path: str, name: str) -> CoordinateTable:
    """Return a table; an empty one when it cannot be read, which the evaluation of its tomogram will tell."""
    with contextlib.suppress(DeepETPickerError):
        if path:
            return read_coordinates(path, Frame(_ANY.voxel_size_ang, _ANY.shape_zyx, 0, name))
    return CoordinateTable.empty()


def _table(tables: Iterable[CoordinateTable], known: Sequence[ParticleClass]) -> Tuple[ParticleClass, ...]:
    """Return the classes that are known or occur in tables, by ascending id."""
    found = {c.id: c for c in known}
    occurring: Set[int] = set()
    for table in tables:
        occurring.update(table.class_ids.tolist())
        for class_id, name in table.class_names.items():
            if class_id not in found:
                found[class_id] = ParticleClass(class_id, name)
    for class_id in occurring:
        found.setdefault(class_id, default_class(class_id))
    return tuple(found[i] for i in sorted(found))
