"""The errors a user can meet. Each message says what was expected, what was found and what to do."""

from __future__ import annotations

import difflib
from typing import Sequence

NEAR = 0.6  # as alike as this a word and what is suggested for it are, of 1


class DeepETPickerError(Exception):
    """Base of every error this package raises on purpose; the command line shows it in one line."""


class InputError(DeepETPickerError, ValueError):
    """A value, file or combination of them that the user gave cannot be used."""


class FormatError(InputError):
    """A file exists but does not hold what its format promises."""


class ModelFileError(InputError):
    """A model file is damaged, of another format version, or does not fit the request."""


class OutputError(DeepETPickerError, OSError):
    """A result could not be written (disk full, no permission); nothing half-written is left behind."""


class DeviceMemoryError(DeepETPickerError, MemoryError):
    """The device ran out of memory at the smallest batch and tile."""


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string.

    A word that is like the beginning of a known one counts: ``--diamter`` is near ``--diameter-angstrom``.
    """
    def nearness(name: str) -> float:
        starts = (name, name[:len(word)], name[:len(word) + 1])
        return max(difflib.SequenceMatcher(None, start, word).ratio() for start in starts)

    near = max(known, key=nearness, default="")
    return f"; did you mean {near!r}?" if near and nearness(near) >= NEAR else ""
