"""What each kind of study compares."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Sequence

from deepetpicker.config import suggestion
from deepetpicker.errors import InputError

NETWORK = "network"
ALL = "all"
NUMBERS = ("5", "10", "20", "40", ALL)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the things that a study compares.

    Attributes
    ----------
    name : str
        Short and good for a file name; what ``--values`` calls it.
    title : str
        What tables and figures call it.
    method : str
        How it picks.
    train, pick : dict
        Options of ``train`` and ``pick`` that differ from those of the study.
    labels : int
        Number of labels it gets; 0 takes those of the study.
    value : float
        Where it stands on the axis of the figure; NaN for a category.
    """

    name: str
    title: str
    method: str = NETWORK
    train: Dict[str, Any] = dataclasses.field(default_factory=dict)
    pick: Dict[str, Any] = dataclasses.field(default_factory=dict)
    labels: int = 0
    value: float = float("nan")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of study.

    Attributes
    ----------
    question : str
        What it asks.
    axis : str
        What the values of its variants are; empty for categories.
    notes : str
        What a reader has to know of how it is done.
    make : callable
        The words of ``--values`` (none for the kind's own) and the number of labels there are to its variants.
    """

    question: str
    axis: str
    notes: str
    make: Callable[[Sequence[str], int], List[Variant]]


def _number(words: Sequence[str], n_labels: int) -> List[Variant]:
    """Return a variant per number of labels; numbers that there are not are left out."""
    numbers = sorted({n_labels if word == ALL else int(_positive(word, whole=True)) for word in words or NUMBERS})
    return [Variant(str(n), f"{n} labels" + (" (all)" if n == n_labels else ""), labels=n, value=n,
                    train={} if n == n_labels else {"unannotated": "unknown"}) for n in numbers if n <= n_labels]


def _positive(word: str, whole: bool = False) -> float:
    """Return a word of ``--values`` as a number that is not negative, or raise InputError."""
    try:
        value = float(word)
        if value >= 0 and value != float("inf") and not (whole and (value != int(value) or value < 1)):
            return value
    except ValueError:
        pass
    raise InputError(f"values must be {'whole numbers from 1' if whole else 'numbers from 0'}, separated by commas, "
                     f"got {word!r}")


def chosen(variants: Sequence[Variant], words: Sequence[str]) -> List[Variant]:
    """Return the variants that are named, in their own order; all of them when none is.

    Parameters
    ----------
    variants : sequence of Variant
        What there is.
    words : sequence of str
        Names.

    Raises
    ------
    InputError
        For a name that no variant has.
    """
    names = [variant.name for variant in variants]
    for word in words:
        if word not in names:
            raise InputError(f"values must be among {', '.join(names)}, got {word!r}{suggestion(word, names)}")
    return [variant for variant in variants if not words or variant.name in words]


KINDS: Dict[str, Kind] = {
    "number": Kind(
        "How many labels does a model need?", "labels",
        "Labels are drawn by the seed, of all classes in turn; fewer are among the more. Where some particles have no "
        "label, what the network takes for one far from any label is left out of the loss (--unannotated unknown).",
        _number),
}
