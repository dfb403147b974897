"""One number for all classes or one for each: ``0.4``, ``1:0.4,2:0.6``, or ``0.4,2:0.6`` (0.4 for all but class 2)."""

from __future__ import annotations

import math
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from deepetpicker.errors import InputError

PerClass = Union[float, str]
EXPECTED = "a number, or a number per class id such as 1:0.4,2:0.6"


def parse(value: Any) -> Tuple[Optional[float], Dict[int, float]]:
    """Return the number for classes that are not named (None when there is none) and those of the named classes.

    Parameters
    ----------
    value : number or str
        Parts are separated by commas, semicolons or blanks.

    Raises
    ------
    InputError
        If it is neither; without a subject, to be put behind the option's name.
    """
    others: Optional[float] = None
    named: Dict[int, float] = {}
    for word in str(value).replace(": ", ":").replace(";", ",").replace(",", " ").split():
        name, colon, number = word.rpartition(":")
        try:
            key, found = int(name) if colon else None, float(number)
        except ValueError:
            raise InputError(f"must be {EXPECTED}, got {value!r}") from None
        if not math.isfinite(found) or key in named or (key is None and others is not None):
            raise InputError(f"must be {EXPECTED}, each class once, got {value!r}")
        if key is None:
            others = found
        else:
            named[key] = found
    if others is None and not named:
        raise InputError(f"must be {EXPECTED}, got {value!r}")
    return others, named


def canonical(value: Any) -> PerClass:
    """Return the value in its one spelling: a float when it is one for all classes, else text, classes ascending.

    Raises
    ------
    InputError
        As :func:`parse`.
    """
    others, named = parse(value)
    if others is not None and not named:
        return others
    start = [] if others is None else [f"{others:g}"]
    return ",".join(start + [f"{key}:{named[key]:g}" for key in sorted(named)])


def problem(value: Any, low: float = -math.inf, high: float = math.inf) -> Optional[str]:
    """Return what was expected when a value is not of this form or a number lies outside low to high, else None."""
    try:
        others, named = parse(value)
    except InputError:
        return EXPECTED
    numbers = [*named.values(), *([] if others is None else [others])]
    return None if all(low <= n <= high for n in numbers) else f"a number between {low:g} and {high:g}"


def resolve(value: Any, own: Mapping[int, float], what: str, names: Optional[Mapping[int, str]] = None
            ) -> Dict[int, float]:
    """Return the number of each class: the one given for it, else the one for all, else its own.

    Parameters
    ----------
    value : number or str
        As :func:`parse` takes it. A negative number stands for the class's own.
    own : mapping
        Class id to its own number; these are all the classes there are.
    what : str
        Name of the option, for the message.
    names : mapping, optional
        Names of the classes, for the message.

    Raises
    ------
    InputError
        If it is not of this form, or names another class.
    """
    try:
        others, named = parse(value)
    except InputError as error:
        raise InputError(f"{what} {error}") from error
    unknown = [key for key in named if key not in own]
    if unknown:
        known = ", ".join(f"{key} ({names[key]})" if names and key in names else str(key) for key in own)
        raise InputError(f"{what} names class {unknown[0]}, which there is not: expected some of {known}")
    given = {key: named.get(key, -1.0 if others is None else others) for key in own}
    return {key: own[key] if number < 0 else number for key, number in given.items()}


def text_of(numbers: Mapping[int, float], digits: int = 2) -> str:
    """Return numbers of classes as text for people: ``0.40``, or ``1:0.40, 2:0.60`` where they differ."""
    words = {key: f"{number:.{digits}f}" for key, number in sorted(numbers.items())}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{key}:{word}" for key, word in words.items())
