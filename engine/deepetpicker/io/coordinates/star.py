"""STAR files: RELION 3, 4 and 5 particles and crYOLO .cbox, read and written with starfile."""

from __future__ import annotations

import inspect
import linecache
import pathlib
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.coordinates.formats import read_lines, require
from deepetpicker.io.coordinates.table import CoordinateTable, Frame

_PIXEL = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
_CENTERED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
_ORIGIN_ANG = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
_ORIGIN_PIXEL = ("rlnOriginX", "rlnOriginY", "rlnOriginZ")
_CLASS = ("rlnClassNumber", "rlnGroupNumber")
_SCORE = "rlnAutopickFigureOfMerit"
_NAMES = ("rlnTomoName", "rlnMicrographName")
_UNBINNED = "rlnTomoTiltSeriesPixelSize"
_BOX = ("CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth", "EstWidth", "EstHeight", "Confidence",
        "NumBoxes", "Angle")


class Relion:
    """RELION particles; one handler per version, all versions are recognised on reading.

    Parameters
    ----------
    version : int
        3 (pixels of the tomogram), 4 (unbinned pixels) or 5 (angstrom from the tomogram's centre).
    """

    loses: Tuple[str, ...] = ("class names",)

    def __init__(self, version: int) -> None:
        self.version = version
        self.name = f"relion{version}"
        self.suffixes: Tuple[str, ...] = (".star",)
        self.needs: Tuple[str, ...] = ("voxel_size_ang", "shape_zyx") if version == 5 else ()

    def read(self, path: pathlib.Path, frame: Frame) -> CoordinateTable:
        """Return the particles of ``frame.tomogram`` (of the only tomogram when it is not given)."""
        blocks = read_blocks(path)
        block, particles = _find_block(blocks, path, (_CENTERED[0], _PIXEL[0]))
        if particles is None:
            return CoordinateTable.empty()
        particles = _of_tomogram(particles, frame.tomogram, path)
        loop = _Loop(path, block, particles)
        optics = _optics(blocks)
        if all(c in particles for c in _CENTERED):
            require(frame, ("voxel_size_ang", "shape_zyx"), path, "reading centred angstrom coordinates (RELION 5)")
            half_xyz = np.array(frame.shape_zyx[::-1]) / 2  # type: ignore[index]
            positions = loop.columns(_CENTERED) / frame.voxel_size_ang + half_xyz
        else:
            positions = loop.columns(_PIXEL) * _pixel_scale(optics, frame)
        positions = positions - _shift(loop, optics, frame)
        class_column = next((c for c in _CLASS if c in particles), None)
        classes = loop.columns((class_column,))[:, 0] if class_column else np.ones(len(particles))
        scores = loop.columns((_SCORE,), gaps=True)[:, 0] if _SCORE in particles else np.full(len(particles), np.nan)
        return CoordinateTable(positions[:, ::-1], classes, scores)

    def write(self, path: pathlib.Path, table: CoordinateTable, frame: Frame) -> None:
        """Write the particles as one tomogram, named ``frame.tomogram`` or after the file."""
        require(frame, self.needs, frame.tomogram or path, f"writing {self.name}")
        positions = table.positions_zyx_vox[:, ::-1]
        if self.version == 5:
            positions = (positions - np.array(frame.shape_zyx[::-1]) / 2) * frame.voxel_size_ang  # type: ignore[index]
        columns: Dict[str, Sequence[Any]] = {}
        columns[_NAMES[self.version < 4]] = [frame.tomogram or path.stem] * len(table)
        for label, values in zip(_CENTERED if self.version == 5 else _PIXEL, positions.T):
            columns[label] = [repr(float(v)) for v in values]
        columns[_CLASS[0]] = [str(int(c)) for c in table.class_ids]
        if np.isfinite(table.scores).any():
            columns[_SCORE] = [repr(float(s)) for s in table.scores]
        blocks: Dict[str, Dict[str, Sequence[Any]]] = {}
        if self.version > 3 and frame.voxel_size_ang:
            blocks["optics"] = {"rlnOpticsGroup": ["1"], "rlnOpticsGroupName": ["opticsGroup1"],
                                _UNBINNED: [repr(float(frame.voxel_size_ang))]}
            columns["rlnOpticsGroup"] = ["1"] * len(table)
        blocks["" if self.version == 3 else "particles"] = columns
        write_blocks(path, blocks)


