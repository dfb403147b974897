"""Contact sheets: what lies at some positions of tomograms, three central slices each, read crop by crop."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume, open_volume, release_pages
from deepetpicker.report.pages.markup import grey_jpeg

EDGE_DIAMETERS = 1.8   # edge of a crop
PANEL_PX, GAP_PX = 96, 3
SLAB = 0.12            # thickness of a slice that is averaged, in diameters
SMOOTH = 0.045         # low-pass within the slice, in diameters
PERCENTILES = (1.0, 99.0)
GAP_GREY = 128
VIEWS = ((0, 2, 1), (1, 2, 0), (2, 0, 1))  # axis that is cut, axis to the right, axis upwards: xy, xz, zy


@dataclasses.dataclass(frozen=True)
class Spot:
    """A place to look at.

    Parameters
    ----------
    tomogram : str
        Name of its tomogram.
    position_zyx_vox : (3,) tuple of float
        Centre in voxels.
    diameter_vox : float
        Diameter of the particle in voxels.
    score : float
        NaN when it has none.
    """

    tomogram: str
    position_zyx_vox: Tuple[float, float, float]
    diameter_vox: float
    score: float = float("nan")


def spots_of(tomogram: str, table: CoordinateTable, diameter_vox: float) -> List[Spot]:
    """Return the particles of a table as spots, in its order."""
    return [Spot(tomogram, (z, y, x), diameter_vox, score)
            for (z, y, x), score in zip(table.positions_zyx_vox.tolist(), table.scores.tolist())]


@dataclasses.dataclass(frozen=True)
class Crop:
    """A spot as the page shows it: the picture (base64 of a JPEG, empty when it cannot be read), and two captions."""

    image: str
    title: str
    place: str


Opener = Callable[[str], Volume]


def crops_of(spots: Sequence[Spot], opener: Opener) -> List[Crop]:
    """Return the crops of some spots; all of one tomogram have the same contrast, which a gold bead does not decide.

    Parameters
    ----------
    spots : sequence of Spot
        In the order in which they are shown.
    opener : callable
        Returns the volume of a tomogram by name, or raises DeepETPickerError when it cannot be read.
    """
    panels: Dict[int, List[np.ndarray]] = {}
    by_tomogram: Dict[str, List[int]] = {}
    for index, spot in enumerate(spots):
        by_tomogram.setdefault(spot.tomogram, []).append(index)
    for name, rows in by_tomogram.items():
        try:
            volume = opener(name)
        except DeepETPickerError:
            continue  # the page says so once, for the whole tomogram
        for index in rows:
            panels[index] = cuts(volume.data_zyx, spots[index].position_zyx_vox, spots[index].diameter_vox)
            release_pages(volume.data_zyx)  # the system maps much more than is read
    limits = {name: _limits([panels[i] for i in rows if i in panels]) for name, rows in by_tomogram.items()}
    return [Crop(grey_jpeg(_joined(panels[i], limits[spot.tomogram])) if i in panels else "", *_words(spot))
            for i, spot in enumerate(spots)]


def cuts(volume_zyx: np.ndarray, position_zyx_vox: Sequence[float], diameter_vox: float) -> List[np.ndarray]:
    """Return the xy, xz and zy slice through a position, (P, P) float32 each, lowest row first; NaN outside.

    Parameters
    ----------
    volume_zyx : (Z, Y, X) array
        May be mapped into memory: only thin slabs of the crop are read.
    position_zyx_vox : (3,) sequence of float
        Centre, which is the middle of the pictures.
    diameter_vox : float
        Of the particle; the edge of the crop is 1.8 of it.
    """
    return [_cut(volume_zyx, np.asarray(position_zyx_vox, float), diameter_vox, view) for view in VIEWS]


def _cut(volume_zyx: np.ndarray, centre: np.ndarray, diameter_vox: float, view: Tuple[int, int, int]) -> np.ndarray:
    """Return one slice."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    axis, right, up = view
    half, thick = EDGE_DIAMETERS * diameter_vox / 2, SLAB * diameter_vox / 2
    reach = np.full(3, half + 2)
    reach[axis] = thick
    low, high = np.rint(centre - reach).astype(int), np.rint(centre + reach).astype(int) + 1
    inside = [slice(max(a, 0), max(min(b, n), 0)) for a, b, n in zip(low, high, volume_zyx.shape)]
    picture = np.full((PANEL_PX, PANEL_PX), np.nan, np.float32)
    slab = np.array(volume_zyx[tuple(inside)], np.float32)
    if not slab.size:
        return picture
    slab[~np.isfinite(slab)] = np.nan
    known = np.isfinite(slab)
    if not known.any():
        return picture
    flat = np.where(known, slab, 0).sum(axis=axis) / np.maximum(known.sum(axis=axis), 1)
    flat = gaussian_filter(flat, max(SMOOTH * diameter_vox, half / PANEL_PX))
    flat = flat if up < right else flat.T  # rows upwards, columns to the right
    offsets = ((np.arange(PANEL_PX) + 0.5) / PANEL_PX * 2 - 1) * half
    rows = centre[up] + offsets - inside[up].start
    columns = centre[right] + offsets - inside[right].start
    grid = np.meshgrid(rows, columns, indexing="ij")
    within = np.ones(picture.shape, bool)
    for values, n in zip(grid, flat.shape):
        within &= (values >= -0.5) & (values <= n - 0.5)
    picture[within] = map_coordinates(flat, [values[within] for values in grid], order=1, mode="nearest")
    return picture


