"""Whether coordinates mark anything in their tomogram, and if not, whether they would flipped, swapped or scaled.

What is the same about all particles of one size, whatever their shape, orientation and contrast, is that density
depends on the distance from the centre. So the tomogram is reduced to a few maps: the mean grey value in concentric
shells about each voxel. At random places these values scatter about the mean of the map; at particles they are off it,
all in the same direction. How far off the mean of N places is, in units of how it would scatter for N random places, is
the evidence (Hotelling's T squared): about the number of shells for random places, and proportional to N at particles.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.errors import InputError
from deepetpicker.geometry import Shape, WorkingGrid
from deepetpicker.io.volumes import Volume
from deepetpicker.preparation.normalise import normalise, robust_intensity
from deepetpicker.preparation.resample import Resampler, open_working_volume

FEWEST = 5  # positions: fewer say nothing
MOST = 60  # positions that are looked at, spread over all of them
WORKING_DIAMETER, FINE_DIAMETER = 12.0, 24.0  # voxels across a particle, where it is looked for and where measured
SHELL_EDGES = (0.0, 0.3, 0.55, 0.8, 1.1, 1.5)  # in particle radii
SCALES = (0.5, 2.0, 0.25, 4.0)
RANDOM_PLACES, RANDOM_SETS, RANDOM_MOVES = 5000, 1000, 50
CHANCE = 1.3  # times the most that random sets of places reach
BETTER = 3.0  # times the evidence of the coordinates as they are, to say that others fit
INSIDE = 0.9  # share of positions that must stay in the volume
REACH, STEP = 2.0, 0.5  # a common shift is looked for so far, in such steps, in input voxels
BOOTSTRAPS = 100
SURE = 25.0  # squared shift over squared error of one axis: bootstrapped errors are on the low side
NOTABLE = 0.4  # a smaller shift is not worth a word, in voxels


@dataclasses.dataclass(frozen=True)
class Transform:
    """What may have happened to coordinates: axes permuted, then flipped, then scaled, and the origin moved.

    Attributes
    ----------
    order : (3,) int
        Axis that is read as z, y, x.
    flips : (3,) bool
        Which of z, y, x run backwards.
    scale : float
        Factor on positions, about the outer corner of the first voxel.
    centred : bool
        Positions count from the centre of the volume.
    """

    order: Tuple[int, int, int] = (0, 1, 2)
    flips: Tuple[bool, bool, bool] = (False, False, False)
    scale: float = 1.0
    centred: bool = False

    def apply(self, positions_zyx_vox: np.ndarray, shape_zyx: Shape) -> np.ndarray:
        """Return positions (N, 3) as they would be in a volume of shape_zyx, in voxels."""
        out = np.asarray(positions_zyx_vox, float)[:, self.order]
        out = (out + 0.5) * self.scale - 0.5
        size = np.array(shape_zyx, float)
        if self.centred:
            out = out + size // 2
        return np.where(self.flips, size - 1 - out, out)

    @property
    def faults(self) -> int:
        """How many things would have gone wrong at once."""
        return int(self.order != (0, 1, 2)) + sum(self.flips) + int(self.scale != 1) + int(self.centred)

    def __str__(self) -> str:
        said = [f"{name} flipped" for name, flip in zip("zyx", self.flips) if flip]
        if self.order != (0, 1, 2):
            moved = [(a, "zyx"[b]) for a, b in zip("zyx", self.order) if a != "zyx"[b]]
            said.insert(0, f"{moved[0][0]} and {moved[0][1]} swapped" if len(moved) == 2 else
                        f"axes read as {''.join('zyx'[k] for k in self.order)} instead of zyx")
        if self.scale != 1:
            said.append(f"multiplied by {self.scale:g}")
        if self.centred:
            said.append("counted from the centre of the volume")
        return ", ".join(said) or "as they are"


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a check of one tomogram's coordinates found.

    Attributes
    ----------
    n : int
        Positions that were looked at.
    chance : float
        Evidence that random places do not reach.
    evidence : float
        Of the coordinates as they are.
    best : Transform
        What fits best; the identity when nothing fits clearly better.
    best_evidence : float
        Its evidence.
    shift_zyx_vox : (3,) float or None
        By how much all positions are off their particles, in input voxels; None when that cannot be told.
    shift_error_vox : float
        Its standard error, in input voxels.
    """

    n: int
    chance: float
    evidence: float
    best: Transform
    best_evidence: float
    shift_zyx_vox: Optional[Tuple[float, float, float]] = None
    shift_error_vox: float = float("nan")

    @property
    def fits(self) -> bool:
        """Whether the coordinates mark something as they are, and nothing else fits clearly better."""
        return self.evidence >= self.chance and self.best.faults == 0

    @property
    def is_shifted(self) -> bool:
        """Whether all positions are off their particles in the same way, beyond doubt and by a notable amount."""
        return self.shift_zyx_vox is not None and is_sure(self.shift_zyx_vox, self.shift_error_vox)

    def __str__(self) -> str:
        if not self.fits and self.best.faults:
            times = self.best_evidence / max(self.evidence, 1.0)
            text = f"the coordinates would fit {times:.0f} times better {self.best}"
        elif not self.fits:
            text = ("the coordinates mark nothing that differs from random places, nor do they flipped, swapped or "
                    "scaled: are they of this tomogram, and is the diameter right?")
        else:
            text = f"the coordinates fit ({self.evidence / self.chance:.1f} times what random places reach)"
        if self.is_shifted and self.shift_zyx_vox is not None:
            text += "; " + describe_shift(self.shift_zyx_vox, self.shift_error_vox)
        return text