class Cbox:
    """crYOLO .cbox: x and y of the box corner, z of the centre, width, height, depth and confidence."""

    name = "cbox"
    suffixes: Tuple[str, ...] = (".cbox",)
    needs: Tuple[str, ...] = ("box_size_vox",)
    loses: Tuple[str, ...] = ("class names", "classes")

    def read(self, path: pathlib.Path, frame: Frame) -> CoordinateTable:
        """Return the box centres with their confidence as score."""
        block, boxes = _find_block(read_blocks(path), path, (_BOX[0],))
        if boxes is None:
            return CoordinateTable.empty()
        loop = _Loop(path, block, boxes)
        centres = loop.columns(_BOX[:3])
        centres[:, :2] += loop.columns(("Width", "Height")) / 2
        scores = loop.columns((_BOX[8],), gaps=True)[:, 0] if _BOX[8] in boxes else np.full(len(boxes), np.nan)
        return CoordinateTable(centres[:, ::-1], np.ones(len(boxes), np.int64), scores)

    def write(self, path: pathlib.Path, table: CoordinateTable, frame: Frame) -> None:
        """Write boxes of ``frame.box_size_vox``, and the slices that hold one."""
        require(frame, self.needs, frame.tomogram or path, "writing .cbox")
        corners = table.positions_zyx_vox[:, ::-1] - np.array([0.5, 0.5, 0.0]) * frame.box_size_vox
        columns: Dict[str, Sequence[Any]] = {n: [repr(float(v)) for v in c] for n, c in zip(_BOX, corners.T)}
        for label in _BOX[3:8]:
            columns[label] = [repr(float(frame.box_size_vox))] * len(table)
        columns[_BOX[8]] = ["<NA>" if np.isnan(s) else repr(float(s)) for s in table.scores]
        for label in _BOX[9:]:
            columns[label] = ["<NA>"] * len(table)
        slices = np.unique(np.floor(table.positions_zyx_vox[:, 0] + 0.5).astype(int))
        write_blocks(path, {"global": {"cbox_format_version": "1.0"}, "cryolo": columns,
                            "cryolo_include": {"slice_index": [str(s) for s in slices]}})


class _Loop:
    """A loop block whose columns are read as numbers, with errors that name file and line."""

    def __init__(self, path: pathlib.Path, block: str, table: Any) -> None:
        self._path, self._block, self._table = path, block, table

    def columns(self, labels: Sequence[str], gaps: bool = False) -> np.ndarray:
        """Return (N, len(labels)) float64; a gap (<NA>, nan) is an error unless gaps are allowed."""
        import pandas

        missing = [label for label in labels if label not in self._table]
        if missing:
            raise FormatError(f"{self._path}: the particles lack the column _{missing[0]} (a 2D file?)")
        out = np.empty((len(self._table), len(labels)))
        for i, label in enumerate(labels):
            numbers = pandas.to_numeric(self._table[label], errors="coerce").to_numpy(dtype=np.float64)
            bad = np.flatnonzero(~np.isfinite(numbers))
            if len(bad) and not gaps:
                row = int(self._table.index[bad[0]])
                raise FormatError(f"{self._path}, line {self._line(row)}: {label} must be a finite number, found "
                                  f"{self._table[label].iloc[bad[0]]!r}")
            out[:, i] = numbers
        return out

    def _line(self, row: int) -> int:
        """Return the line number of a row of the loop."""
        inside = False
        for number, line in enumerate(read_lines(self._path), start=1):
            text = line.strip()
            if text.startswith("data_"):
                inside = text[5:] == self._block
            elif inside and text and not text.startswith(("_", "#", "loop_")):
                row -= 1
                if row < 0:
                    return number
        return 0


def read_blocks(path: pathlib.Path) -> Dict[str, Any]:
    """Return the data blocks of a STAR file: names to dictionaries or data frames; none when all loops are empty.

    Raises
    ------
    FormatError
        If the file is no STAR file.
    """
    import pandas
    import starfile

    if not any(line.strip().startswith("data_") for line in read_lines(path)):
        raise FormatError(f"{path} is not a STAR file: no line starts with data_")
    linecache.checkcache(str(path))
    known = inspect.signature(starfile.read).parameters
    options = {"parse_as_string": list(_NAMES)} if "parse_as_string" in known else {}
    try:
        return dict(starfile.read(path, always_dict=True, **options))
    except pandas.errors.EmptyDataError:
        return {}
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: damaged STAR file ({error})") from error


