"""The refit: when the held-out particles have served to judge, the network goes on with them as labels, too.

Where labels are few, what is held out is much of them: half, of two tomograms. A last training on everything, from the
network that was judged, makes a better picker of it in the same time (docs/studies.rst). Thresholds, calibration and
verdict stay those of the judged network, for nothing is left to judge the last one by. So it is kept only if it picks
what was held out, which it has now seen, no worse at these thresholds, and a model file with a refitted network holds
the judged one, too: a training that goes on from it starts there, and its held-out part is new to it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np

from deepetpicker.calibration import calibrated
from deepetpicker.config import TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.evaluation.matching import match_by_distance
from deepetpicker.io.modelcard import ClassCard
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.training.job import Job
from deepetpicker.training.recipe import RECIPES
from deepetpicker.training.rounds import looked_of
from deepetpicker.training.run_folder import RunFolder
from deepetpicker.training.seen import with_scores
from deepetpicker.training.stages.selftraining import with_found

RATE = 1 / 2  # of the learning rate of the judged training
WORSE = 0.01  # a network that loses less is no worse
NEVER = 10**6  # epochs between validations: only at the end


@dataclasses.dataclass(frozen=True)
class Refit:
    """A training on everything that went on from the judged network.

    Attributes
    ----------
    weights : dict
        State of its last epoch.
    n_particles, n_new, epochs : int
        Labels it had, those of them that the judged training did not have, and its epochs.
    before, after : float
        What the picks of the judged network and of this one are worth on what was held out, which this one has seen:
        mean F1 of the classes, or mean recall where many particles are not annotated.
    found : dict
        Tomogram's name to the number of labels in it that the judged network has found.
    """

    weights: Mapping[str, Any]
    n_particles: int
    n_new: int
    epochs: int
    before: float
    after: float
    found: Dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def is_kept(self) -> bool:
        """Whether it picks no worse than the judged network."""
        return bool(self.after >= self.before - WORSE)

    def to_dict(self) -> Dict[str, Any]:
        """Return what card and manifest say of it, as JSON-ready values."""
        facts = {"kept": self.is_kept, "particles": self.n_particles, "new": self.n_new, "epochs": self.epochs,
                 "before": round(self.before, 4), "after": round(self.after, 4)}
        return {**facts, "found": self.found} if self.found else facts

    def __str__(self) -> str:
        end = "" if self.is_kept else ", which is worse: the network before it is kept"
        return (f"{self.epochs} epochs with all {self.n_particles} particles, {self.n_new} of which had been held out; "
                f"its picks of those, which it has seen now, are worth {self.after:.3f}, before {self.before:.3f}{end}")


def check(options: TrainOptions) -> None:
    """Refuse what cannot be done.

    Raises
    ------
    InputError
        If the user wants a refit on several devices.
    """
    if options.refit == "yes" and options.devices * options.nodes > 1:
        raise InputError("a refit was asked for on several devices: expected one (--devices 1 --nodes 1), or "
                         "--refit no")


def is_wanted(options: TrainOptions, job: Job) -> bool:
    """Tell whether a run goes on with what was held out: as the user says, else as the recipe does.

    It does not where the user says how many epochs there are or what is held out, where much is not annotated (it
    gained nothing there), and where nothing would be new.

    Parameters
    ----------
    options : TrainOptions
        As the user gave them.
    job : Job
        The run.
    """
    if options.refit == "no" or options.devices * options.nodes > 1 or not _n_new(job):
        return False
    is_usual = RECIPES[options.recipe].refits and options.unannotated != "unknown"
    return options.refit == "yes" or (is_usual and not options.epochs and not options.validation)


def _n_new(job: Job) -> int:
    """Return the number of annotated particles that are held out and not trained on."""
    trained = sum(len(t.inside) for t in job.train) - sum(job.found.values())
    return sum(len(t.inside) for t in job.whole) - trained


def job_of(job: Job, options: TrainOptions, best: Mapping[str, Any]) -> Job:
    """Return the parts of the refit, which has its own folder in the run's.

    Parameters
    ----------
    job : Job
        The judged run.
    options : TrainOptions
        From :func:`budget.of_refit`.
    best : mapping
        The kept epoch of the judged run.
    """
    network = ResUNet3D(job.network.options)
    network.load_state_dict(best["weights"])
    options = dataclasses.replace(options, patches_per_epoch=job.length, patience=0, validate_every=NEVER,
                                  learning_rate=RATE * job.options.learning_rate)
    whole, counts = with_found(dataclasses.replace(job, train=job.whole), best["weights"]) if job.found else (
        job.whole, {})
    return dataclasses.replace(job, options=options, network=network, train=whole, found=counts,
                               run=RunFolder(job.run.path / f"{job.run.model.stem}_refit.safetensors"))


def result(job: Job, last: Job, best: Mapping[str, Any], end: Mapping[str, Any], n_epochs: int) -> Refit:
    """Return what became of a refit.

    Parameters
    ----------
    job, last : Job
        The judged run, and the refit.
    best, end : mapping
        The kept epoch of the judged run, and the last of the refit.
    n_epochs : int
        Of the refit.
    """
    classes = with_scores(job.gathered.classes, best)
    radii = {rule.class_id: rule.diameter_vox / 2 for rule in job.validator.peak_rules}
    before, after = (worth(one["looked"], classes, radii, job.validator.is_unknown, best["threshold"])
                     for one in (best, end))
    n_particles = sum(len(t.inside) for t in job.whole)
    return Refit(end["weights"], n_particles, _n_new(job), n_epochs, before, after, last.found)


def worth(looked: Sequence[Mapping[str, Any]], classes: Sequence[ClassCard], radii_vox: Mapping[int, float],
          is_unknown: bool = False, threshold: Optional[float] = None) -> float:
    """Return what the picks in the held-out part are worth at the thresholds of the classes, as a mean over them.

    Parameters
    ----------
    looked : sequence of mapping
        What was found there, from ``callbacks.rows_of``.
    classes : sequence of ClassCard
        With thresholds and calibrations.
    radii_vox : mapping
        Class id to the largest distance of a hit, in working voxels.
    is_unknown : bool
        Whether many particles are not annotated: recall is the worth then, else F1.
    threshold : float, optional
        Of classes that have none.

    Returns
    -------
    float
        NaN when nothing is held out.
    """
    tables, values = [looked_of(one) for one in looked], []
    for one in classes:
        limit = threshold if one.threshold is None else one.threshold
        n_true = n_picks = n_hits = 0
        for part in tables:
            truth = part.truth.select(part.truth.class_ids == one.id)
            found = part.found.select(part.found.class_ids == one.id)
            scores = calibrated(found.scores, found.class_ids, {one.id: one.calibration})
            match = match_by_distance(truth, found.select(scores >= (limit or 0.0)), radii_vox[one.id])
            n_true, n_picks, n_hits = n_true + match.n_truth, n_picks + match.n_picks, n_hits + match.tp
        if n_true:
            values.append(n_hits / n_true if is_unknown else 2 * n_hits / (n_true + n_picks))
    return float(np.mean(values)) if values else float("nan")