def is_sure(shift_zyx_vox: Sequence[float], error_vox: float) -> bool:
    """Return whether a shift (3,) with a standard error, in voxels, is beyond doubt and worth a word."""
    length = float(np.linalg.norm(shift_zyx_vox))
    return length >= NOTABLE and length ** 2 >= SURE * error_vox ** 2


def describe_shift(shift_zyx_vox: Sequence[float], error_vox: float) -> str:
    """Return in words what to add to all positions, from a shift (3,) and its standard error in voxels."""
    z, y, x = shift_zyx_vox
    return (f"all of them are off: adding x {x:+.2f}, y {y:+.2f}, z {z:+.2f} voxels (+- {error_vox:.2f}) would centre "
            "them")


def shift_of_all(fits: Sequence[Fit]) -> str:
    """Return what shift the fits of several tomograms have in common, in words; empty when there is none beyond doubt.

    One tomogram with a few particles may leave it open; several together weigh as their errors allow.
    """
    known = [fit for fit in fits if fit.fits and fit.shift_zyx_vox is not None and fit.shift_error_vox > 0]
    if len(known) < 2:
        return ""
    weights = np.array([fit.shift_error_vox ** -2 for fit in known])
    shift = weights @ np.array([fit.shift_zyx_vox for fit in known]) / weights.sum()
    error = float(weights.sum() ** -0.5)
    return describe_shift(shift.tolist(), error) if is_sure(shift, error) else ""


def transforms() -> List[Transform]:
    """Return what coordinates are tried as, the simplest first: order, flips, and a scale or another origin."""
    tried = [Transform((a, b, c), (flip_z, flip_y, flip_x), scale, centred)
             for a, b, c in itertools.permutations(range(3))
             for flip_z, flip_y, flip_x in itertools.product((False, True), repeat=3)
             for scale, centred in ((1.0, False), (1.0, True), *((scale, False) for scale in SCALES))]
    return sorted(tried, key=lambda t: t.faults)


