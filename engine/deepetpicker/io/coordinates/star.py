"""STAR files: RELION 3, 4 and 5 particles and crYOLO .cbox, read and written with starfile."""

from __future__ import annotations

import inspect
import linecache
import pathlib
import re
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
_BEYOND = re.compile(r"""(?:^|[\s"'])([+-]?(?:\d+(?:\.\d*)?|\.\d+)[eE][+-]?\d{9,})""")
_NAMES = ("rlnTomoName", "rlnMicrographName")
_UNBINNED, _GROUP = "rlnTomoTiltSeriesPixelSize", "rlnOpticsGroup"
# that a name of a tomogram may end in
_FILE_SUFFIXES = (".tomostar", ".mrc", ".rec", ".map", ".mrcs", ".st", ".ome.zarr", ".zarr")
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
        unbinned_ang = _of_optics(blocks, loop, _UNBINNED)
        if all(c in particles for c in _CENTERED):
            require(frame, ("voxel_size_ang", "shape_zyx"), path, "reading centred angstrom coordinates (RELION 5)")
            half_xyz = np.array(frame.shape_zyx[::-1]) / 2  # type: ignore[index]
            positions = loop.columns(_CENTERED) / frame.voxel_size_ang + half_xyz
        else:
            positions = loop.columns(_PIXEL) * _pixel_scale(unbinned_ang, frame)
        if any(c in particles for c in (*_ORIGIN_ANG, *_ORIGIN_PIXEL)):
            images_ang = _of_optics(blocks, loop, "rlnImagePixelSize")
            positions = positions - _shift(loop, np.where(unbinned_ang > 0, unbinned_ang, images_ang), frame)
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
        columns[_NAMES[self.version < 4]] = [_star_name(frame.tomogram or path.stem)] * len(table)
        for label, values in zip(_CENTERED if self.version == 5 else _PIXEL, positions.T):
            columns[label] = [repr(float(v)) for v in values]
        columns[_CLASS[0]] = [str(int(c)) for c in table.class_ids]
        if np.isfinite(table.scores).any():
            columns[_SCORE] = [repr(float(s)) for s in table.scores]
        blocks: Dict[str, Dict[str, Sequence[Any]]] = {}
        if self.version > 3 and frame.voxel_size_ang:
            blocks["optics"] = {_GROUP: ["1"], "rlnOpticsGroupName": ["opticsGroup1"],
                                _UNBINNED: [repr(float(frame.voxel_size_ang))]}
            columns[_GROUP] = ["1"] * len(table)
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
        self.path, self._block, self.table = path, block, table

    def columns(self, labels: Sequence[str], gaps: bool = False) -> np.ndarray:
        """Return (N, len(labels)) float64; a gap (<NA>, nan) is an error unless gaps are allowed."""
        import pandas

        missing = [label for label in labels if label not in self.table]
        if missing:
            raise FormatError(f"{self.path}: the particles lack the column _{missing[0]} (a 2D file?)")
        out = np.empty((len(self.table), len(labels)))
        for i, label in enumerate(labels):
            try:
                numbers = pandas.to_numeric(self.table[label], errors="coerce").to_numpy(dtype=np.float64)
            except OverflowError as error:
                raise FormatError(f"{self.path}: {label} holds a number that is too large") from error
            bad = np.flatnonzero(~np.isfinite(numbers))
            if len(bad) and not gaps:
                row = int(self.table.index[bad[0]])
                raise FormatError(f"{self.path}, line {self._line(row)}: {label} must be a finite number, found "
                                  f"{self.table[label].iloc[bad[0]]!r}")
            out[:, i] = numbers
        return out

    def _line(self, row: int) -> int:
        """Return the line number of a row of the loop."""
        inside = False
        for number, line in enumerate(read_lines(self.path), start=1):
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
        If the file is no STAR file, is not UTF-8, of which the library would read nothing and say nothing, or has a
        number whose exponent pandas 2 would crash at.
    """
    import pandas
    import starfile

    lines = read_lines(path)
    if not any(line.strip().startswith("data_") for line in lines):
        raise FormatError(f"{path} is not a STAR file: no line starts with data_")
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: expected text in UTF-8, found the byte 0x{error.object[error.start]:02x} at "
                          f"{error.start}: save it as UTF-8, or take the letter out") from error
    for number, line in enumerate(lines, start=1):
        beyond = _BEYOND.search(line)
        if beyond:
            raise FormatError(f"{path}, line {number}: expected numbers, found {beyond.group(1)}, which none can be")
    linecache.checkcache(str(path))
    known = inspect.signature(starfile.read).parameters
    options = {"parse_as_string": list(_NAMES)} if "parse_as_string" in known else {}
    try:
        return dict(starfile.read(path, always_dict=True, **options))
    except pandas.errors.EmptyDataError:
        return {}
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, SyntaxError) as error:
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
            twice = frame.columns[frame.columns.duplicated()]
            if len(twice):
                raise FormatError(f"{path}: the column _{twice[0]} is there twice: take one of them out")
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
    """Return the rows of one tomogram: those of exactly its name, else those whose name is a file of its name.

    ``TS_01.mrc``, ``TS_01.tomostar`` and ``data/TS_01.rec`` are files of the tomogram TS_01. InputError when there is
    none, or when they are different files.
    """
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
        alike = [name for name in names if _stem(name) == _stem(wanted)]
        if len(alike) > 1:
            raise InputError(f"{path}: {_some(alike)} may each be the tomogram {wanted!r}: rename all but one of them, "
                             f"or write the right one to a file of its own (deepetpicker convert {path.name} "
                             f"{_stem(wanted)}.csv --tomogram {alike[0]})")
        mask = np.array([str(v) in alike for v in values], dtype=bool)
    if not mask.any():
        raise InputError(f"{path} has no tomogram named {wanted!r}: it holds {_some(names)}; name the tomogram's file "
                         "so (folder and suffix do not count), or write its particles to a file of their own "
                         f"(deepetpicker convert {path.name} {_stem(wanted)}.csv --tomogram {names[0]})")
    return particles[mask]


def _star_name(name: str) -> str:
    """Return the name of a tomogram, or raise InputError when a STAR file would lose it or the particles with it."""
    if re.search(r"[\"'\x00-\x1f\x7f-\x9f\u2028\u2029]", name) or name[:1] in ("#", "_", " ") \
            or name.endswith(" ") or name.startswith(("data_", "loop_")):
        raise InputError(f"a STAR file cannot hold a tomogram named {name!r} (quotes, line ends, or a first character "
                         "that means something else there): give it another name with --tomogram")
    return name


def _stem(name: str) -> str:
    """Return a tomogram's name without folder and file suffix."""
    last = re.split(r"[\\/]", name)[-1]
    suffix = next((s for s in _FILE_SUFFIXES if last.lower().endswith(s)), "")
    return last[:len(last) - len(suffix)]


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


