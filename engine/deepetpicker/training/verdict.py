"""What a training says about itself: doubts about single classes, and one verdict with cause and remedy."""

from __future__ import annotations

import dataclasses
import itertools
from typing import List, Mapping, Optional, Sequence

import numpy as np

from deepetpicker.evaluation.thresholds import FEWEST, ClassScore
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.preparation.portrait import is_mirrored
from deepetpicker.sampling.holdout import no_particles, not_judged
from deepetpicker.verdict import Reason, Verdict

FALSE_UNKNOWN = "how many of its picks are false is not known where not all is annotated: look at them (review)"
LOWEST_F1 = 0.7
LIKE_TRUE, FEWEST_LIKE_TRUE = 0.5, 2
USABLE_F1 = 0.4  # below it a model is of no use
FLAT = 0.02  # a loss that fell by a smaller share of itself has not fallen
STILL_FALLING = 0.15  # share of the whole fall that falls to the last fifth of the run
FEWEST_STEPS = 100
INCOMPLETE, FALSE = "labels incomplete", "false picks"  # causes
SWAPPED = 0.4  # share of two classes' particles that pass for the other one
WORSE = 0.01  # a model that loses less of its F1 is not worse


@dataclasses.dataclass(frozen=True)
class Change:
    """How a model picks the held-out part that goes on from another one.

    Attributes
    ----------
    before, after : float
        Mean F1 of the classes that both know, on the same held-out part: of the other model and of this one.
    n_true : int
        Held-out particles.
    is_fair : bool
        False when the other model may have been trained on what is held out now.
    """

    before: float
    after: float
    n_true: int
    is_fair: bool = True

    @property
    def is_worse(self) -> bool:
        """True if enough held-out particles say that the other model was better."""
        return self.n_true >= FEWEST and self.after < self.before - WORSE

    def __str__(self) -> str:
        unfair = "" if self.is_fair else ", on some of which the model before was trained"
        few = ", too few to tell" if self.n_true < FEWEST else ""
        return (f"on the same held-out part ({self.n_true} particles{few}{unfair}): before F1 {self.before:.2f}, after "
                f"F1 {self.after:.2f}")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a verdict rests on.

    Attributes
    ----------
    scores, classes, n_particles, is_unknown
        As :func:`doubts` takes them.
    curve : sequence of dict
        Metrics of every epoch, with ``train_loss``.
    n_steps : int
        Optimiser steps of the whole run.
    misfits : sequence of str
        What was odd about coordinates and diameters before the training.
    quantiles, started_quantiles : sequence of float
        Of the normalised grey values of the tomograms, and of those of the model to start from; empty without one.
    change : Change, optional
        Against the model to start from.
    taken_for : mapping
        Held-out tomogram to how many particles of each class pass for each class there, (C, C + 1) int, last: none.
    is_refitted : bool
        Whether the network went on with the held-out particles after it was judged.
    """

    scores: Sequence[ClassScore]
    classes: Sequence[ClassCard]
    n_particles: Mapping[int, int]
    curve: Sequence[Mapping[str, float]]
    n_steps: int
    misfits: Sequence[str] = ()
    is_unknown: bool = False
    quantiles: Sequence[float] = ()
    started_quantiles: Sequence[float] = ()
    change: Optional[Change] = None
    taken_for: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    is_refitted: bool = False


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict on a training.

    A model is good when every class was picked well on enough held-out particles and nothing about the data is odd; it
    is not usable when the mean F1 (recall, where many particles were not annotated) is below 0.4.
    """
    judged = [s for s in evidence.scores if s.n_true]
    worths = [s.recall if evidence.is_unknown else s.f1 for s in judged]
    mean, n_held = (sum(worths) / len(worths) if worths else float("nan")), sum(s.n_true for s in judged)
    data = _of_data(evidence)
    classes = _of_classes(evidence, n_held)
    is_poor = not worths or min(worths) < LOWEST_F1
    hurts = [_of_learning(evidence)] if is_poor else []
    unmarked = [reason for reason in classes if reason.cause == INCOMPLETE]  # no longer training helps against it
    reasons = [*_of_change(evidence), *_of_confusion(evidence), *data, *unmarked, *(r for r in hurts if r),
               *(reason for reason in classes if reason not in unmarked)]
    grade = "good" if not reasons else "not usable" if worths and mean < USABLE_F1 and n_held >= FEWEST else "doubtful"
    name = "recall" if evidence.is_unknown else "F1"
    later = ", before it went on with them" if evidence.is_refitted else ""
    figures = (f"mean {name} of its picks {mean:.2f} on {n_held} held-out particles{later}" if judged
               else "no held-out particles")
    figures += f"; {FALSE_UNKNOWN}" if grade == "good" and evidence.is_unknown else ""
    change = "" if evidence.change is None or evidence.change.is_worse else f"; {evidence.change}"  # a reason says it
    return Verdict(grade, tuple(reasons), figures + change)


