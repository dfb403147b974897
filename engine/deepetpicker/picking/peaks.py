"""From probabilities to picks: mean-pooling non-maximum suppression (MP-NMS) on the stitched map, in blocks.

The probability of a class is mean-pooled T times with a 5^3 kernel, T = diameter // 4 + 1, so that a label becomes a
cone that peaks at its centre; local maxima (5^3) are candidates.

Source: Liu et al. 2024, Nat. Commun. 15:2090. We differ, and the tests say why: the whole map is treated, not tile by
tile; T passes are one separable kernel; peaks have sub-voxel positions; the pooled value is compared with the peak of
an ideal label of the class, so that small labels of large particles can be picked; plateaus give one pick.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Dict, Optional, Sequence, Tuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from deepetpicker.io.coordinates.table import CoordinateTable
from deepetpicker.picking.plateaus import MAX_WINDOW, RUN, merge_plateaus, runs_of
from deepetpicker.picking.store import ProbabilityStore
from deepetpicker.preparation.labels import draw_label

Shape = Tuple[int, int, int]

POOL = 5
_BLOCK = 64
_EQUAL = 1 - 1e-6  # rounding must not break a plateau into pieces
_POINTS = {False: 1 << 19, True: 1 << 25}  # looked at together, by whether they are on a GPU: they bound the memory
_SHARE = 16  # as many voxels of a block as maxima that are looked at together take no more memory than pooling did
_MUCH = 64  # one voxel in so many above the floor: all are compared with their neighbours at once
_NEIGHBOURS = sorted(set(itertools.product(range(-MAX_WINDOW, MAX_WINDOW + 1), repeat=3)) - {(0, 0, 0)},
                     key=lambda step: (sum(map(abs, step)), step))  # of a voxel, nearest first


@dataclasses.dataclass(frozen=True)
class PeakRule:
    """How one class is picked.

    Attributes
    ----------
    class_id : int
        Id written to the table.
    diameter_vox : float
        Particle diameter in working voxels.
    label_diameter_vox : float
        Diameter of the training label in working voxels.
    label : str
        Shape of the training label.
    apart_vox : float
        Picks nearer to each other are one particle; 0 is half the diameter.
    """

    class_id: int
    diameter_vox: float
    label_diameter_vox: float
    label: str = "tball"
    apart_vox: float = 0.0

    @property
    def passes(self) -> int:
        """Number of mean-pooling passes, T = diameter // 4 + 1."""
        return int(self.diameter_vox) // 4 + 1

    @property
    def kernel(self) -> np.ndarray:
        """The T passes of the mean pooling along one axis as one kernel, (4 T + 1,) float64, sum 1."""
        kernel = np.ones(1)
        for _ in range(self.passes):
            kernel = np.convolve(kernel, np.full(POOL, 1 / POOL))
        return kernel

    @property
    def halo(self) -> int:
        """Planes on each side that a peak depends on."""
        return POOL // 2 * self.passes + MAX_WINDOW

    def ideal(self) -> Tuple[float, np.ndarray]:
        """Return the pooled peak of an isolated ideal label, and its share along one axis (4 T + 1,), sum 1."""
        half = POOL // 2 * self.passes
        side = 2 * half + 1
        label = draw_label((side,) * 3, np.full((1, 3), float(half)), np.array([1]), {1: self.label_diameter_vox},
                           self.label) > 0
        k = self.kernel
        weighted = label * k[:, None, None] * k[None, :, None] * k
        peak = float(weighted.sum())
        return peak, weighted.sum((1, 2)) / peak


def pool(probability_zyx: Tensor, kernel: np.ndarray) -> Tensor:
    """Return the map convolved with the kernel along each axis, zero outside, same shape.

    Parameters
    ----------
    probability_zyx : (Z, Y, X) float32
        Not modified.
    kernel : (2 h + 1,) float
        The same along z, y and x.
    """
    out = probability_zyx
    for axis in (2, 1, 0):
        out = _pool_axis(out, torch.as_tensor(kernel, dtype=torch.float32), axis)
    return out


