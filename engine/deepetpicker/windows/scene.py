"""What the windows show: tomograms and picks in layers, without any window."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.report.slices import CLASS_LOOKS, DEFAULT_DIAMETER_VOX, SMALLEST_SHARE

AXES = {0: (2, 1), 1: (2, 0), 2: (0, 1)}  # axis cut (z, y, x) -> those to the right and upwards
AXIS_NAMES = "zyx"
SHOWN_BYTES = 1 << 30  # of several resolutions the finest up to this size is shown
SAME_BOX = 0.02  # two versions of a tomogram agree in their edges to this share, or to two voxels


@dataclasses.dataclass(frozen=True)
class TomogramFile:
    """A tomogram to show.

    Parameters
    ----------
    name : str
        Unique name.
    path : str
        The file that the coordinates refer to.
    voxel_size_ang : float
        Voxel size in angstrom; 0 reads the header.
    shown : str
        Another version of the same tomogram that is shown in its place: denoised, or binned otherwise. Empty: none.
    """

    name: str
    path: str
    voxel_size_ang: float = 0.0
    shown: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Particles that are drawn alike.

    Parameters
    ----------
    name : str
        What they are.
    colour : str
        Colour of their circles.
    diameter_ang : float
        Diameter of the circles, in angstrom; 0 draws them 20 voxels wide.
    positions_zyx_vox : mapping
        Positions (N, 3) by tomogram, in voxels from the centre of the first one.
    scores : mapping
        Scores (N,) by tomogram.
    dashes : str
        How the circles are drawn, as matplotlib names it.
    """

    name: str
    colour: str
    diameter_ang: float
    positions_zyx_vox: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    dashes: str = "-"

    def circles(self, tomogram: str, cut: Tuple[int, float], radius_vox: float, low: float = -np.inf) -> np.ndarray:
        """Return where a plane cuts the particles: (M, 3) right, up, radius, in voxels.

        Parameters
        ----------
        tomogram : str
            Name of the tomogram.
        cut : tuple
            Axis (0 z, 1 y, 2 x) and position of the plane in voxels.
        radius_vox : float
            Radius of a particle; the circles shrink with the distance of its centre from the plane.
        low : float
            Lowest score that is shown.
        """
        axis, plane = cut
        kept = self.above(tomogram, low)
        squares = radius_vox ** 2 - (kept[:, axis] - plane) ** 2
        met = squares > 0
        radii = np.maximum(np.sqrt(squares[met]), SMALLEST_SHARE * radius_vox)
        right, up = AXES[axis]
        return np.column_stack([kept[met][:, right], kept[met][:, up], radii])

    def above(self, tomogram: str, low: float = -np.inf) -> np.ndarray:
        """Return the positions (M, 3) of a tomogram whose score is at least low."""
        positions = self.positions_zyx_vox.get(tomogram, np.zeros((0, 3)))
        return positions[self.scores[tomogram] >= low] if len(positions) else positions

    def count(self, low: float = -np.inf) -> int:
        """Return how many particles of all tomograms have at least a score."""
        return sum(int((scores >= low).sum()) for scores in self.scores.values())

    def all_scores(self) -> np.ndarray:
        """Return the scores of all tomograms, (N,)."""
        return np.concatenate([np.zeros(0), *self.scores.values()])


def make_layer(number: int, name: str, diameter_ang: float,
               pieces: Mapping[str, Sequence[Tuple[np.ndarray, np.ndarray]]]) -> Layer:
    """Return a layer in the colour of its number.

    Parameters
    ----------
    number : int
        Place in the legend.
    name : str
        What the particles are.
    diameter_ang : float
        Diameter in angstrom.
    pieces : mapping
        Positions (N, 3) zyx in voxels and scores (N,), in pieces by tomogram; unknown scores count as 0.
    """
    return Layer(name, CLASS_LOOKS[number % len(CLASS_LOOKS)][0], diameter_ang,
                 {ts: np.concatenate([p for p, _ in found]) for ts, found in pieces.items()},
                 {ts: np.nan_to_num(np.concatenate([s for _, s in found])) for ts, found in pieces.items()})