def write_blocks(path: pathlib.Path, blocks: Dict[str, Dict[str, Any]]) -> None:
    """Write data blocks; lists make a loop, texts a simple block. Numbers come as text, so that none is rounded."""
    import pandas
    import starfile

    content = {name: pandas.DataFrame(columns) if all(isinstance(c, list) for c in columns.values()) else columns
               for name, columns in blocks.items()}
    starfile.write(content, path)


def _find_block(blocks: Dict[str, Any], path: pathlib.Path, wanted: Tuple[str, ...]) -> Tuple[str, Optional[Any]]:
    """Return the name and the data frame of the block with one of the wanted columns; None when it is empty."""
    frames = {name: b for name, b in blocks.items() if hasattr(b, "columns")}
    for name, frame in frames.items():
        if any(label in frame.columns for label in wanted):
            return name, frame.reset_index(drop=True) if len(frame) else None
    if any("rlnTomoImportParticleFile" in frame.columns for frame in frames.values()):
        raise FormatError(f"{path} only lists other files (rlnTomoImportParticleFile): read those")
    for name, block in blocks.items():
        if isinstance(block, dict) and any(label in block for label in wanted):
            import pandas

            return name, pandas.DataFrame({k: [v] for k, v in block.items()})
    if not blocks or any(len(frame) == 0 for frame in frames.values()):
        return "", None
    found = [str(c) for frame in frames.values() for c in frame.columns]
    raise FormatError(f"{path} holds no coordinates: expected a column _{' or _'.join(wanted)}, found "
                      f"{', '.join(found) or 'no table'}")


def _of_tomogram(particles: Any, wanted: str, path: pathlib.Path) -> Any:
    """Return the rows of one tomogram, matched by its exact name."""
    column = next((c for c in _NAMES if c in particles), None)
    if column is None:
        return particles
    values = particles[column]
    names = list(dict.fromkeys(str(v) for v in values))
    if not wanted:
        if len(names) > 1:
            raise InputError(f"{path} holds {len(names)} tomograms ({_some(names)}): choose one with --tomogram")
        return particles
    mask = np.array([_same_name(v, wanted) for v in values])
    if not mask.any():
        raise InputError(f"{path} has no tomogram named {wanted!r}: it holds {_some(names)}")
    return particles[mask]


def _same_name(value: Any, wanted: str) -> bool:
    """Tell whether names are equal; old starfile versions turn names like 01 into numbers."""
    if isinstance(value, str):
        return value == wanted
    try:
        return float(value) == float(wanted)
    except ValueError:
        return False


def _some(names: List[str]) -> str:
    """Return the first names of a list."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _optics(blocks: Dict[str, Any]) -> Dict[str, float]:
    """Return the numbers of the first optics group."""
    optics = blocks.get("optics")
    if optics is None or len(optics) == 0:
        return {}
    first = optics.iloc[0].to_dict() if hasattr(optics, "iloc") else dict(optics)
    return {str(k): float(v) for k, v in first.items() if isinstance(v, (int, float, np.number))}


def _pixel_scale(optics: Dict[str, float], frame: Frame) -> float:
    """Return voxels of this tomogram per unbinned pixel: 1 when either size is unknown."""
    unbinned = optics.get(_UNBINNED, 0.0)
    return unbinned / frame.voxel_size_ang if unbinned > 0 and frame.voxel_size_ang > 0 else 1.0


def _shift(loop: _Loop, optics: Dict[str, float], frame: Frame) -> np.ndarray:
    """Return the origin shifts (N, 3) or (1, 3), x y z in voxels of this tomogram; RELION subtracts them."""
    table = loop._table
    if all(c in table for c in _ORIGIN_ANG):
        shift = loop.columns(_ORIGIN_ANG)
        voxel = frame.voxel_size_ang or optics.get(_UNBINNED) or optics.get("rlnImagePixelSize") or 0.0
        if not shift.any():
            return np.zeros((1, 3))
        if not voxel:
            require(frame, ("voxel_size_ang",), loop._path, "applying the origin shifts (rlnOriginXAngst)")
        return shift / voxel
    if all(c in table for c in _ORIGIN_PIXEL):
        return loop.columns(_ORIGIN_PIXEL)
    return np.zeros((1, 3))
