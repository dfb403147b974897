"""What the picks of a tomogram say about themselves: whether it looks like those of the training, and their number."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.picking.faint import Faint
from deepetpicker.preparation.portrait import Portrait, is_mirrored
from deepetpicker.verdict import DOUBTFUL, GOOD, Reason, Verdict

OTHER_GRAIN = 1.25  # times coarser or finer than any tomogram of the training
STANDS_OUT = 1 / 3  # of what stands out in the training, beyond what does in noise
NOISE = (-3.09, -2.33, -1.64, 1.64, 2.33, 3.09)  # quantiles of noise alone
FEWER, MORE = 5.0, 5.0  # times fewer or more picks than in any tomogram of the training
EXPECTED, FEWEST_MORE = 10, 20  # picks below which a number says nothing
FULL = 0.64  # share of the volume that spheres can fill
FAINT, FEWEST_FAINT = 0.25, 5  # share of the picks that were too faint to be particles; fewer are no reason
FAINTER = 0.5  # times as far as annotated particles do picks stand out at least
EVERYWHERE = 0.1  # share of the volume taken for middles of particles; theirs cannot be as much


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a verdict on the picks of one tomogram rests on.

    Attributes
    ----------
    n_picks : mapping
        Class id to the number of picks.
    thresholds, best_scores : mapping
        Class id to the lowest score of a pick, and to the best score of a candidate; no best score without one.
    volume_vox : float
        Working voxels of the tomogram.
    share : float
        Share of the volume with a probability above 1/2.
    portrait : Portrait or None
        What the tomogram looks like.
    voxel_size_ang : float
        Its voxel size as given, in angstrom.
    is_masked : bool
        Only a part of it was picked.
    unheld : sequence of Reason
        Why classes have no picks because of the false-discovery rate that was asked for.
    faint : Faint
        What was left out because it stands out too little.
    """

    n_picks: Mapping[int, int]
    thresholds: Mapping[int, float]
    best_scores: Mapping[int, float]
    volume_vox: float
    share: float
    portrait: Optional[Portrait]
    voxel_size_ang: float
    is_masked: bool = False
    unheld: Sequence[Reason] = ()
    faint: Faint = dataclasses.field(default_factory=Faint)


def judge(facts: Facts, card: ModelCard) -> Verdict:
    """Return the verdict on the picks of a tomogram; what looks wrong with the tomogram comes before numbers.

    Parameters
    ----------
    facts : Facts
        What was found.
    card : ModelCard
        Of the model; what its training saw is in ``training["seen"]``, which older models do not have.
    """
    seen = card.training.get("seen") or {}
    total = sum(facts.n_picks.values())
    reasons = [*_of_tomogram(facts, seen, card.voxel_size_ang), *facts.unheld]
    if not total and not facts.unheld:
        reasons.append(_none(facts, card.classes))
    elif total:
        reasons += [*_few(facts, card.classes, seen.get("density") or {}), *_many(facts, card, seen),
                    *_faint(facts, card.classes)]
    return Verdict(DOUBTFUL if reasons else GOOD, tuple(reasons), f"{total} picks")


def _of_tomogram(facts: Facts, seen: Mapping[str, Any], voxel_ang: float) -> List[Reason]:
    """Return in what a tomogram differs from those of the training."""
    if facts.portrait is None:
        return []
    theirs = [Portrait.from_dict(one) for one in seen.get("portraits") or ()]
    theirs = [one for one in theirs if len(one.standing_out) == len(facts.portrait.standing_out)]
    if not theirs:
        return []
    found, mean = [], np.mean([one.standing_out for one in theirs], axis=0)
    if is_mirrored(facts.portrait.standing_out, mean.tolist()):
        found.append(Reason("contrast", "what stands out in it at the size of particles is "
                            f"{_side(facts.portrait.standing_out)}, in the training it was {_side(mean)}",
                            "invert its contrast"))
    elif _excess(facts.portrait.standing_out) < STANDS_OUT * _excess(mean):
        found.append(Reason("nothing stands out", "at the size of particles there is little more in it than noise",
                            "look at it; check its voxel size and whether it is the reconstruction"))
    grain = _other_grain(facts.portrait, theirs)
    if grain:
        found.append(Reason("voxel size or filter", f"its grain is {grain} at {voxel_ang:.4g} angstrom than in the "
                            "tomograms of the training", f"check its voxel size ({facts.voxel_size_ang:.4g} angstrom "
                            "is assumed), and whether it was filtered or denoised in another way"))
    return found


def _side(quantiles: Sequence[float]) -> str:
    """Return what the most extreme of band-passed values are."""
    return "dark" if -quantiles[0] > quantiles[-1] else "bright"