class Scene:
    """Tomograms with layers of particles; one tomogram is open at a time.

    Parameters
    ----------
    tomograms : sequence of TomogramFile
        In the order of the list.
    layers : sequence of Layer
        In the order of the legend.
    """

    def __init__(self, tomograms: Sequence[TomogramFile], layers: Sequence[Layer]) -> None:
        self.files: Dict[str, TomogramFile] = {one.name: one for one in tomograms}
        self.layers = list(layers)
        self._headers: Dict[str, Volume] = {}
        self._open: Tuple[str, Optional[np.ndarray]] = ("", None)

    @property
    def names(self) -> List[str]:
        """Names of the tomograms."""
        return list(self.files)

    def header(self, name: str) -> Volume:
        """Return the tomogram that the coordinates refer to, mapped into memory but not read.

        Raises
        ------
        DeepETPickerError
            If the file is missing, damaged, or of unknown voxel size.
        """
        if name not in self._headers:
            one = self.files[name]
            self._headers[name] = open_volume(one.path, one.voxel_size_ang, name, quiet=True)
        return self._headers[name]

    def shape_zyx(self, name: str) -> Tuple[int, int, int]:
        """Return the shape of a tomogram, in the voxels that coordinates count."""
        return self.header(name).shape_zyx

    def voxel_size_ang(self, name: str) -> float:
        """Return the voxel size that coordinates count in, in angstrom."""
        return self.header(name).voxel_size_ang

    def volume(self, name: str) -> np.ndarray:
        """Return what is shown of a tomogram, (Z, Y, X), mapped into memory.

        Raises
        ------
        DeepETPickerError
            If a file is missing or damaged, or another version of the tomogram does not cover the same box.
        """
        if self._open[0] != name or self._open[1] is None:
            self._open = (name, self._shown(name))
        volume = self._open[1]
        assert volume is not None
        return volume

    def _shown(self, name: str) -> np.ndarray:
        """Return the voxels to show of a tomogram."""
        own, one = self.header(name), self.files[name]
        if not one.shown:
            versions = [own.data_zyx, *(level.data_zyx for level in own.coarser)]
            return next((one for one in versions if one.nbytes <= SHOWN_BYTES), own.overview_zyx)
        other = open_volume(one.shown, 1.0, name, quiet=True)
        factors = np.array(other.shape_zyx) / np.array(own.shape_zyx)
        apart = np.abs(np.array(own.shape_zyx) * factors.mean() - other.shape_zyx)
        if (apart > np.maximum(2, SAME_BOX * np.array(other.shape_zyx))).any():
            raise InputError(f"{one.shown} is to be shown for {name} but has another form: expected "
                             f"{sizes(own.shape_zyx)} voxels, or all of them scaled alike, got "
                             f"{sizes(other.shape_zyx)}: choose another version of the same tomogram")
        return other.data_zyx

    def factor_zyx(self, name: str) -> np.ndarray:
        """Return how many shown voxels one voxel of the coordinates has along z, y, x, (3,)."""
        return np.array(self.volume(name).shape) / np.array(self.shape_zyx(name))

    def radius_vox(self, layer: Layer, name: str) -> float:
        """Return the radius of a layer's particles in the voxels of a tomogram."""
        return (layer.diameter_ang / self.voxel_size_ang(name) or DEFAULT_DIAMETER_VOX) / 2

    def busiest(self, name: str) -> Tuple[int, int, int]:
        """Return the voxel z, y, x to show first: in the middle of the particles, or of the tomogram."""
        shape = self.shape_zyx(name)
        every = np.concatenate([np.zeros((0, 3)), *(layer.above(name) for layer in self.layers)])
        if not len(every):
            return shape[0] // 2, shape[1] // 2, shape[2] // 2
        nearest = every[np.argmin(np.abs(every - np.median(every, axis=0)).sum(axis=1))]
        z, y, x = (int(np.clip(round(p), 0, n - 1)) for p, n in zip(nearest, shape))
        return z, y, x


def diameter_vox(diameter_ang: float, voxel_size_ang: float) -> float:
    """Return a diameter in voxels; 20 where it is not known."""
    return diameter_ang / voxel_size_ang if diameter_ang > 0 else DEFAULT_DIAMETER_VOX


def sizes(shape_zyx: Sequence[int]) -> str:
    """Return a shape as users write it: x by y by z."""
    return " x ".join(str(int(n)) for n in reversed(list(shape_zyx)))


def scale_bar(width_vox: float, voxel_ang: float) -> Tuple[float, str]:
    """Return the length in voxels and the label of a bar of a round length, about a fifth of a width."""
    wanted = width_vox * voxel_ang / 10 / 5
    power = 10.0 ** np.floor(np.log10(wanted))
    length_nm = max(f * power for f in (1, 2, 5) if f * power <= wanted * 1.0001)
    return float(length_nm * 10 / voxel_ang), f"{length_nm:g} nm"
