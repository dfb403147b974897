"""All parts of a training run, put together."""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, List, Optional

from deepetpicker.config import TrainOptions
from deepetpicker.network.predictor import Arithmetic
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.sampling.gather import Gathered
from deepetpicker.sampling.patches import Annotated, PatchRule
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
    found_oddly : list of str
        What is odd about them.
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
    found_oddly: List[str] = dataclasses.field(default_factory=list)

    @property
    def length(self) -> int:
        """Patches in an epoch: whole batches."""
        particles = sum(len(t.inside) for t in self.train)
        wanted = self.options.patches_per_epoch or max(FEWEST_PATCHES, particles)
        return self.options.batch * math.ceil(wanted / self.options.batch)

    @property
    def chosen_by(self) -> str:
        """What chooses the epoch to keep: ``picks`` or ``voxels``."""
        return self.validator.chooses_by(self.options.select)
