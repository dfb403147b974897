"""The errors a user can meet. Each message says what was expected, what was found and what to do."""

from __future__ import annotations


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