def _limits(crops: Sequence[Sequence[np.ndarray]]) -> Tuple[float, float]:
    """Return the grey values of black and white for all crops of a tomogram: those of the middle one."""
    known = [values[np.isfinite(values)] for values in (np.stack(panels) for panels in crops)]
    ends = [np.percentile(values, PERCENTILES) for values in known if values.size]
    if not ends:
        return 0.0, 1.0
    low, high = np.median(ends, axis=0)
    return float(low), float(high) if high > low else float(low) + 1.0


def _joined(panels: Sequence[np.ndarray], limits: Tuple[float, float]) -> np.ndarray:
    """Return slices side by side as greys (H, W) uint8, top row first."""
    low, high = limits
    parts: List[np.ndarray] = []
    for panel in panels:
        greys = np.clip((panel[::-1] - low) / (high - low) * 255, 0, 255)
        parts += [np.full((PANEL_PX, GAP_PX), 255.0), np.where(np.isfinite(greys), greys, GAP_GREY)]
    return np.concatenate(parts[1:], axis=1).astype(np.uint8)


def _words(spot: Spot) -> Tuple[str, str]:
    """Return what stands below a crop: the score, and where it is."""
    z, y, x = spot.position_zyx_vox
    score = "" if spot.score != spot.score else f"{spot.score:.3f}"
    return score, f"{spot.tomogram}: x {x:.0f}, y {y:.0f}, z {z:.0f}"


def rings() -> List[Tuple[float, float, float]]:
    """Return centre x, y and radius of the circles of the particle's diameter, in units of a panel's edge."""
    step = (PANEL_PX + GAP_PX) / PANEL_PX
    return [(0.5 + step * i, 0.5, 0.5 / EDGE_DIAMETERS) for i in range(3)]


def width() -> float:
    """Return the width of a crop's picture in units of a panel's edge."""
    return 3 + 2 * GAP_PX / PANEL_PX


def spread(count: int, most: int) -> List[int]:
    """Return at most so many numbers below count, evenly spread, the first and the last included."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most)).round()}) if count else []


@dataclasses.dataclass(frozen=True)
class Group:
    """Some crops under one heading; without any the text says why."""

    title: str
    text: str
    crops: Tuple[Crop, ...] = ()


Part = Tuple[str, str, Sequence[Spot], str]  # heading, text below it, spots, and the text where there are none


def groups_of(parts: Sequence[Part], opener: Opener) -> List[Group]:
    """Return the groups of a contact sheet.

    Parameters
    ----------
    parts : sequence of tuple
        Heading, text below it, spots, and the text that stands there without spots.
    opener : callable
        As in :func:`crops_of`.
    """
    crops = crops_of([spot for _, _, spots, _ in parts for spot in spots], opener)
    groups, first = [], 0
    for title, text, spots, nothing in parts:
        groups.append(Group(title, text if spots else nothing, tuple(crops[first:first + len(spots)])))
        first += len(spots)
    return groups


class Tomograms:
    """Opens tomograms once, and remembers which could not be opened, and why.

    Parameters
    ----------
    places : mapping of str to tuple
        Path (empty when it is not known) and voxel size in angstrom of each tomogram by name.
    """

    def __init__(self, places: Mapping[str, Tuple[str, float]]) -> None:
        self.places = dict(places)
        self.missing: Dict[str, str] = {}
        self._open: Dict[str, Optional[Volume]] = {}

    def __call__(self, name: str) -> Volume:
        """Return a tomogram, mapped into memory.

        Raises
        ------
        InputError
            If it is not there any more.
        FormatError
            If it cannot be read.
        """
        path, voxel_size_ang = self.places.get(name, ("", 0.0))
        if name in self.missing:
            raise InputError(self.missing[name])
        if self._open.get(name) is None:
            try:
                if not path:
                    raise InputError("it is not where it was")
                self._open[name] = open_volume(path, voxel_size_ang, name, quiet=True)
            except DeepETPickerError as error:
                self.missing[name] = str(error)
                raise
        found: Any = self._open[name]
        return found
