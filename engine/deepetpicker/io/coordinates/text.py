"""Plain tables: CSV, upstream .coords and .txt, EMAN2 .box and IMOD point text."""

from __future__ import annotations

import csv
import pathlib
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.coordinates.formats import parse_class, parse_number, read_lines
from deepetpicker.io.coordinates.table import CoordinateTable, Frame

_CLASS_COLUMNS = ("class", "class_id", "classid", "class_number")
_NAME_COLUMNS = ("class_name", "classname", "particle_type")
_HEADERLESS = {3: ("x", "y", "z"), 4: ("class", "x", "y", "z"), 5: ("class", "x", "y", "z", "score")}


class Row(NamedTuple):
    """One line of a table: its number in the file, from 1, and its fields."""

    line: int
    fields: List[str]


def read_rows(path: pathlib.Path) -> Tuple[Optional[List[str]], List[Row]]:
    """Return the header (lower case; None without one) and the rows of a text table.

    Commas, semicolons, tabs and blanks separate fields; blank lines and lines that begin with ``#`` are left out,
    but a commented header counts as one. With semicolons a comma is the decimal mark.
    """
    header: Optional[List[str]] = None
    rows: List[Row] = []
    for number, line in enumerate(read_lines(path), start=1):
        text = line.strip()
        comment = text.startswith("#")
        fields = _split(text.lstrip("#").strip() if comment else text)
        words = [f.lower() for f in fields]
        if not any(fields):
            continue
        if comment:
            header = words if not rows and header is None and {"x", "y", "z"} <= set(words) else header
        elif not rows and header is None and not any(_is_number(f) for f in fields):
            header = words
        else:
            rows.append(Row(number, fields))
    if header is not None and not {"x", "y", "z"} <= set(header):
        raise FormatError(f"{path}: the header must name x, y and z, found {', '.join(header)}")
    return header, rows


def _split(text: str) -> List[str]:
    """Return the stripped fields of one line."""
    for mark in (";", "\t", ","):
        if mark in text:
            fields = [f.strip() for f in _cells(text, mark)]
            fields = [f.replace(",", ".") for f in fields] if mark == ";" else fields
            return fields if mark != "," or len(fields) > 2 else text.replace(",", " ").split()
    return text.split()


def _cells(text: str, mark: str) -> List[str]:
    """Return the cells of one line; what the csv module refuses (a cell of 131072 characters) is taken as it is."""
    try:
        return next(csv.reader([text], delimiter=mark))
    except csv.Error:
        return text.split(mark)


def _is_number(text: str) -> bool:
    """Tell whether a field is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_table(path: pathlib.Path, most: int = 5) -> CoordinateTable:
    """Return the table of a text file by its header, or by the number of its columns, at most ``most``.

    Raises
    ------
    FormatError
        Naming file and line.
    """
    header, rows = read_rows(path)
    columns = header if header is not None else _columns_without_header(path, rows, most)
    index: Dict[str, int] = {n: columns.index(n) for n in ("x", "y", "z", "score") if n in columns}
    for key, aliases in (("class", _CLASS_COLUMNS), ("name", _NAME_COLUMNS)):
        found = [n for n in aliases if n in columns]
        index.update({key: columns.index(found[0])} if found else {})
    least = 1 + max(index[n] for n in ("x", "y", "z"))
    positions, classes, scores = np.zeros((len(rows), 3)), np.ones(len(rows), np.int64), np.full(len(rows), np.nan)
    names: Dict[int, str] = {}
    for i, row in enumerate(rows):
        if len(row.fields) < least or (header is None and not _fills(row, len(columns))):
            raise FormatError(f"{path}, line {row.line}: expected {len(columns)} columns ({', '.join(columns)}), found "
                              f"{len(row.fields)}")
        positions[i] = [parse_number(row.fields[index[n]], path, row.line, n) for n in ("z", "y", "x")]
        if "class" in index:
            classes[i] = parse_class(_field(row, index["class"]), path, row.line)
        if "score" in index:
            scores[i] = _score(_field(row, index["score"]), path, row.line)
        if "name" in index:
            _name(names, int(classes[i]), _field(row, index["name"]), path, row.line)
    return CoordinateTable(positions, classes, scores, names)


def _columns_without_header(path: pathlib.Path, rows: Sequence[Row], most: int) -> List[str]:
    """Return the column names that the number of columns of the first row stands for."""
    if not rows:
        return list(_HEADERLESS[3])
    count = max(i for i, field in enumerate(rows[0].fields, start=1) if field)
    if count not in _HEADERLESS or count > most:
        raise FormatError(f"{path}, line {rows[0].line}: without a header a table has 3 columns (x y z), 4 (class x y "
                          f"z) or, in .csv, 5 (class x y z score), found {count}; IMOD points (object contour x y z) "
                          "are read with --from imod")
    return list(_HEADERLESS[count])


def _fills(row: Row, count: int) -> bool:
    """Tell whether a row has so many fields; empty ones behind them do not count."""
    return len(row.fields) >= count and not any(row.fields[count:])


def _field(row: Row, index: int) -> str:
    """Return a field, empty when the row is shorter."""
    return row.fields[index] if index < len(row.fields) else ""


def _score(text: str, path: pathlib.Path, line: int) -> float:
    """Return a score; an empty field or nan is an unknown one."""
    if text.lower() in ("", "nan", "<na>", "none"):
        return float("nan")
    return parse_number(text, path, line, "score")


def _name(names: Dict[int, str], class_id: int, name: str, path: pathlib.Path, line: int) -> None:
    """Remember a class name; one id with two names is an error."""
    if name and names.setdefault(class_id, name) != name:
        raise FormatError(f"{path}, line {line}: class {class_id} is named {name!r} here and {names[class_id]!r} "
                          "before; give each name its own number in a class column")


def _lines(path: pathlib.Path, lines: List[str]) -> None:
    """Write lines with Unix line ends."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        stream.write("".join(line + "\n" for line in lines))