def _excess(quantiles: Sequence[float]) -> float:
    """Return how far the extreme values go beyond those of noise, on the side where they go farther."""
    return max(NOISE[0] - quantiles[0], quantiles[-1] - NOISE[-1], 0.0)


def _other_grain(ours: Portrait, theirs: Sequence[Portrait]) -> str:
    """Return how the grain differs from all of the training: "2.1 times coarser"; empty when it does not."""
    known = [one.grain for one in theirs if len(one.grain) == len(ours.grain) and min(one.grain, default=0) > 0]
    if not known or min(ours.grain, default=0) <= 0:
        return ""
    own, low, high = np.log(ours.grain), np.log(np.min(known, axis=0)), np.log(np.max(known, axis=0))
    beyond = np.where(own > high, own - high, np.where(own < low, own - low, 0.0))
    strongest = float(beyond[np.argmax(np.abs(beyond))])
    if abs(strongest) < math.log(OTHER_GRAIN):
        return ""
    return f"{math.exp(abs(strongest)):.1f} times {'coarser' if strongest > 0 else 'finer'}"


def _none(facts: Facts, classes: Sequence[ClassCard]) -> Reason:
    """Return why nothing was picked."""
    if not facts.best_scores:
        return Reason("no picks", "there is no candidate above the floor",
                      "look at it; if it has particles, train on some of its kind")
    best = max(facts.best_scores, key=lambda c: facts.best_scores[c] - facts.thresholds[c])
    label = next(one.label for one in classes if one.id == best)
    return Reason("no picks", f"the best candidate of {label} scores {facts.best_scores[best]:.3g}, below the "
                  f"threshold of {facts.thresholds[best]:.3g}", "look at the candidates, or lower the threshold")


def _few(facts: Facts, classes: Sequence[ClassCard], density: Mapping[str, Sequence[float]]) -> List[Reason]:
    """Return of which classes many fewer were picked than the least crowded tomogram of the training has."""
    found = []
    for one in classes:
        least = min(density.get(str(one.id)) or [0.0]) * facts.volume_vox / 1e6
        count = facts.n_picks.get(one.id, 0)
        if not facts.is_masked and least >= EXPECTED and count * FEWER < least:
            found.append(Reason("few picks", f"{count} of {one.label}, as crowded as the emptiest tomogram of the "
                                f"training it would have {least:.0f}", "look at it; train on some of its particles"))
    return found


def _many(facts: Facts, card: ModelCard, seen: Mapping[str, Any]) -> List[Reason]:
    """Return what speaks for too many picks."""
    volumes = {c.id: math.pi / 6 * (c.diameter_ang / card.voxel_size_ang)**3 for c in card.classes}
    filled = sum(n * volumes[c] for c, n in facts.n_picks.items()) / facts.volume_vox
    advice = "raise the threshold or ask for a false-discovery rate (--fdr), and look at the picks"
    if filled > FULL:
        return [Reason("too many picks", f"spheres of their diameters would fill {filled:.0%} of the volume, "
                       f"{FULL:.0%} is the most that can be", advice)]
    if facts.share > EVERYWHERE:
        return [Reason("too many picks", f"{facts.share:.0%} of the volume passes for middles of particles",
                       "train on some tomograms of its kind")]
    found, density = [], seen.get("density") or {}
    for one in card.classes:
        most = max(density.get(str(one.id)) or [math.inf]) * facts.volume_vox / 1e6
        count = facts.n_picks.get(one.id, 0)
        if count >= FEWEST_MORE and count > MORE * max(most, 1.0) and seen.get("is_complete", True):
            found.append(Reason("many picks", f"{count} of {one.label}, as crowded as the fullest tomogram of the "
                                f"training it would have {most:.0f}", advice))
    return found


def _faint(facts: Facts, classes: Sequence[ClassCard]) -> List[Reason]:
    """Return of which classes much of what the network is sure of stands out too little."""
    found, advice = [], "look at the picks; correct some (review picks) and refine the model, or label more"
    for one in classes:
        count, share = facts.faint.counts.get(one.id, 0), facts.faint.shares.get(one.id, 1.0)
        every = count + facts.n_picks.get(one.id, 0)
        if count >= max(FEWEST_FAINT, FAINT * every):
            found.append(Reason("faint picks", f"{count} of {every} finds of {one.label} stand out less than half as "
                                "far as the faintest annotated particle and were left out", advice))
        if every >= FEWEST_FAINT and share < FAINTER:
            found.append(Reason("faint picks", f"even the better half of the picks of {one.label} stands out only "
                                f"{share:.2f} times as far as the annotated particles", advice))
    return found


def best_scores(scores: np.ndarray, class_ids: np.ndarray) -> Dict[int, float]:
    """Return the best score of each class among candidates (N,)."""
    return {int(c): float(scores[class_ids == c].max()) for c in np.unique(class_ids)}
