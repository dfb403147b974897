"""All parts of a training run, put together."""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, List, Optional

from deepetpicker.config import TrainOptions
from deepetpicker.network.predictor import Arithmetic
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.picking.picker import peak_rule
from deepetpicker.sampling.augment import Augmentation
from deepetpicker.sampling.gather import Gathered, annotate
from deepetpicker.sampling.holdout import split
from deepetpicker.sampling.patches import Annotated, PatchRule
from deepetpicker.training.given import Given
from deepetpicker.training.loop.processes import Processes
from deepetpicker.training.rounds import Origin
from deepetpicker.training.run_folder import RunFolder
from deepetpicker.training.validation import Validator

FEWEST_PATCHES = 64


@dataclasses.dataclass
class Job:
    """All parts of a training run.

    Attributes
    ----------
    options : TrainOptions
        As given.
    gathered : Gathered
        Checked input.
    train, validation : list of Annotated
        The regions to train on and those held out.
    whole : list of Annotated
        The tomograms that both are parts of.
    rule : PatchRule
        How patches are drawn.
    network : ResUNet3D
        Initialised.
    validator : Validator
        Scans the held-out regions.
    arithmetic : Arithmetic
        Device and number type.
    run : RunFolder
        Where everything is written.
    processes : Processes
        This process among those of the run.
    misfits : list of str
        What is odd about coordinates and diameters.
    origin : Origin, optional
        The model it starts from.
    found : dict
        Tomogram's name to the number of labels in it that a first training has found.
    """

    options: TrainOptions
    gathered: Gathered
    train: List[Annotated]
    validation: List[Annotated]
    whole: List[Annotated]
    rule: PatchRule
    network: ResUNet3D
    validator: Validator
    arithmetic: Arithmetic
    run: RunFolder
    processes: Processes
    misfits: List[str] = dataclasses.field(default_factory=list)
    origin: Optional[Origin] = None
    found: Dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def length(self) -> int:
        """Patches in an epoch: whole batches."""
        particles = sum(len(t.inside) for t in self.train)
        wanted = self.options.patches_per_epoch or max(FEWEST_PATCHES, particles)
        return self.options.batch * math.ceil(wanted / self.options.batch)

    @property
    def chosen_by(self) -> str:
        """What chooses the epoch to keep: ``picks``, ``voxels`` or ``last``."""
        return self.validator.chooses_by(self.options.select)


def make_job(given: Given, run: RunFolder, processes: Processes) -> Job:
    """Return all parts of a run; the warnings of what was gathered get what is odd about the held-out part.

    Parameters
    ----------
    given : Given
        What it is made of.
    run : RunFolder
        Where everything is written; tomograms at the working scale are kept there.
    processes : Processes
        This process among those of the run.
    """
    options, gathered, origin = given.options, given.gathered, given.origin
    tomograms = annotate(gathered, run.path / "cache")
    earlier = origin.items if origin and options.recipe == "refine" else ()
    kept, held = split(tomograms, options.validation, gathered.classes, gathered.warnings, earlier)
    rule = patch_rule(options, gathered)
    peaks = [peak_rule(c, gathered.voxel_size_ang, options.label) for c in gathered.classes]
    validator = Validator(held, rule, peaks, options.validation_tiles, options.alpha, given.network.stride)
    if options.select == "picks" and validator.against_picks and validator.n_particles:
        gathered.warnings.append(f"{validator.against_picks}: the epoch to keep is not chosen by the picks on the "
                                 "held-out part, but the last one is kept")
    arithmetic = Arithmetic.choose(options.device, options.precision)
    return Job(options, gathered, kept, held, tomograms, rule, given.network, validator, arithmetic, run, processes,
               origin=origin)


def patch_rule(options: TrainOptions, gathered: Gathered) -> PatchRule:
    """Return how patches are drawn."""
    return PatchRule(
        options.patch, options.jitter, options.background_fraction, options.label,
        {k: c.label_diameter_vox for k, c in enumerate(gathered.classes, 1)},
        {k: c.diameter_ang / gathered.voxel_size_ang for k, c in enumerate(gathered.classes, 1)},
        options.unannotated == "unknown",
        Augmentation(options.mirror, options.rotation, options.elastic, options.scaling), options.negative_fraction)
