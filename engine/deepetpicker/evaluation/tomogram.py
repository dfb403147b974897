"""One tomogram's picks against its truth, from files to pairs."""

from __future__ import annotations

import dataclasses
import logging
from typing import Dict, Optional, Tuple

import numpy as np

from deepetpicker.config import EvaluateOptions
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.evaluation import sanity
from deepetpicker.evaluation.matching import (
    Candidates,
    distance_candidates,
    hits_by_score,
    mask_candidates,
    take_best_scores,
    take_most_pairs,
)
from deepetpicker.evaluation.pairing import EvaluationItem
from deepetpicker.evaluation.results import TomogramResult
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable, Frame, read_coordinates
from deepetpicker.io.manifest import Manifest
from deepetpicker.io.volumes import open_volume
from deepetpicker.io.voxelsize import given_sizes

log = logging.getLogger(__name__)

POOR_RECALL = 0.2
FALLBACK_RADIUS_VOX = 5.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """What holds for every tomogram of a run.

    Parameters
    ----------
    options : EvaluateOptions
        Hit rule, radius, threshold and so on.
    classes : dict of int to ParticleClass
        Known classes by id; may be empty.
    voxel_size_ang : float
        Voxel size that the data folder states, in angstrom; 0 when it does not.
    of_picks : dict of int to int
        Class id of the truth for each of the picks'.
    """

    options: EvaluateOptions
    classes: Dict[int, ParticleClass]
    voxel_size_ang: float = 0.0
    of_picks: Dict[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class _Scene:
    """A tomogram with its truth (N,) and its hit rule: an instance mask (Z, Y, X), or radii (N,) in voxels."""

    name: str
    truth: CoordinateTable
    margin_vox: float
    shape_zyx: Optional[Tuple[int, int, int]]
    voxel_size_ang: float
    instances_zyx: Optional[np.ndarray]
    radii_vox: Optional[np.ndarray]

    def allowed(self, picks: CoordinateTable) -> Tuple[CoordinateTable, CoordinateTable, Candidates]:
        """Return truth and picks outside the margin and the pairs the rule allows among them."""
        if self.instances_zyx is not None:
            pairs = mask_candidates(self.truth, picks, self.instances_zyx)
        else:
            pairs = distance_candidates(self.truth, picks, np.asarray(self.radii_vox))
        if not self.margin_vox:
            return self.truth, picks, pairs
        keep_truth, keep_picks = self._inside(self.truth), self._inside(picks)
        can_hit, can_hit_kept = np.zeros(len(picks), bool), np.zeros(len(picks), bool)
        can_hit[pairs.pick_index] = True
        can_hit_kept[pairs.pick_index[keep_truth[pairs.truth_index]]] = True
        keep_picks &= can_hit_kept | ~can_hit
        return self.truth.select(keep_truth), picks.select(keep_picks), pairs.restrict(keep_truth, keep_picks)

    def _inside(self, table: CoordinateTable) -> np.ndarray:
        """Return which rows lie at least the margin away from every face, (N,) bool."""
        if self.shape_zyx is None:
            raise InputError("a margin needs the size of the tomogram: put the tomogram beside the truth, "
                             "or set the margin to 0")
        low, high = self.margin_vox - 0.5, np.array(self.shape_zyx) - 0.5 - self.margin_vox
        positions = table.positions_zyx_vox
        return np.asarray(((positions >= low) & (positions <= high)).all(axis=1))


def evaluate_tomogram(item: EvaluationItem, setting: Setting, manifest: Manifest) -> TomogramResult:
    """Read the tables of one tomogram and match them.

    Picks below the threshold are left out of the match, not of the curves; picks without a score stay in the match.
    Where the threshold is lower than the one the picks were cut at, the candidates at or above it are matched.
    Truth and picks within the margin are left out, and so are picks that can only hit particles within it.

    Parameters
    ----------
    item : EvaluationItem
        Its files.
    setting : Setting
        Options and classes.
    manifest : Manifest
        Takes the tomogram as input and the warnings.

    Raises
    ------
    InputError
        If a file is missing, or what the hit rule needs (mask, radius in angstrom, voxel size) is not known.
    FormatError
        If a file is damaged.
    """
    scene, picks = _scene(item, setting, manifest)
    scored = picks
    if item.candidates:
        scored = read_coordinates(item.candidates, _frame(scene)).renumbered(setting.of_picks)
    threshold = setting.options.threshold
    if item.candidates and 0 < threshold < np.nanmin(picks.scores, initial=np.inf):
        picks = scored  # the table was cut above the threshold that is asked for now
    truth, kept, pairs = scene.allowed(picks.select(~(picks.scores < threshold)))
    by_mask = scene.instances_zyx is not None
    match = take_best_scores(pairs, kept.scores) if by_mask else take_most_pairs(pairs)
    _, scored, all_pairs = scene.allowed(scored)
    hollow = sanity.centres_outside_mask(scene.truth, scene.instances_zyx) if scene.instances_zyx is not None else 0
    result = TomogramResult(item.name, "mask" if by_mask else "distance", truth, kept, match, scored, all_pairs,
                            hits_by_score(all_pairs, scored.scores), item.tomogram, scene.voxel_size_ang,
                            scene.shape_zyx, hollow, item.seen)
    _check_geometry(result, scene, setting, manifest)
    return result


def warn(manifest: Manifest, text: str) -> None:
    """Log a warning and keep it in the manifest."""
    log.warning("%s", text)
    manifest.warn(text)


def _scene(item: EvaluationItem, setting: Setting, manifest: Manifest) -> Tuple[_Scene, CoordinateTable]:
    """Return the tomogram with its truth, and the picks."""
    options = setting.options
    voxel_size_ang = options.voxel_size or item.voxel_size_ang or setting.voxel_size_ang
    shape_zyx, instances_zyx = None, None
    if item.tomogram:
        try:
            sizes = given_sizes(options.voxel_size, item.voxel_size_ang, setting.voxel_size_ang)
            volume = open_volume(item.tomogram, sizes, item.name)
            manifest.add_input(volume)
            voxel_size_ang, shape_zyx = volume.voxel_size_ang, volume.shape_zyx
        except DeepETPickerError as error:
            warn(manifest, f"{item.name}: evaluated without its tomogram: {error}")
    if options.rule == "mask" and not item.instances:
        raise InputError(f"the mask rule needs {item.name}_instances.mrc beside the truth: put it there or "
                         "choose --rule distance")
    if item.instances and options.rule != "distance":
        mask = open_volume(item.instances, voxel_size_ang, f"{item.name} (instances)")
        if shape_zyx and mask.shape_zyx != shape_zyx:
            raise InputError(f"tomogram and instance mask must have one shape, got {shape_zyx} and "
                             f"{mask.shape_zyx} (z, y, x): they must come from the same simulation")
        voxel_size_ang, shape_zyx, instances_zyx = mask.voxel_size_ang, mask.shape_zyx, mask.data_zyx
    frame = Frame(voxel_size_ang=voxel_size_ang, shape_zyx=shape_zyx, tomogram=item.name)
    truth = read_coordinates(item.truth, frame)
    picks = read_coordinates(item.picks, frame) if item.picks else CoordinateTable.empty()
    picks = picks.renumbered(setting.of_picks)
    radii_vox = None if instances_zyx is not None else _radii(truth, setting, voxel_size_ang)
    return _Scene(item.name, truth, options.margin, shape_zyx, voxel_size_ang, instances_zyx, radii_vox), picks


def _frame(scene: _Scene) -> Frame:
    """Return what coordinate files need to know about the tomogram."""
    return Frame(voxel_size_ang=scene.voxel_size_ang, shape_zyx=scene.shape_zyx, tomogram=scene.name)


def _radii(truth: CoordinateTable, setting: Setting, voxel_size_ang: float) -> np.ndarray:
    """Return the hit radius of each true particle (N,) in voxels."""
    if not voxel_size_ang:
        raise InputError("the distance rule needs the voxel size in angstrom: give --voxel-size")
    if setting.options.radius_angstrom:
        return np.full(len(truth), setting.options.radius_angstrom / voxel_size_ang)
    known = {c.id: c.diameter_ang / 2 for c in setting.classes.values() if c.diameter_ang > 0}
    unknown = sorted(set(truth.class_ids.tolist()) - set(known))
    if unknown:
        raise InputError(f"the diameter of class {unknown[0]} is not known, so a hit has no radius: give "
                         "--radius-angstrom, or list the class with its diameter in classes.json beside the truth")
    return np.array([known[c] for c in truth.class_ids.tolist()]) / voxel_size_ang


def _check_geometry(result: TomogramResult, scene: _Scene, setting: Setting, manifest: Manifest) -> None:
    """Warn of picks outside the volume and of a poor result that another geometry explains."""
    if scene.shape_zyx:
        outside = sanity.outside_volume(result.picks, scene.shape_zyx)
        if outside:
            warn(manifest, f"{scene.name}: {outside} of {len(result.picks)} picks lie outside the volume; expected x, "
                 "y, z in voxels of this tomogram")
    if result.match.tp >= POOR_RECALL * len(result.truth):
        return
    radius_vox = FALLBACK_RADIUS_VOX
    diameters = [c.diameter_ang for c in setting.classes.values() if c.diameter_ang > 0]
    if scene.radii_vox is not None:
        radius_vox = float(np.median(scene.radii_vox))
    elif diameters and scene.voxel_size_ang:
        radius_vox = min(diameters) / 2 / scene.voxel_size_ang
    hint = sanity.geometry_hint(result.truth, result.picks, radius_vox, scene.shape_zyx, scene.voxel_size_ang)
    if hint:
        warn(manifest, f"{scene.name}: only {result.match.tp} of {len(result.truth)} particles are found, but {hint}")