def _xyz(position_zyx: np.ndarray, mark: str) -> str:
    """Return a position as x, y, z text that reads back to the bit."""
    return mark.join(repr(float(v)) for v in position_zyx[::-1])


class Csv:
    """Comma-separated values with the header ``class,x,y,z,score``; read by header, or headerless 3 to 5 columns."""

    name = "csv"
    suffixes: Tuple[str, ...] = (".csv", ".tsv")
    needs: Tuple[str, ...] = ()
    loses: Tuple[str, ...] = ("class names",)

    def read(self, path: pathlib.Path, frame: Frame) -> CoordinateTable:
        """Return the table that a file holds."""
        return read_table(path)

    def write(self, path: pathlib.Path, table: CoordinateTable, frame: Frame) -> None:
        """Write class, x, y, z and score; an unknown score is an empty field."""
        lines = ["class,x,y,z,score"]
        for position, class_id, score in zip(table.positions_zyx_vox, table.class_ids, table.scores):
            lines.append(f"{class_id},{_xyz(position, ',')},{'' if np.isnan(score) else repr(float(score))}")
        _lines(path, lines)


class Coords:
    """The reference implementation's text: x y z, or class x y z; fractions are kept."""

    name = "coords"
    suffixes: Tuple[str, ...] = (".coords", ".txt")
    needs: Tuple[str, ...] = ()
    loses: Tuple[str, ...] = ("class names", "scores")

    def read(self, path: pathlib.Path, frame: Frame) -> CoordinateTable:
        """Return the table that a file holds."""
        return read_table(path, most=4)

    def write(self, path: pathlib.Path, table: CoordinateTable, frame: Frame) -> None:
        """Write class x y z, separated by tabs."""
        _lines(path, [f"{c}\t" + _xyz(p, "\t") for p, c in zip(table.positions_zyx_vox, table.class_ids)])


class Box:
    """EMAN2 box text: x y z of the centre; six columns are the corner and the edges of a box."""

    name = "box"
    suffixes: Tuple[str, ...] = (".box",)
    needs: Tuple[str, ...] = ()
    loses: Tuple[str, ...] = ("class names", "scores", "classes")

    def read(self, path: pathlib.Path, frame: Frame) -> CoordinateTable:
        """Return the centres: 3 columns as they are, 6 columns as corner plus half the edges."""
        header, rows = read_rows(path)
        if header is not None:
            return read_table(path)
        numbers = _numbers(path, rows, (3, 6), "x y z, or x y z and three box edges (x y w h is a box in a 2D image)")
        centres = numbers[:, :3] + (numbers[:, 3:] / 2 if numbers.shape[1] == 6 else 0.0)
        return CoordinateTable.from_positions(centres[:, ::-1])

    def write(self, path: pathlib.Path, table: CoordinateTable, frame: Frame) -> None:
        """Write x y z of the centres, separated by tabs, as e2spt_boxer.py reads them."""
        _lines(path, [_xyz(p, "\t") for p in table.positions_zyx_vox])


class Imod:
    """IMOD point text (model2point, point2model): x y z, contour x y z, or object contour x y z.

    The centre of the first voxel is (0.5, 0.5, 0.0) there; the object number is the class.
    """

    name = "imod"
    suffixes: Tuple[str, ...] = (".pts", ".point", ".points")
    needs: Tuple[str, ...] = ()
    loses: Tuple[str, ...] = ("class names", "scores")
    _origin_xyz = np.array([0.5, 0.5, 0.0])

    def read(self, path: pathlib.Path, frame: Frame) -> CoordinateTable:
        """Return the points, moved to voxel centres."""
        _, rows = read_rows(path)
        numbers = _numbers(path, rows, (3, 4, 5), "x y z, contour x y z or object contour x y z")
        positions = (numbers[:, -3:] - self._origin_xyz)[:, ::-1]
        table = CoordinateTable.from_positions(positions)
        if numbers.shape[1] < 5:
            return table
        classes = [parse_class(row.fields[0], path, row.line) for row in rows]
        return CoordinateTable(positions, np.array(classes, np.int64), table.scores)

    def write(self, path: pathlib.Path, table: CoordinateTable, frame: Frame) -> None:
        """Write object contour x y z; the class is the object, every object has one contour."""
        if len(table) and int(table.class_ids.min()) < 1:
            raise InputError(f"{path}: IMOD numbers objects from 1, so that class {int(table.class_ids.min())} cannot "
                             "be written: choose another format, or give the class a number >= 1")
        shifted = table.positions_zyx_vox + self._origin_xyz[::-1]
        _lines(path, [f"{c}\t1\t" + _xyz(p, "\t") for p, c in zip(shifted, table.class_ids)])


def _numbers(path: pathlib.Path, rows: Sequence[Row], counts: Tuple[int, ...], expected: str) -> np.ndarray:
    """Return (N, columns) float64 of a table with one of the given numbers of columns."""
    if not rows:
        return np.zeros((0, counts[0]))
    count = len(rows[0].fields)
    for row in rows:
        if len(row.fields) != count or count not in counts:
            raise FormatError(f"{path}, line {row.line}: expected {expected}, found {len(row.fields)} columns")
    return np.array([[parse_number(f, path, row.line, f"column {i + 1}") for i, f in enumerate(row.fields)]
                     for row in rows])
