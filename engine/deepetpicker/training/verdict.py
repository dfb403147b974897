"""What the held-out particles say about a trained model: for each class whether its picks can be trusted."""

from __future__ import annotations

from typing import List, Mapping, Sequence

from deepetpicker.evaluation.thresholds import ClassScore
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.sampling.holdout import no_particles, not_judged

LOWEST_F1 = 0.7
LIKE_TRUE, FEWEST_LIKE_TRUE = 0.5, 3


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
            found.append(poorly_picked(one, score))
    return found


def poorly_picked(one: ClassCard, score: ClassScore) -> str:
    """Return the warning for a class that was picked poorly on the held-out part."""
    if score.recall < score.precision:
        fault = f"{1 - score.recall:.0%} of its particles were missed"
    else:
        fault = f"{1 - score.precision:.0%} of its picks were false"
    return (f"{one.label}: pick F1 {score.f1:.2f} on {score.n_true} held-out particles is below "
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