class Shells:
    """Mean grey values in shells about places of a tomogram, on a coarse grid.

    Parameters
    ----------
    volume : Volume
        The tomogram.
    diameter_ang : float
        Particle diameter in angstrom.

    Raises
    ------
    InputError
        For a tomogram without contrast.
    """

    def __init__(self, volume: Volume, diameter_ang: float) -> None:
        voxel = max(diameter_ang / WORKING_DIAMETER, volume.voxel_size_ang)
        self.grid = WorkingGrid(volume.shape_zyx, volume.voxel_size_ang, voxel)
        kernels, self._half = shell_kernels(diameter_ang / voxel / 2)
        grey = open_working_volume(volume, self.grid).planes(0, self.grid.shape_zyx[0])
        padded = np.pad(grey, self._half, mode="symmetric")
        steps = np.stack(np.nonzero(kernels.any(0)), 1)
        self._kernels = kernels[:, kernels.any(0)].T  # (M, K)
        self._steps = np.ravel_multi_index(tuple(steps.T), padded.shape)
        self._grey, self._shape = padded.ravel(), padded.shape
        places = np.random.default_rng(0).integers(0, self.grid.shape_zyx, (RANDOM_PLACES, 3))
        self._anywhere = self._means(places)
        self._whiten = np.linalg.pinv(np.cov(self._anywhere.T))
        self._centre = self._anywhere.mean(0)

    def _means(self, voxels_zyx: np.ndarray, chunk: int = 500) -> np.ndarray:
        """Return the shells' means (N, K) about working voxels (N, 3) int."""
        first = np.ravel_multi_index(tuple(voxels_zyx.T), self._shape)
        parts = [self._grey[first[lo:lo + chunk, None] + self._steps] @ self._kernels
                 for lo in range(0, len(first), chunk)]
        return np.concatenate([np.empty((0, self._kernels.shape[1])), *parts])

    def _at(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return the shells' means (N, K) at input positions (N, 3) inside the volume."""
        voxels = np.rint(self.grid.to_working(positions_zyx_vox)).astype(int)
        return self._means(np.clip(voxels, 0, np.array(self.grid.shape_zyx) - 1))

    def evidence(self, positions_zyx_vox: np.ndarray) -> float:
        """Return Hotelling's T squared of input positions (N, 3) inside the volume; 0 when there are too few."""
        return self._evidence(self._at(positions_zyx_vox)) if len(positions_zyx_vox) >= FEWEST else 0.0

    def direction(self, positions_zyx_vox: np.ndarray) -> np.ndarray:
        """Return the weights of the shells (K,) that tell input positions (N, 3) best from random places."""
        return self._whiten @ (self._at(positions_zyx_vox).mean(0) - self._centre)

    def _evidence(self, means: np.ndarray) -> float:
        """Return the evidence of shells' means (N, K)."""
        off = means.mean(0) - self._centre
        return float(len(means) * off @ self._whiten @ off)

    def crowding(self, positions_zyx_vox: np.ndarray) -> float:
        """Return how many times more evidence crowded positions (N, 3) get by chance than scattered ones, >= 1.

        They are moved together to random places, and leave the volume on one side to enter it on the other.
        """
        size = np.array(self.grid.input_shape_zyx, float)
        moves = np.random.default_rng(2).uniform(0, size, (RANDOM_MOVES, 3))
        moved = np.mean([self.evidence((positions_zyx_vox + move + 0.5) % size - 0.5) for move in moves])
        return max(1.0, float(moved) / self._kernels.shape[1])

    def chance(self, n: int) -> float:
        """Return the evidence that sets of n random places do not reach."""
        chosen = np.random.default_rng(1).integers(0, RANDOM_PLACES, (RANDOM_SETS, n))
        return CHANCE * max(self._evidence(self._anywhere[rows]) for rows in chosen)


def shell_kernels(radius_vox: float) -> Tuple[np.ndarray, int]:
    """Return the shells about a centre, (K, S, S, S) float32 of sum 1 each, and their half edge (S - 1) / 2."""
    radius = max(radius_vox, 1.0)
    half = int(np.ceil(SHELL_EDGES[-1] * radius))
    axis = np.arange(-half, half + 1) / radius
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2)
    shells = [(distance >= low) & (distance < high) for low, high in zip(SHELL_EDGES, SHELL_EDGES[1:])]
    return np.stack([s / s.sum() for s in shells if s.any()]).astype(np.float32), half


