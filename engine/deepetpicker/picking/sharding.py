"""One run shared by several processes, devices or machines that have nothing in common but the output folder.

Shard i of n takes every n-th item. What it has finished it says in records (:mod:`deepetpicker.io.records`).
"""

from __future__ import annotations

import dataclasses
import re
from typing import List, Sequence, TypeVar

from deepetpicker.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which part of a list a process takes.

    Attributes
    ----------
    index : int
        From 1 to count.
    count : int
        Number of shards, >= 1.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that ``"i/n"`` names.

        Raises
        ------
        InputError
            If it is not of this form with 1 <= i <= n.
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text, re.ASCII)
        index, count = (int(number) for number in found.groups()) if found else (0, 0)
        if not 1 <= index <= count:
            raise InputError(f"shard must be i/n with 1 <= i <= n, such as 2/4 for the second of four, got {text!r}: "
                             "give each of the n processes another i, counted from 1")
        return cls(index, count)

    def choose(self, items: Sequence[T]) -> List[T]:
        """Return items i, i + n, i + 2n, ... (counted from 1) of a list of any length; may be empty."""
        return list(items[self.index - 1::self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