def _pool_axis(volume_zyx: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Return volume_zyx (Z, Y, X) convolved along one axis: products with banded matrices, block by block."""
    length, half = volume_zyx.shape[axis], len(kernel) // 2
    out = torch.empty_like(volume_zyx, memory_format=torch.contiguous_format)
    for lo in range(0, length, _BLOCK):
        hi = min(lo + _BLOCK, length)
        first, end = max(0, lo - half), min(length, hi + half)
        band = torch.zeros(hi - lo, end - first)
        for row in range(hi - lo):
            a = lo + row - half - first
            b = a + len(kernel)
            band[row, max(a, 0):min(b, end - first)] = kernel[max(-a, 0):len(kernel) - max(b - (end - first), 0)]
        band = band.to(volume_zyx.device)
        if axis == 2:
            out[:, :, lo:hi] = volume_zyx[:, :, first:end] @ band.T
        elif axis == 1:
            out[:, lo:hi] = band @ volume_zyx[:, first:end]
        else:
            flat = volume_zyx[first:end].reshape(end - first, -1)
            torch.mm(band, flat, out=out[lo:hi].view(hi - lo, -1))
    return out


def local_maxima(pooled_zyx: Tensor, floor: float, inner: Tuple[slice, ...] = ()) -> Tensor:
    """Return the voxels (N, 3) int that are above floor and not below any voxel of their 5^3 neighbourhood.

    Parameters
    ----------
    pooled_zyx : (Z, Y, X) float32
        Pooled map.
    floor : float
        Values at or below it are no maxima.
    inner : two slices, optional
        Planes and rows whose maxima are returned, in the order of z, y, x; the others serve as neighbours only.
    """
    z, y = inner[:2] or [slice(0, n) for n in pooled_zyx.shape[:2]]
    planes = max(1, _POINTS[pooled_zyx.device.type == "cuda"] // max(1, (y.stop - y.start) * pooled_zyx.shape[2]))
    return torch.cat([_maxima_of_planes(pooled_zyx, floor, slice(lo, min(lo + planes, z.stop)), y)
                      for lo in range(z.start, z.stop, planes)])


def _maxima_of_planes(pooled_zyx: Tensor, floor: float, z: slice, y: slice) -> Tensor:
    """Return the local maxima in rows y of planes z: points above the floor lose against one neighbour at a time."""
    device, shape = pooled_zyx.device, torch.tensor(pooled_zyx.shape, device=pooled_zyx.device)
    points = _rough_maxima(pooled_zyx[z, y], floor).nonzero() + torch.tensor([z.start, y.start, 0], device=device)
    for step in torch.as_tensor(_NEIGHBOURS, device=device):
        near = points + step
        inside = ((near >= 0) & (near < shape)).all(1)
        near = torch.where(inside[:, None], near, points)
        points = points[pooled_zyx[tuple(points.T)] >= pooled_zyx[tuple(near.T)] * _EQUAL]
    return points


def _rough_maxima(pooled_zyx: Tensor, floor: float) -> Tensor:
    """Return where (Z, Y, X) bool a map is above the floor and, if that is much of it, not below its six neighbours."""
    mask = pooled_zyx > floor
    if mask.count_nonzero() * _MUCH < mask.numel():
        return mask
    for axis in range(3):
        n = pooled_zyx.shape[axis] - 1
        low, high = pooled_zyx.narrow(axis, 0, n), pooled_zyx.narrow(axis, 1, n)
        mask.narrow(axis, 0, n).logical_and_(low >= high * _EQUAL)
        mask.narrow(axis, 1, n).logical_and_(high >= low * _EQUAL)
    return mask


def sub_voxel(pooled_zyx: Tensor, points_zyx: Tensor) -> np.ndarray:
    """Return positions (N, 3) float of the peaks at points_zyx (N, 3) int, between voxels.

    A parabola through the logarithm of three values along each axis: exact for a Gaussian, and T mean poolings are
    nearly one. A peak moves by at most half a voxel; at the border of the map it stays on its plane.
    """
    out = points_zyx.double()
    for axis in range(3):
        inner = (points_zyx[:, axis] > 0) & (points_zyx[:, axis] < pooled_zyx.shape[axis] - 1)
        step = torch.eye(3, dtype=torch.long, device=points_zyx.device)[axis]
        here = points_zyx[inner]
        tiny = torch.finfo(torch.float32).tiny
        low, mid, high = (pooled_zyx[tuple((here + s * step).T)].clamp(min=tiny).double().log() for s in (-1, 0, 1))
        bend = low - 2 * mid + high
        shift = torch.where(bend < -1e-12, 0.5 * (low - high) / torch.where(bend < -1e-12, bend, 1), 0)
        out[inner, axis] += shift.clamp(-0.5, 0.5)
    return out.cpu().numpy()


def score_of_ratio(ratio: np.ndarray) -> np.ndarray:
    """Return scores in [0, 1) for pooled values over the ideal label's peak: 0.5 at half, 0.75 at the ideal."""
    return 1 - 4.0 ** -np.asarray(ratio, float)


def ratio_of_score(score: float) -> float:
    """Return the inverse of :func:`score_of_ratio`."""
    return float(-np.log(1 - score) / np.log(4))


def candidates(store: ProbabilityStore, rules: Sequence[PeakRule], floor: float = 0.1,
               block: Tuple[int, int] = (48, 192)) -> CoordinateTable:
    """Return all candidates of a stitched probability map.

    Parameters
    ----------
    store : ProbabilityStore
        The map (C, Z, Y, X).
    rules : sequence of PeakRule
        One per class, in the order of the map's channels.
    floor : float
        Candidates with a lower score are not kept.
    block : (2,) int
        Planes and rows treated at once; they bound the memory, and the result does not depend on them.

    Returns
    -------
    CoordinateTable
        Best first, with sub-voxel positions on the map's grid and scores in [0, 1).
    """
    depth, height, _ = store.shape_zyx
    corners = [(z, y) for z in range(0, depth, block[0]) for y in range(0, height, block[1])]
    tables = []
    for channel, rule in enumerate(rules):
        finder = _ClassFinder(store, channel, rule, ratio_of_score(floor))
        parts = [finder.block(slice(z, min(z + block[0], depth)), slice(y, min(y + block[1], height)))
                 for z, y in corners]
        positions, ratio = merge_plateaus(np.concatenate(parts))
        tables.append(CoordinateTable(positions, np.full(len(positions), rule.class_id), score_of_ratio(ratio), {}))
    return order_by_score(CoordinateTable.concatenate(tables))


def _pieces(pooled_zyx: Tensor, floor: float) -> int:
    """Return into how many pieces a block is cut for its maxima to take no more memory than pooling."""
    few = pooled_zyx.numel() // _SHARE
    many = int((pooled_zyx > floor).count_nonzero())
    if many > few:  # slower, but nearer to what will be looked at
        many = int(_rough_maxima(pooled_zyx, floor).count_nonzero())
    return max(1, -(-many // max(1, few)))


class _ClassFinder:
    """Finds the candidates of one class of a map, block by block."""

    def __init__(self, store: ProbabilityStore, channel: int, rule: PeakRule, floor_ratio: float) -> None:
        self.store, self.channel, self.rule, self.floor_ratio = store, channel, rule, floor_ratio
        self.peak, self.share = rule.ideal()

    def block(self, z: slice, y: slice) -> np.ndarray:
        """Return the candidates in rows y of planes z, as runs (N,) of :func:`runs_of`."""
        halo, shape = self.rule.halo, self.store.shape_zyx
        wide = [slice(max(0, s.start - halo), min(n, s.stop + halo)) for s, n in ((z, shape[0]), (y, shape[1]))]
        corner = np.array([wide[0].start, wide[1].start, 0])
        probability = self.store.read(self.channel, *wide)
        lowest = self.floor_ratio * self.peak * _smallest_visible(self.share)
        if float(probability.max()) <= lowest:
            return np.empty(0, RUN)
        pooled = pool(probability, self.rule.kernel)
        del probability
        rows = slice(y.start - corner[1], y.stop - corner[1])
        depth = z.stop - z.start
        planes = max(1, depth // _pieces(pooled[slice(z.start - corner[0], z.stop - corner[0]), rows], lowest))
        return np.concatenate([self._runs(pooled, corner, slice(lo, min(lo + planes, z.stop - corner[0])), rows)
                               for lo in range(z.start - corner[0], z.stop - corner[0], planes)])

    def _runs(self, pooled_zyx: Tensor, corner_zyx: np.ndarray, z: slice, y: slice) -> np.ndarray:
        """Return the candidates in rows y of planes z of a block of the pooled map whose first voxel is corner_zyx."""
        points = local_maxima(pooled_zyx, self.floor_ratio * self.peak * _smallest_visible(self.share), (z, y))
        voxels = points.cpu().numpy() + corner_zyx
        ratio = pooled_zyx[tuple(points.T)].cpu().numpy() / self.peak
        ratio = ratio / visible_share(voxels, self.store.shape_zyx, self.share)
        keep = ratio >= self.floor_ratio
        return runs_of((sub_voxel(pooled_zyx, points) + corner_zyx)[keep], voxels[keep], ratio[keep])


def visible_share(voxels_zyx: np.ndarray, shape_zyx: Shape, share: np.ndarray) -> np.ndarray:
    """Return which part of an ideal label's pooled peak lies inside the volume, (N,), 1 away from the border.

    A particle cut by the border has lost part of its label; its score is compared with what is left, but never with
    less than a quarter.

    Parameters
    ----------
    voxels_zyx : (N, 3) int
        Peak voxels.
    shape_zyx : (3,) int
        Shape of the volume.
    share : (2 h + 1,) float
        The pooled peak's parts along one axis, sum 1.
    """
    half = len(share) // 2
    below = np.concatenate([[0.0], np.cumsum(share)])
    out = np.ones(len(voxels_zyx))
    for axis, length in enumerate(shape_zyx):
        at = voxels_zyx[:, axis]
        lost_low = below[np.clip(half - at, 0, None)]
        lost_high = 1 - below[np.clip(half + length - at, None, 2 * half + 1)]
        out *= 1 - lost_low - lost_high
    return np.maximum(out, 0.25)


def _smallest_visible(share: np.ndarray) -> float:
    """Return the least value that visible_share can take."""
    return max(0.25, float(share[len(share) // 2:].sum()) ** 3)


def order_by_score(table: CoordinateTable) -> CoordinateTable:
    """Return the table best first; ties in the order of z, y, x."""
    z, y, x = table.positions_zyx_vox.T
    return table.select(np.lexsort((x, y, z, -table.scores)))


def deduplicate(table: CoordinateTable, min_distance_vox: Dict[int, float]) -> CoordinateTable:
    """Return the table without picks that lie too close to a better one, of whatever class.

    Parameters
    ----------
    table : CoordinateTable
        Candidates.
    min_distance_vox : dict
        Class id to the distance, in the table's voxels, below which two picks are one particle. Between two classes
        the mean of theirs counts.

    Returns
    -------
    CoordinateTable
        Best first. The result does not depend on the order of the input.
    """
    table = order_by_score(table)
    if len(table) < 2:
        return table
    radius = np.array([min_distance_vox[int(c)] for c in table.class_ids])
    pairs = cKDTree(table.positions_zyx_vox).query_pairs(radius.max(), output_type="ndarray")
    pairs.sort(axis=1)
    apart = np.linalg.norm(np.subtract(*table.positions_zyx_vox[pairs.T]), axis=1)
    pairs = pairs[apart < radius[pairs].mean(1)]
    keep = np.ones(len(table), bool)
    for better, worse in pairs[np.lexsort(pairs.T[::-1])]:
        if keep[better]:
            keep[worse] = False
    return table.select(keep)


def find_peaks(store: ProbabilityStore, rules: Sequence[PeakRule], floor: float = 0.1,
               min_distance_vox: Optional[Dict[int, float]] = None,
               block: Tuple[int, int] = (48, 192)) -> CoordinateTable:
    """Return the deduplicated candidates of a stitched probability map, best first.

    Parameters
    ----------
    store, rules, floor, block
        See :func:`candidates`.
    min_distance_vox : dict, optional
        See :func:`deduplicate`; default: what the rules say.
    """
    distances = min_distance_vox or {rule.class_id: rule.apart_vox or rule.diameter_vox / 2 for rule in rules}
    return deduplicate(candidates(store, rules, floor, block), distances)