def check_geometry(volume: Volume, positions_zyx_vox: np.ndarray, diameter_ang: float, thorough: bool = True) -> Fit:
    """Return whether positions mark particles in a tomogram, and what would make them.

    Parameters
    ----------
    volume : Volume
        The tomogram.
    positions_zyx_vox : (N, 3) float
        Positions in its voxels, N >= 5; they may lie outside. Of many, 60 are looked at.
    diameter_ang : float
        Particle diameter in angstrom.
    thorough : bool
        False looks no further when the coordinates fit as they are.

    Raises
    ------
    InputError
        For fewer positions, or a tomogram without contrast.
    """
    positions = np.asarray(positions_zyx_vox, float)
    if len(positions) < FEWEST:
        raise InputError(f"expected at least {FEWEST} positions to check, got {len(positions)}: label more")
    positions = positions[np.linspace(0, len(positions) - 1, min(MOST, len(positions))).astype(int)]
    shells, shape = Shells(volume, diameter_ang), volume.shape_zyx
    chance = shells.chance(len(positions))
    found = _try(shells, positions, shape, transforms() if thorough else [Transform()])
    if not thorough and found[0][0] < chance:
        found = _try(shells, positions, shape, transforms())
    evidence, best = _simplest(found, chance)
    fit = Fit(len(positions), chance, found[0][0], best, evidence)
    if evidence < chance:
        return fit
    places = best.apply(positions, shape)
    shift, error = common_shift(volume, places[is_inside(places, shape)], diameter_ang, shells)
    return dataclasses.replace(fit, shift_zyx_vox=shift, shift_error_vox=error)


def _try(shells: Shells, positions_zyx_vox: np.ndarray, shape_zyx: Shape,
         tried: Sequence[Transform]) -> List[Tuple[float, Transform]]:
    """Return the evidence of positions (N, 3) under each transform; the first, the identity, always counts."""
    scales = {one.scale for one in tried}
    crowding = {s: shells.crowding(Transform(scale=s).apply(positions_zyx_vox, shape_zyx)) for s in scales}
    found: List[Tuple[float, Transform]] = []
    for one in tried:
        places = one.apply(positions_zyx_vox, shape_zyx)
        inside = is_inside(places, shape_zyx)
        share = float(inside.mean())
        counts = share >= INSIDE or not found
        found.append((shells.evidence(places[inside]) * share / crowding[one.scale] if counts else 0.0, one))
    return found


def _simplest(found: Sequence[Tuple[float, Transform]], chance: float) -> Tuple[float, Transform]:
    """Return the identity unless another fits clearly better; of those nearly as good as the best the simplest."""
    most = max(value for value, _ in found)
    if most < chance or most < BETTER * found[0][0]:
        return found[0]
    return next((value, tried) for value, tried in found if value >= 0.7 * most)


def is_inside(positions_zyx_vox: np.ndarray, shape_zyx: Shape) -> np.ndarray:
    """Return which positions (N,) lie inside a volume."""
    return ((positions_zyx_vox >= -0.5) & (positions_zyx_vox <= np.array(shape_zyx) - 0.5)).all(1)


