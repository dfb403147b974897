"""Numbers about picks that have no truth: how many per tomogram, at which scores and depths, and which are outliers."""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.outliers import Spread, Unlike, unlike_others
from deepetpicker.report.sources import PickedTomogram

EDGE_SHARE = 0.3      # share of the picks at top and bottom that is worth a word
MOST_BINS, FEWEST_BINS = 24, 6


@dataclasses.dataclass(frozen=True)
class TomogramRow:
    """A tomogram in the table of a picking.

    Parameters
    ----------
    name : str
        The tomogram.
    counts : tuple of int
        Picks of each class, in the order of the classes.
    n_candidates : int
        All that were kept.
    score, depth : float
        Medians of the picks: score, and share of the depth from 0 to 1; NaN without picks.
    seconds : float, optional
        How long it took.
    remarks : tuple of str
        Why it is an outlier, or that it failed; empty for others.
    is_failed : bool
        Whether it could not be picked.
    """

    name: str
    counts: Tuple[int, ...]
    n_candidates: int
    score: float
    depth: float
    seconds: Optional[float]
    remarks: Tuple[str, ...] = ()
    is_failed: bool = False

    @property
    def n_picks(self) -> int:
        """Picks of all classes."""
        return sum(self.counts)


def rows_of(tomograms: Sequence[PickedTomogram], class_ids: Sequence[int]) -> List[TomogramRow]:
    """Return a row per tomogram, outliers marked.

    Parameters
    ----------
    tomograms : sequence of PickedTomogram
        Failed ones included.
    class_ids : sequence of int
        The classes.
    """
    others = unlike_others({one.name: Spread.of(one.picks.scores, one.picks.positions_zyx_vox[:, 0],
                                                one.place.shape_zyx[0] if one.place.shape_zyx else None,
                                                one.picks.class_ids)
                            for one in tomograms if not one.reason})
    return [_row(one, class_ids, others.get(one.name, Unlike()).reasons) for one in tomograms]


def _row(one: PickedTomogram, class_ids: Sequence[int], unlike: Sequence[str]) -> TomogramRow:
    """Return the row of one tomogram, of which is known in what it is unlike the others."""
    counts = tuple(int((one.picks.class_ids == c).sum()) for c in class_ids)
    depth, deep = float("nan"), one.place.shape_zyx
    if len(one.picks) and deep:
        depth = float(np.median(one.picks.positions_zyx_vox[:, 0]) + 0.5) / deep[0]
    score = float(np.median(one.picks.scores)) if len(one.picks) else float("nan")
    remarks = [f"failed: {one.reason}"] if one.reason else unlike or ([] if len(one.picks) else ["no picks"])
    return TomogramRow(one.name, counts, len(one.candidates), score, depth, one.seconds, tuple(remarks),
                       bool(one.reason))


@dataclasses.dataclass(frozen=True, eq=False)
class DepthCounts:
    """How the picks of each class are spread over depth.

    Parameters
    ----------
    edges : (bins + 1,) float
        Voxels, or shares of the depth where tomograms differ in it.
    counts : dict of int to (bins,) int
        Picks by class.
    is_relative : bool
        Whether the edges are shares.
    """

    edges: np.ndarray
    counts: Dict[int, np.ndarray]
    is_relative: bool


def depths_of(tomograms: Sequence[PickedTomogram], class_ids: Sequence[int]) -> Optional[DepthCounts]:
    """Return how picks are spread over depth; None where no depth of a tomogram is known or there are no picks."""
    known = [(one, one.place.shape_zyx[0]) for one in tomograms if one.place.shape_zyx and len(one.picks)]
    if not known:
        return None
    is_relative = len({deep for _, deep in known}) > 1
    bins = int(np.clip(np.sqrt(sum(len(one.picks) for one, _ in known)), FEWEST_BINS, MOST_BINS))
    edges = np.linspace(0, 1, bins + 1) if is_relative else np.linspace(-0.5, known[0][1] - 0.5, bins + 1)
    counts = {}
    for class_id in class_ids:
        z = [(t.picks.positions_zyx_vox[t.picks.class_ids == class_id, 0], deep) for t, deep in known]
        every = np.concatenate([(values + 0.5) / deep if is_relative else values for values, deep in z])
        counts[class_id] = np.histogram(np.clip(every, edges[0], edges[-1]), edges)[0]
    return DepthCounts(edges, counts, is_relative)


def at_the_edge(tomograms: Sequence[PickedTomogram], diameters_ang: Dict[int, float]) -> Tuple[float, float]:
    """Return the share of the picks within half a diameter of top or bottom, and the share that chance would put there.

    NaN where neither depths nor diameters are known.
    """
    near, expected, count = 0, 0.0, 0
    for one in tomograms:
        deep, voxel = one.place.shape_zyx, one.place.voxel_size_ang
        if not (deep and voxel):
            continue
        for class_id, diameter in diameters_ang.items():
            z = one.picks.positions_zyx_vox[one.picks.class_ids == class_id, 0]
            reach = diameter / voxel / 2
            near += int(((z < reach - 0.5) | (z > deep[0] - 0.5 - reach)).sum())
            expected += len(z) * min(1.0, 2 * reach / deep[0])
            count += len(z)
    return (near / count, expected / count) if count else (float("nan"), float("nan"))
