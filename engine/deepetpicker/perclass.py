"""Options that are one number for all classes or one for each: ``0.4``, ``1:0.4,2:0.6``, ``ring:0.4``."""

from __future__ import annotations

import math
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from deepetpicker.errors import InputError
from deepetpicker.io.classes import ParticleClass, values_by_class

EXPECTED = "a number, or a number per class such as 1:0.4,2:0.6"


def parse(value: Any) -> List[Tuple[str, float]]:
    """Return the numbers with the id or name of the class that each is for; empty for all that are not named.

    Parameters
    ----------
    value : number or str
        Parts are separated by commas, semicolons or line ends. Which classes there are is not known here.

    Raises
    ------
    InputError
        If a part is not a number or CLASS:NUMBER, or there is none; without a subject, to be put behind the option.
    """
    parts = [part.rpartition(":") for part in re.split(r"[,;\n]", str(value)) if part.strip()]
    try:
        found = [(key.strip(), float(word)) for key, _, word in parts]
    except ValueError:
        found = []
    bare = any(colon and not key.strip() for key, colon, _ in parts)
    if not found or bare or not all(math.isfinite(number) for _, number in found):
        raise InputError(f"must be {EXPECTED}, got {value!r}")
    return found


def canonical(value: Any) -> Union[float, str]:
    """Return the value in one spelling: a float when it is one number for all classes, else text.

    Raises
    ------
    InputError
        As :func:`parse`.
    """
    found = parse(value)
    if len(found) == 1 and not found[0][0]:
        return found[0][1]
    return ",".join(f"{key}:{number:g}" if key else f"{number:g}" for key, number in found)


def problem(value: Any, low: float = -math.inf, high: float = math.inf) -> Optional[str]:
    """Return what was expected when a value is not of this form or a number lies outside low to high, else None."""
    try:
        numbers = [number for _, number in parse(value)]
    except InputError:
        return EXPECTED
    return None if all(low <= n <= high for n in numbers) else f"a number between {low:g} and {high:g}"


def resolve(value: Any, classes: Sequence[ParticleClass], own: Mapping[int, float], what: str) -> Dict[int, float]:
    """Return the number of each class, by id: what the value says for it, else the class's own.

    Parameters
    ----------
    value : number or str
        As :func:`parse` takes it and :func:`~deepetpicker.io.classes.values_by_class` reads it. A negative number is
        the class's own.
    classes : sequence of ParticleClass
        All the classes there are.
    own : mapping
        Class id to its own number.
    what : str
        Name of the option, for messages.

    Raises
    ------
    InputError
        If it is not of this form, or names a class that there is not.
    """
    given = {key: float(word) for key, word in values_by_class(str(canonical(value)), classes, what).items()}
    return {c.id: own[c.id] if given.get(c.id, -1.0) < 0 else given[c.id] for c in classes}


def text_of(numbers: Mapping[int, float], digits: int = 2) -> str:
    """Return numbers of classes as text for people: ``0.40``, or ``1:0.40, 2:0.60`` where they differ."""
    words = {key: f"{number:.{digits}f}" for key, number in sorted(numbers.items())}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{key}:{word}" for key, word in words.items())
