"""What the windows show: tomograms and picks in layers, without any window."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import open_volume
from deepetpicker.report.slices import CLASS_LOOKS, SMALLEST_SHARE
from deepetpicker_plugin import convert

AXES = {0: (2, 1), 1: (2, 0), 2: (0, 1)}  # axis cut (z, y, x) -> those to the right and upwards
AXIS_NAMES = "zyx"
MOST_PIXELS = 1200


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Particles that are drawn alike.

    Attributes
    ----------
    name : str
        What they are.
    colour : str
        Colour of their circles.
    diameter_ang : float
        Diameter of the circles, in angstrom.
    positions_zyx_vox : dict
        Positions (N, 3) by tsId, in voxels from the centre of the first one.
    scores : dict
        Scores (N,) by tsId.
    """

    name: str
    colour: str
    diameter_ang: float
    positions_zyx_vox: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]

    def circles(self, tsId: str, cut: Tuple[int, float], radius_vox: float, low: float = -np.inf) -> np.ndarray:
        """Return where a plane cuts the particles: (M, 3) right, up, radius, in voxels.

        Parameters
        ----------
        tsId : str
            Tomogram.
        cut : tuple
            Axis (0 z, 1 y, 2 x) and position of the plane in voxels.
        radius_vox : float
            Radius of a particle; the circles shrink with the distance of its centre from the plane.
        low : float
            Lowest score that is shown.
        """
        axis, plane = cut
        kept = self.above(tsId, low)
        squares = radius_vox ** 2 - (kept[:, axis] - plane) ** 2
        met = squares > 0
        radii = np.maximum(np.sqrt(squares[met]), SMALLEST_SHARE * radius_vox)
        right, up = AXES[axis]
        return np.column_stack([kept[met][:, right], kept[met][:, up], radii])

    def above(self, tsId: str, low: float) -> np.ndarray:
        """Return the positions (M, 3) of a tomogram whose score is at least low."""
        positions = self.positions_zyx_vox.get(tsId, np.zeros((0, 3)))
        return positions[self.scores[tsId] >= low] if len(positions) else positions

    def count(self, low: float = -np.inf) -> int:
        """Return how many particles of all tomograms have at least a score."""
        return sum(int((scores >= low).sum()) for scores in self.scores.values())

    def allScores(self) -> np.ndarray:
        """Return the scores of all tomograms, (N,)."""
        return np.concatenate([np.zeros(0), *self.scores.values()])


