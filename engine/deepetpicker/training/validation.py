"""Validation: the held-out part is scanned and picked with the same code as a new tomogram."""

from __future__ import annotations

import dataclasses
import logging
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch

from deepetpicker.evaluation.matching import distance_candidates
from deepetpicker.evaluation.measures import taken_for
from deepetpicker.evaluation.reliability import calibrated
from deepetpicker.evaluation.thresholds import DEFAULT_THRESHOLD, FEWEST, PickScores, score_picks
from deepetpicker.io.coordinates.table import CoordinateTable
from deepetpicker.network.predictor import Arithmetic, Predictor
from deepetpicker.picking.peaks import PeakRule, find_peaks
from deepetpicker.picking.picker import DECIMALS
from deepetpicker.picking.scan import scan
from deepetpicker.picking.store import ProbabilityStore
from deepetpicker.preparation.resample import Crop, Slices
from deepetpicker.preparation.tiling import PHASE, TilePlan, scan_tile
from deepetpicker.sampling.judged import crop_to_tiles, shape_of, widened, within
from deepetpicker.sampling.patches import Annotated, PatchRule, drawn

log = logging.getLogger(__name__)

BORDER = 12
FLOOR = 0.1
PREDICTED = 0.5  # probability above which a voxel is predicted to belong to a class


@dataclasses.dataclass(frozen=True, eq=False)
class Looked:
    """What was found in one held-out part.

    Attributes
    ----------
    name : str
        The tomogram's name.
    truth, found : CoordinateTable
        Its known particles in the part, and the candidates there, in voxels of the tomogram's working grid.
    """

    name: str
    truth: CoordinateTable
    found: CoordinateTable