def common_shift(volume: Volume, positions_zyx_vox: np.ndarray, diameter_ang: float,
                 shells: Shells) -> Tuple[Tuple[float, float, float], float]:
    """Return by how much all positions are off their particles, and its standard error, in input voxels.

    Parameters
    ----------
    volume : Volume
        The tomogram.
    positions_zyx_vox : (N, 3) float
        Positions near particles, in input voxels.
    diameter_ang : float
        Particle diameter in angstrom.
    shells : Shells
        Of the same tomogram and diameter.

    Notes
    -----
    The shells, weighted by what tells the particles from random places, make one radial template. Its product with the
    tomogram about all positions, moved together, is highest where these should be; the standard error is that of the
    same over bootstrapped positions.
    """
    axis = np.arange(-REACH, REACH + STEP / 2, STEP)
    moves = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    template = _Template(volume, diameter_ang, shells.direction(positions_zyx_vox))
    rises = np.stack([template.about(at, moves) for at in positions_zyx_vox])  # (N, M)
    chosen = np.random.default_rng(0).integers(0, len(rises), (BOOTSTRAPS, len(rises)))
    tops = np.stack([_top(moves, rises[rows].mean(0)) for rows in chosen])
    z, y, x = _top(moves, rises.mean(0))
    return (float(z), float(y), float(x)), float(np.sqrt(tops.var(0).mean()))


class _Template:
    """A radial template's product with single boxes of a tomogram, on a finer grid than that of the shells."""

    def __init__(self, volume: Volume, diameter_ang: float, weights: np.ndarray) -> None:
        self._volume, self._intensity = volume, robust_intensity(volume.overview_zyx, volume.name)
        voxel = max(volume.voxel_size_ang, diameter_ang / FINE_DIAMETER)
        kernels, reach = shell_kernels(diameter_ang / voxel / 2)
        self._half = int(np.ceil((reach + 3) * voxel / volume.voxel_size_ang + REACH))
        edge = 2 * self._half + 1
        self._resampler = Resampler(WorkingGrid((edge, edge, edge), volume.voxel_size_ang, voxel))
        template = np.zeros(self._resampler.grid.shape_zyx)
        template[:2 * reach + 1, :2 * reach + 1, :2 * reach + 1] = np.tensordot(weights, kernels, 1)
        self._spectrum = np.fft.rfftn(np.roll(template, (-reach,) * 3, (0, 1, 2)))

    def about(self, centre_zyx: np.ndarray, moves_zyx: np.ndarray) -> np.ndarray:
        """Return the products (M,) about a position (3,) moved by moves (M, 3), in input voxels."""
        from scipy import ndimage

        middle, data = np.rint(centre_zyx).astype(int), self._volume.data_zyx
        index = [np.abs(np.arange(m - self._half, m + self._half + 1)) for m in middle]
        index = [np.where(i < n, i, 2 * n - 2 - i).clip(0, n - 1) for i, n in zip(index, data.shape)]
        box = normalise(data[np.ix_(*index)], self._intensity)
        grid = self._resampler.grid
        box = self._resampler.slab(box, 0, grid.shape_zyx[0])
        product = np.fft.irfftn(np.fft.rfftn(box) * self._spectrum, grid.shape_zyx, axes=(0, 1, 2))
        where = grid.to_working(centre_zyx - middle + self._half + moves_zyx).T
        return np.asarray(ndimage.map_coordinates(product, where, order=3, mode="nearest"))


def _top(moves_zyx: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return the place (3,) of the top of a paraboloid through heights (M,) near the highest of moves (M, 3)."""
    highest = moves_zyx[np.argmax(heights)]
    near = np.linalg.norm(moves_zyx - highest, axis=1) <= 2.1 * STEP
    d, h = moves_zyx[near] - highest, heights[near]
    terms = np.column_stack([np.ones(len(d)), d, d ** 2, d[:, [0]] * d[:, 1:], d[:, [1]] * d[:, [2]]])
    _, bz, by, bx, czz, cyy, cxx, czy, czx, cyx = np.linalg.lstsq(terms, h, rcond=None)[0]
    curve = np.array([[2 * czz, czy, czx], [czy, 2 * cyy, cyx], [czx, cyx, 2 * cxx]])
    if np.linalg.eigvalsh(curve).max() >= 0:  # no top: a ridge at the edge of what was tried
        return highest
    return np.clip(highest - np.linalg.solve(curve, [bz, by, bx]), -REACH, REACH)
