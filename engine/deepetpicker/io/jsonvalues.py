"""Values out of JSON files that people may have written by hand, and into those that we write."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Mapping, Sequence

from deepetpicker.errors import InputError


def objects(content: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """Return a list of objects from a mapping, empty when it is absent, or raise InputError."""
    entries = content.get(key) or []
    if not isinstance(entries, (list, tuple)) or not all(isinstance(e, Mapping) for e in entries):
        raise InputError(f"{key!r} must be a list of objects")
    return entries


def parse(text: str) -> Any:
    """Return the value of a JSON text, or raise ValueError, also where brackets are nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("brackets are nested too deeply") from error


def number(value: Any, what: str, expected: str = "a number >= 0") -> float:
    """Return a finite number >= 0, or raise InputError saying what was expected of which value."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise InputError(f"{what} must be {expected}, got {value!r}")
    return found


def finite_json(value: Any) -> Any:
    """Return value as JSON can hold it: NaN and infinities become None, tuples lists, paths text, numpy numbers."""
    if isinstance(value, Mapping):
        return {str(k): finite_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(v) for v in value]
    if hasattr(value, "tolist"):
        return finite_json(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