class Scene:
    """Tomograms with layers of particles.

    Parameters
    ----------
    places : mapping
        The tomograms by tsId.
    layers : sequence of Layer
        In the order of the legend.
    """

    def __init__(self, places: Mapping[str, convert.Place], layers: Sequence[Layer]) -> None:
        self.places, self.layers = dict(places), list(layers)
        self._open: Tuple[str, Optional[np.ndarray]] = ("", None)

    @property
    def tsIds(self) -> List[str]:
        """Names of the tomograms."""
        return list(self.places)

    def volume(self, tsId: str) -> np.ndarray:
        """Return a tomogram, (Z, Y, X), mapped into memory.

        Raises
        ------
        DeepETPickerError
            If the file is missing or no MRC file.
        """
        if self._open[0] != tsId:
            place = self.places[tsId]
            self._open = (tsId, open_volume(place.fileName, place.samplingRate, tsId).data_zyx)
        return self._open[1]  # type: ignore[return-value]

    def image(self, tsId: str, axis: int, plane: int, average: int = 0) -> np.ndarray:
        """Return a slice as (up, right) float32, averaged with its neighbours on each side, thinned when very large."""
        volume = self.volume(tsId)
        window: List[Any] = [slice(None, None, max(1, -(-n // MOST_PIXELS))) for n in volume.shape]
        window[axis] = slice(max(plane - average, 0), plane + average + 1)
        image = np.asarray(volume[tuple(window)], dtype=np.float32).mean(axis=axis)
        return image.T if axis == 2 else image

    def radius_vox(self, layer: Layer, tsId: str) -> float:
        """Return the radius of a layer's particles in the voxels of a tomogram."""
        return layer.diameter_ang / self.places[tsId].samplingRate / 2

    def busiest(self, tsId: str) -> Tuple[int, int, int]:
        """Return the voxel z, y, x to show first: in the middle of the particles, or of the tomogram."""
        shape = self.volume(tsId).shape
        every = np.concatenate([np.zeros((0, 3)), *(layer.above(tsId, -np.inf) for layer in self.layers)])
        if not len(every):
            return shape[0] // 2, shape[1] // 2, shape[2] // 2
        nearest = every[np.argmin(np.abs(every - np.median(every, axis=0)).sum(axis=1))]
        z, y, x = (int(np.clip(round(p), 0, n - 1)) for p, n in zip(nearest, shape))
        return z, y, x


def greyLimits(image: np.ndarray, clipped_percent: float) -> Tuple[float, float]:
    """Return the grey values of black and white, when so many percent of the pixels are clipped at either end."""
    known = image[np.isfinite(image)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, (clipped_percent, 100 - clipped_percent))
    return float(low), float(high) if high > low else float(low) + 1.0


def scaleBar(width_vox: float, voxel_ang: float) -> Tuple[float, str]:
    """Return the length in voxels and the label of a bar of a round length, about a fifth of a width."""
    wanted = width_vox * voxel_ang / 10 / 5
    power = 10.0 ** np.floor(np.log10(wanted))
    length_nm = max(f * power for f in (1, 2, 5) if f * power <= wanted * 1.0001)
    return float(length_nm * 10 / voxel_ang), f"{length_nm:g} nm"


def sceneOfSets(sets: Mapping[str, Any], classes: Optional[convert.Classes] = None, byClass: bool = True) -> Scene:
    """Return the scene of one or several sets of coordinates.

    Parameters
    ----------
    sets : mapping of str to SetOfCoordinates3D
        By name; the tomograms are those of the first, the others are moved into their voxels.
    classes : mapping, optional
        Name and diameter in angstrom of the classes, where they are known; else the box size is the diameter.
    byClass : bool
        True: a layer per group id. False: a layer per set.
    """
    found = [(name, coordinates, *convert.readCoordinates(coordinates)) for name, coordinates in sets.items()]
    places = found[0][3]
    parts: Dict[Any, Tuple[str, float, Dict[str, List[Any]]]] = {}
    for name, coordinates, rows, others in found:
        box_ang = (coordinates.getBoxSize() or 0) * coordinates.getSamplingRate() or 20 * coordinates.getSamplingRate()
        for tsId, row in rows.items():
            if tsId not in places:
                continue
            zyx = convert.transfer(row.positions_xyz_vox, others[tsId], places[tsId])[:, ::-1]
            for group in sorted(set(row.groups)):
                known = (classes or {}).get(group, (f"class {group}" if group else "particles", box_ang))
                key, label = (group, known) if byClass else (name, (name, box_ang))
                mine = np.array(row.groups) == group
                part = parts.setdefault(key, (label[0], label[1], {}))
                part[2].setdefault(tsId, []).append((zyx[mine], np.array(row.scores)[mine]))
    keys = sorted(parts) if byClass else list(parts)
    return Scene(places, [_layer(parts[key], number) for number, key in enumerate(keys)])


def sceneOfTables(tables: Mapping[str, CoordinateTable], places: Mapping[str, convert.Place],
                  classes: convert.Classes) -> Scene:
    """Return the scene of tables in the voxels of their tomograms, a layer per class."""
    layers = []
    for number, (classId, (name, diameter)) in enumerate(sorted(classes.items())):
        mine = {ts: t.select(t.class_ids == classId) for ts, t in tables.items() if ts in places}
        parts = {ts: [(t.positions_zyx_vox, t.scores)] for ts, t in mine.items()}
        layers.append(_layer((name, diameter, parts), number))
    return Scene(places, layers)


def _layer(part: Tuple[str, float, Mapping[str, List[Any]]], number: int) -> Layer:
    """Return the layer of a name, a diameter and pieces of positions and scores by tsId."""
    name, diameter, pieces = part
    return Layer(name, CLASS_LOOKS[number % len(CLASS_LOOKS)][0], diameter,
                 {ts: np.concatenate([p for p, _ in found]) for ts, found in pieces.items()},
                 {ts: np.nan_to_num(np.concatenate([s for _, s in found])) for ts, found in pieces.items()})