def _of_change(evidence: Evidence) -> List[Reason]:
    """Return that the model is worse than the one it goes on from, when it is."""
    if evidence.change is None or not evidence.change.is_worse:
        return []
    return [Reason("worse than before", str(evidence.change), "go on with the model it started from; correct "
                   "more of its picks, or check the corrections")]


def _of_data(evidence: Evidence) -> List[Reason]:
    """Return what is wrong with the data, whatever was learnt."""
    found = []
    if is_mirrored(evidence.quantiles, evidence.started_quantiles):
        found.append(Reason("contrast", "the grey values are those of the model to start from turned round",
                            "invert the contrast of the tomograms (dark particles for bright ones), or train without "
                            "--init"))
    found += [Reason("coordinates or diameter", text, "correct them (deepetpicker check) and train again")
              for text in evidence.misfits]
    return found


def _of_learning(evidence: Evidence) -> Optional[Reason]:
    """Return why too little was learnt, as the losses tell it; None when they say nothing."""
    losses = np.array([row["train_loss"] for row in evidence.curve], float)
    losses = losses[np.isfinite(losses)]
    longer = "train longer (--epochs or --minutes)"
    if len(losses) < 3 or evidence.n_steps < FEWEST_STEPS // 4:
        return Reason("too few steps", f"only {evidence.n_steps} steps in {len(evidence.curve)} epoch(s)", longer)
    part = max(1, len(losses) // 5)
    first, last = losses[:part].mean(), losses[-part:].mean()
    if first - last < FLAT * abs(first):
        return Reason("loss not falling", f"the loss went from {first:.3f} to {last:.3f} in {len(losses)} epochs",
                      "leave --learning-rate to the recipe; if it was, check coordinates and diameter")
    late = losses[-2 * part:-part].mean() - last
    if late > STILL_FALLING * (first - last) or evidence.n_steps < FEWEST_STEPS:
        return Reason("too few steps", f"the loss still fell at the end ({losses[-1]:.3f} after {evidence.n_steps} "
                      "steps)", longer)
    return None


def _of_confusion(evidence: Evidence) -> List[Reason]:
    """Return which two classes pass for each other, and where: their ids do not mean the same in every table."""
    found = []
    for i, j in itertools.combinations(range(len(evidence.classes)), 2):
        swapped = {name: counts for name, counts in evidence.taken_for.items() if _are_swapped(counts, i, j)}
        total = np.sum(list(evidence.taken_for.values()), axis=0) if evidence.taken_for else None
        if total is None or not (swapped or _are_swapped(total, i, j)):
            continue
        one, other = evidence.classes[i], evidence.classes[j]
        counts = np.sum(list(swapped.values()), axis=0) if swapped else total
        where = f" in {', '.join(swapped)}" if swapped and len(swapped) < len(evidence.taken_for) else ""
        text = (f"{counts[i, j]} of {counts[i].sum()} held-out particles of {one.label} pass for {other.label}, and "
                f"{counts[j, i]} of {counts[j].sum()} the other way round{where}")
        found.append(Reason("classes swapped", text,
                            "look whether their ids mean the same in every table (classes.json, --class-map); if they "
                            "do, label more of both, or train longer"))
    return found


def _are_swapped(counts: np.ndarray, i: int, j: int) -> bool:
    """Tell whether much of each of two classes passes for the other, by (C, C + 1) counts that are enough to tell."""
    return all(counts[a].sum() >= FEWEST and counts[a, b] >= SWAPPED * counts[a].sum() for a, b in ((i, j), (j, i)))


def _of_classes(evidence: Evidence, n_held: int) -> List[Reason]:
    """Return what the held-out particles say of each class, the common cause first."""
    found = []
    if n_held < FEWEST:
        found.append(Reason("held-out part too small", f"{n_held} particle(s) to judge by, {FEWEST} would do",
                            "label more, best in another tomogram, and look at the picks by eye"))
    for one, score in zip(evidence.classes, evidence.scores):
        worth = score.recall if evidence.is_unknown else score.f1
        if not evidence.n_particles.get(one.id):
            found.append(Reason("class without particles", f"{one.label} has none", "label some, or leave it out"))
        elif not score.n_true:
            found.append(Reason("class not judged", f"no particle of {one.label} is held out", "label more of it"))
        elif not evidence.is_unknown and looks_incomplete(score):
            found.append(Reason(INCOMPLETE, incomplete(one, score), "look at them; if they are particles, annotate "
                                "them or train with --unannotated unknown (What is not annotated: unknown)"))
        elif not score.recall > 0:
            found.append(Reason("class without hits", f"none of {score.n_true} held-out particles of {one.label} was "
                                "found", "check its positions, diameter and class, or label more of it"))
        elif worth < LOWEST_F1:
            kind = "particles missed" if evidence.is_unknown or score.recall < score.precision else FALSE
            unmarked = ("" if kind != FALSE else "; if some of the false ones are particles, "
                        "train with --unannotated unknown (What is not annotated: unknown)")
            found.append(Reason(kind, poorly_picked(one, score, evidence.is_unknown),
                                "look at its picks, label more, or train longer" + unmarked))
    return found


def doubts(scores: Sequence[ClassScore], classes: Sequence[ClassCard], n_particles: Mapping[int, int],
           is_unknown: bool = False) -> List[str]:
    """Return a warning for each class whose picks should not be trusted unseen; none when all is well.

    Parameters
    ----------
    scores : sequence of ClassScore
        How well each class was picked on the held-out part in the kept epoch.
    classes : sequence of ClassCard
        The classes, in the same order.
    n_particles : mapping
        Class id to its annotated particles, held out or not.
    is_unknown : bool
        True when many particles were not annotated: false picks say little then, and recall counts instead of F1.
    """
    found = []
    for one, score in zip(classes, scores):
        if not n_particles.get(one.id):
            found.append(no_particles(one))
        elif not score.n_true:
            found.append(not_judged(one, n_particles[one.id]))
        elif not is_unknown and looks_incomplete(score):
            found.append(incomplete(one, score))
        elif (score.recall if is_unknown else score.f1) < LOWEST_F1:
            found.append(poorly_picked(one, score, is_unknown))
    return found


def poorly_picked(one: ClassCard, score: ClassScore, is_unknown: bool = False) -> str:
    """Return the warning for a class that was picked poorly on the held-out part; where much is unknown, by recall."""
    figure = f"recall {score.recall:.2f}" if is_unknown else f"pick F1 {score.f1:.2f}"
    if is_unknown or score.recall < score.precision:
        fault = f"{1 - score.recall:.0%} of its particles were missed"
    else:
        fault = f"{1 - score.precision:.0%} of its picks were false"
    return (f"{one.label}: {figure} on {score.n_true} held-out particles is below "
            f"{LOWEST_F1:g}, {fault}: check its positions, diameter and class by eye, label more particles, or train "
            "longer; do not use its picks unseen")


def looks_incomplete(score: ClassScore) -> bool:
    """Return True if many held-out picks that hit nothing score like those that do."""
    return score.n_like_true >= max(FEWEST_LIKE_TRUE, LIKE_TRUE * score.n_true)


def incomplete(one: ClassCard, score: ClassScore) -> str:
    """Return the warning for a class of which many particles seem not to be annotated."""
    return (f"{one.label}: {score.n_like_true} held-out picks where no particle is annotated score as well as the "
            f"{score.n_true} annotated ones: look at them; if they are particles, annotate them or train with "
            f"--unannotated unknown, else train longer (pick F1 {score.f1:.2f})")
