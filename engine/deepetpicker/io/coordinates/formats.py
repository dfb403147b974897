"""The interface that every coordinate format implements, and the registry of formats."""

from __future__ import annotations

import os
import pathlib
from typing import Dict, List, Optional, Tuple, Union

from deepetpicker.errors import FormatError, InputError, suggestion
from deepetpicker.io.coordinates.table import CoordinateTable, Frame
from deepetpicker.io.plainfile import check_plain

try:
    from typing import Protocol
except ImportError:  # pragma: no cover - Python 3.7 and older
    Protocol = object  # type: ignore[assignment]

PathLike = Union[str, "os.PathLike[str]"]
_FLAGS = {"voxel_size_ang": ("the voxel size", "--voxel-size"), "shape_zyx": ("the tomogram's shape", "--shape"),
          "box_size_vox": ("the box size", "--box-size"), "tomogram": ("the tomogram's name", "--tomogram")}


class CoordinateFormat(Protocol):
    """One file format of particle positions.

    Attributes
    ----------
    name : str
        Word that selects the format: ``--from``, ``--to``.
    suffixes : tuple of str
        File suffixes that select it, lower case.
    needs : tuple of str
        Fields of :class:`Frame` without which it cannot be written.
    loses : tuple of str
        What it cannot store: "classes", "scores", "class names".
    """

    name: str
    suffixes: Tuple[str, ...]
    needs: Tuple[str, ...]
    loses: Tuple[str, ...]

    def read(self, path: pathlib.Path, frame: Frame) -> CoordinateTable:
        """Return the table that a file holds."""

    def write(self, path: pathlib.Path, table: CoordinateTable, frame: Frame) -> None:
        """Write the table to path, which is a temporary name."""


class Registry:
    """The known formats, by name and by suffix; the order of registration is the order of search."""

    def __init__(self) -> None:
        self._formats: Dict[str, CoordinateFormat] = {}

    def add(self, *formats: CoordinateFormat) -> None:
        """Register formats; a suffix belongs to the first format that names it."""
        for one in formats:
            self._formats[one.name] = one

    @property
    def names(self) -> List[str]:
        """Names of all formats."""
        return list(self._formats)

    @property
    def suffixes(self) -> Tuple[str, ...]:
        """All suffixes in the order of search."""
        return tuple(dict.fromkeys(s for one in self._formats.values() for s in one.suffixes))

    def by_name(self, name: str) -> CoordinateFormat:
        """Return a format by its name, or raise InputError naming the nearest one."""
        if name not in self._formats:
            raise InputError(f"unknown coordinate format {name!r}{suggestion(name, self.names)}; known: "
                             f"{', '.join(self.names)}")
        return self._formats[name]

    def by_suffix(self, path: PathLike) -> CoordinateFormat:
        """Return the format of a file by its suffix, or raise FormatError listing the known ones."""
        suffix = pathlib.Path(path).suffix.lower()
        found = next((one for one in self._formats.values() if suffix in one.suffixes), None)
        if found is None:
            raise FormatError(f"{path}: no coordinate format has the suffix {suffix or '(none)'!r}; known: "
                              f"{' '.join(self.suffixes)}; or name the format ({', '.join(self.names)}) with --from or "
                              "--to")
        return found


def require(frame: Frame, fields: Tuple[str, ...], path: PathLike, what: str) -> None:
    """Raise InputError naming the flag to give when a field of the frame is unknown."""
    for field in fields:
        if not getattr(frame, field):
            label, flag = _FLAGS[field]
            raise InputError(f"{path}: {what} needs {label}: give it with {flag}")


def read_lines(path: PathLike) -> List[str]:
    """Return the lines of a text file without line ends; byte-order marks and any line ends are understood.

    Raises
    ------
    InputError
        If the file is missing or unreadable.
    FormatError
        If it is no text file.
    """
    check_plain(path, "a coordinate file")
    try:
        raw = pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"no such coordinate file: {path}") from error
    except IsADirectoryError as error:
        raise InputError(f"expected a coordinate file, got a folder: {path}") from error
    except OSError as error:
        raise InputError(f"cannot read the coordinates {path}: {error.strerror or error}") from error
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if "\x00" in text:
        raise FormatError(f"{path} is not a text file: expected a table of coordinates")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def parse_number(text: str, path: PathLike, line: int, column: str) -> float:
    """Return a finite number from a field, or raise FormatError naming file, line and column."""
    value: Optional[float]
    try:
        value = float(text)
    except ValueError:
        value = None
    if value is None or value - value != 0.0:
        raise FormatError(f"{path}, line {line}: {column} must be a finite number, found {text!r}")
    return value


def parse_class(text: str, path: PathLike, line: int) -> int:
    """Return a whole number >= 0 from a field, or raise FormatError naming file and line."""
    value = parse_number(text, path, line, "the class")
    if value != int(value) or not 0 <= value < 2 ** 63:
        raise FormatError(f"{path}, line {line}: the class must be a whole number >= 0, found {text!r}; without a "
                          "header three columns are x y z and four class x y z: add a header line if these are not")
    return int(value)