class Validator:
    """Scans held-out regions and scores voxels and picks.

    Parameters
    ----------
    regions : sequence of Annotated
        Held-out parts; what lies around them in their tomograms is seen, but not judged.
    rule : PatchRule
        Patch size and labels of the training.
    peak_rules : sequence of PeakRule
        How each channel is picked.
    max_tiles : int
        Largest number of tiles of all regions together; larger regions are cropped about their particles.
    alpha : float
        Weight of recall in F_alpha.
    stride : int
        What the network asks of the edges of tiles: they are multiples of it.

    Attributes
    ----------
    looked : list of Looked
        What the last call has found, part by part.
    n_particles : int
        Held-out particles by which picks are judged.
    in_boxes : bool
        True when picks are judged only where everything is annotated, because elsewhere nobody knows.
    otherwise : float or None
        Threshold where the held-out particles are too few to choose one; None leaves it to :func:`score_picks`.
    """

    def __init__(self, regions: Sequence[Annotated], rule: PatchRule, peak_rules: Sequence[PeakRule],
                 max_tiles: int, alpha: float, stride: int = PHASE) -> None:
        self.rule, self.peak_rules, self.alpha = rule, list(peak_rules), alpha
        phase = max(PHASE, stride)
        self.tile = scan_tile(rule.size, [shape_of(r.region_zyx) for r in regions], phase)
        self.border = min(BORDER, (self.tile - phase) // 2)
        chosen = list(regions)[:max(1, max_tiles)]
        share = max(1, max_tiles // max(len(chosen), 1))
        self.regions = [dataclasses.replace(r, region_zyx=crop_to_tiles(r, self.tile, self.border, share, phase))
                        for r in chosen]
        largest = max(rule.diameters_vox.values())
        self.boxes = [widened(r.region_zyx, r.source.shape_zyx, largest) for r in self.regions]
        self.plans = [TilePlan.cover(shape_of(box), self.tile, self.border, phase) for box in self.boxes]
        self.looked: List[Looked] = []
        self.otherwise: Optional[float] = None
        covered = sum(int(r.certain.covers(r.positions_zyx_vox[r.inside]).sum()) for r in self.regions)
        self.in_boxes = rule.is_unknown and covered >= FEWEST
        self.n_particles = covered if self.in_boxes else sum(len(region.inside) for region in self.regions)

    @property
    def is_unknown(self) -> bool:
        """True when a pick that hits nothing may be a particle that nobody annotated."""
        return self.rule.is_unknown and not self.in_boxes

    @property
    def against_picks(self) -> str:
        """Why picks cannot choose the epoch to keep, and what to do about it; empty when they can."""
        if self.is_unknown:
            return "particles that nobody annotated count as false picks"
        if self.n_particles < FEWEST:
            return f"only {self.n_particles} particle(s) held out, {FEWEST} would do (label more)"
        return ""

    def chooses_by(self, select: str) -> str:
        """Return what chooses the epoch to keep: ``picks`` or ``voxels`` as asked for, ``last`` where picks cannot.

        What says nothing about picks says as little about voxels, and at the end of the schedule the weights have come
        to rest.
        """
        return "last" if select == "picks" and self.against_picks else select

    @property
    def n_tiles(self) -> int:
        """Tiles scanned in one validation."""
        return sum(len(plan) for plan in self.plans)

    def __call__(self, network: torch.nn.Module, arithmetic: Arithmetic) -> Tuple[Dict[str, float], PickScores]:
        """Return voxel scores (:meth:`VoxelCounts.scores`) and pick scores of a network, in working voxels.

        Parameters
        ----------
        network : ResUNet3D
            Not modified.
        arithmetic : Arithmetic
            Where and how to compute.
        """
        was_training = network.training
        predictor = Predictor(network.eval(), arithmetic)
        counts = VoxelCounts(len(self.peak_rules))
        pairs, self.looked = [], []
        try:
            for region, box, plan in zip(self.regions, self.boxes, self.plans):
                found = self._judged(region, self._scan(region, box, plan, predictor, counts))
                inside, outside = self._truth(region)
                is_inside = within(region.region_zyx, found.positions_zyx_vox)
                pairs.append((inside, without_neighbours(found, is_inside, inside, outside, self._radii())))
                self.looked.append(Looked(region.name, *pairs[-1]))
        finally:
            network.train(was_training)
        picks = score_picks(pairs, self._radii(), FLOOR, not self.is_unknown, self.otherwise)
        if not self.is_unknown:  # else nobody knows which picks are right
            picks = calibrated(picks, pairs, self._radii(), FLOOR)
        return counts.scores(self.alpha), picks

    def on_certain(self, looked: Sequence[Looked]) -> PickScores:
        """Return pick scores of what was found, each class at its best F1, on what is certain.

        Where particles may lack an annotation, only candidates count that hit a known particle, or lie where everything
        is annotated or at a place without a particle.

        Parameters
        ----------
        looked : sequence of Looked
            What was found in each held-out part, from ``looked``.
        """
        regions, pairs = {region.name: region for region in self.regions}, []
        for one in looked:
            kept = np.ones(len(one.found), bool)
            if self.is_unknown:
                certain = regions[one.name].certain
                kept = certain.is_background(one.found.positions_zyx_vox, self.rule.negative_radius_vox)
                for class_id, radius in self._radii().items():
                    rows = np.flatnonzero(one.found.class_ids == class_id)
                    hits = distance_candidates(one.truth.select(one.truth.class_ids == class_id),
                                               one.found.select(rows), radius)
                    kept[rows[hits.pick_index]] = True
            pairs.append((one.truth, one.found.select(kept)))
        return score_picks(pairs, self._radii(), FLOOR)

    def taken_for(self, looked: Sequence[Looked]) -> Dict[str, np.ndarray]:
        """Return as what the held-out particles pass in each tomogram, (C, C + 1) int: :func:`measures.taken_for`."""
        return {one.name: taken_for(one.truth, one.found, self._radii(), DEFAULT_THRESHOLD) for one in looked}

    def _scan(self, region: Annotated, box_zyx: Slices, plan: TilePlan, predictor: Predictor,
              counts: VoxelCounts) -> CoordinateTable:
        """Count the voxels of a region and return the candidates in the box around it, in the tomogram's frame."""
        origin = [s.start for s in box_zyx]
        with ProbabilityStore((len(self.peak_rules), *plan.shape_zyx)) as store:
            device = predictor.arithmetic.device
            for z0, y0, strip in scan(Crop(region.source, box_zyx), predictor, plan, predictor.batch, device=device):
                self._count(region, (origin[0] + z0, origin[1] + y0, origin[2]), strip, counts)
                store.write(z0, y0, strip)
            found = find_peaks(store, self.peak_rules, FLOOR)
        return dataclasses.replace(found, positions_zyx_vox=found.positions_zyx_vox + origin,
                                   scores=found.scores.round(DECIMALS))

    def _count(self, region: Annotated, start_zyx: Sequence[int], strip: torch.Tensor, counts: VoxelCounts) -> None:
        """Count the voxels of a strip (C, Z, Y, X) that begins at a voxel of the tomogram, as far as in the region."""
        low = [max(s.start, at) for s, at in zip(region.region_zyx, start_zyx)]
        high = [min(s.stop, at + n) for s, at, n in zip(region.region_zyx, start_zyx, strip.shape[1:])]
        if any(a >= b for a, b in zip(low, high)):
            return
        z, y, x = (slice(a, b) for a, b in zip(low, high))
        own = tuple(slice(a - at, b - at) for a, b, at in zip(low, high, start_zyx))
        label, known = drawn(region, self.rule, (z, y, x))
        counts.add(strip[(slice(None), *own)].float().cpu().numpy(), label, known if self.rule.is_unknown else None)

    def _judged(self, region: Annotated, found: CoordinateTable) -> CoordinateTable:
        """Return the candidates of a region that can be judged: all, or those where everything is annotated."""
        return found.select(region.certain.covers(found.positions_zyx_vox)) if self.in_boxes else found

    def _truth(self, region: Annotated) -> Tuple[CoordinateTable, CoordinateTable]:
        """Return the tomogram's particles inside and outside a region, with the classes' ids."""
        ids = np.array([self.peak_rules[int(c) - 1].class_id for c in region.channels], np.int64)
        every = CoordinateTable(region.positions_zyx_vox, ids, np.full(len(ids), np.nan))
        is_inside = np.isin(np.arange(len(ids)), region.inside)
        if self.in_boxes:
            is_inside &= region.certain.covers(region.positions_zyx_vox)
        return every.select(is_inside), every.select(~is_inside)

    def _radii(self) -> Dict[int, float]:
        """Return the radius within which a pick of a class hits, in working voxels."""
        return {r.class_id: r.diameter_vox / 2 for r in self.peak_rules}


def without_neighbours(found: CoordinateTable, is_inside: np.ndarray, inside: CoordinateTable,
                       outside: CoordinateTable, radii_vox: Mapping[int, float]) -> CoordinateTable:
    """Return the candidates that hit a particle of the region, or lie in it and hit none: others are not false.

    Parameters
    ----------
    found : CoordinateTable
        Candidates in the region and around it.
    is_inside : (N,) bool
        Which of them lie in the region.
    inside, outside : CoordinateTable
        The tomogram's particles in the region and beyond it.
    radii_vox : mapping
        Class id to the largest distance of a hit.
    """
    kept = np.ones(len(found), bool)
    for class_id, radius in radii_vox.items():
        rows = np.flatnonzero(found.class_ids == class_id)
        near = [np.isin(np.arange(len(rows)), distance_candidates(
            table.select(table.class_ids == class_id), found.select(rows), radius).pick_index)
            for table in (inside, outside)]
        kept[rows] = near[0] | (is_inside[rows] & ~near[1])
    return found.select(kept)


def precision_recall(hits: float, predicted: float, wanted: float) -> Tuple[float, float]:
    """Return precision and recall in [0, 1] from counts; 0 where nothing was predicted or wanted.

    With nothing predicted and nothing wanted both are 1: an empty answer to an empty question is right.
    """
    if predicted == 0 and wanted == 0:
        return 1.0, 1.0
    return hits / predicted if predicted else 0.0, hits / wanted if wanted else 0.0


def f1_score(precision: float, recall: float) -> float:
    """Return the harmonic mean of precision and recall, 0 when both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def f_alpha(precision: float, recall: float, alpha: float = 3.0) -> float:
    """Return P * R^alpha / (P + R^alpha), 0 when both are 0; 0.5 at best.

    Parameters
    ----------
    precision, recall : float
        In [0, 1].
    alpha : float
        > 0; above 1 a lost particle weighs more than a false one.

    Source: Liu et al. 2024, Nat. Commun. 15:2090.
    """
    weighted = recall**alpha
    return precision * weighted / (precision + weighted) if precision + weighted else 0.0


@dataclasses.dataclass
class VoxelCounts:
    """Voxels of each class that were hit, predicted and wanted, added up slab by slab.

    Attributes
    ----------
    n_classes : int
        Number of particle classes.
    """

    n_classes: int

    def __post_init__(self) -> None:
        self.hits, self.predicted, self.wanted = (np.zeros(self.n_classes, np.int64) for _ in range(3))
        self.dice_sums = np.zeros((3, self.n_classes))

    def add(self, probability_czyx: np.ndarray, label_zyx: np.ndarray, known_zyx: Optional[np.ndarray] = None) -> None:
        """Count a slab.

        Parameters
        ----------
        probability_czyx : (C, Z, Y, X) float32
            Probability of each class; above 0.5 a voxel is predicted to belong to it.
        label_zyx : (Z, Y, X) int
            0 for background, c + 1 for channel c.
        known_zyx : (Z, Y, X) bool, optional
            Other voxels are not counted.
        """
        for c in range(self.n_classes):
            wanted, probability = label_zyx == c + 1, probability_czyx[c]
            if known_zyx is not None:
                wanted, probability = wanted & known_zyx, probability * known_zyx
            predicted = probability > PREDICTED
            self.hits[c] += np.count_nonzero(wanted & predicted)
            self.predicted[c] += np.count_nonzero(predicted)
            self.wanted[c] += np.count_nonzero(wanted)
            self.dice_sums[:, c] += (float(probability[wanted].sum(dtype=np.float64)),
                                     float(probability.sum(dtype=np.float64)), float(wanted.sum()))

    def scores(self, alpha: float = 3.0, smoothing: float = 1.0) -> Dict[str, float]:
        """Return ``val_loss`` (soft Dice), ``voxel_precision``, ``voxel_recall``, ``voxel_f1`` and ``f_alpha``.

        Means over the classes that have voxels in the label; over all classes if none has.

        Parameters
        ----------
        alpha : float
            Weight of recall in F_alpha.
        smoothing : float
            Of the Dice loss.
        """
        present = self.wanted > 0
        chosen = np.flatnonzero(present if present.any() else np.ones(self.n_classes, bool))
        rows = []
        for c in chosen:
            p, r = precision_recall(float(self.hits[c]), float(self.predicted[c]), float(self.wanted[c]))
            overlap, predicted, wanted = self.dice_sums[:, c]
            loss = 1 - (2 * overlap + smoothing) / (predicted + wanted + smoothing)
            rows.append((loss, p, r, f1_score(p, r), f_alpha(p, r, alpha)))
        names = ("val_loss", "voxel_precision", "voxel_recall", "voxel_f1", "f_alpha")
        return dict(zip(names, np.mean(rows, axis=0).tolist()))