def _of_optics(blocks: Dict[str, Any], loop: _Loop, label: str) -> np.ndarray:
    """Return a number of each particle's optics group, (N, 1), 0 where the file does not say it.

    Raises
    ------
    FormatError
        If groups differ in it and a particle names none of them.
    """
    optics, particles = blocks.get("optics"), loop.table
    rows = [] if optics is None else optics.to_dict("records") if hasattr(optics, "to_dict") else [optics]
    sizes = {_number(row.get(_GROUP, k)): _number(row.get(label)) for k, row in enumerate(rows, start=1)}
    if len(set(sizes.values())) < 2:
        return np.full((len(particles), 1), next(iter(sizes.values()), 0.0))
    if _GROUP not in particles:
        raise FormatError(f"{loop.path}: its optics groups differ in {label} and the particles lack the column "
                          f"_{_GROUP}: write the file anew with RELION, or keep one optics group")
    groups = loop.columns((_GROUP,))
    strange = sorted(set(groups[:, 0]) - set(sizes))
    if strange:
        raise FormatError(f"{loop.path}: particles of the optics group {strange[0]:g}, which data_optics does not list "
                          f"(it lists {', '.join(f'{g:g}' for g in sizes)}): write the file anew with RELION")
    return np.vectorize(sizes.__getitem__, otypes=[float])(groups)


def _number(value: Any) -> float:
    """Return a finite number, 0 for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if np.isfinite(number) else 0.0


def _pixel_scale(unbinned_ang: np.ndarray, frame: Frame) -> np.ndarray:
    """Return voxels of this tomogram per unbinned pixel of each particle, (N, 1): 1 when either size is unknown."""
    if not frame.voxel_size_ang > 0:
        return np.ones_like(unbinned_ang)
    return np.where(unbinned_ang > 0, unbinned_ang / frame.voxel_size_ang, 1.0)


def _shift(loop: _Loop, pixel_ang: np.ndarray, frame: Frame) -> np.ndarray:
    """Return the origin shifts (N, 3), x y z in voxels of this tomogram; RELION subtracts them."""
    if all(c in loop.table for c in _ORIGIN_ANG):
        shift = loop.columns(_ORIGIN_ANG)
        voxel = np.full_like(pixel_ang, frame.voxel_size_ang) if frame.voxel_size_ang else pixel_ang
        moved = shift.any(axis=1)
        if not (voxel[moved] > 0).all():
            require(frame, ("voxel_size_ang",), loop.path, "applying the origin shifts (rlnOriginXAngst)")
        return shift / np.where(voxel > 0, voxel, 1.0)
    if all(c in loop.table for c in _ORIGIN_PIXEL):
        return loop.columns(_ORIGIN_PIXEL)
    return np.zeros((1, 3))
