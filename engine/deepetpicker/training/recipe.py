"""What a training does where the user says nothing: the default recipe and the published one."""

from __future__ import annotations

import dataclasses
import math
from typing import Dict, Sequence, Tuple

from deepetpicker.config import TrainOptions

SMALLEST_PATCH, LARGEST_PATCH = 32, 72
PATCH_SHARE = 1.2
STEP_OF_PATCH = 8
MANY = 30  # particles that are learnt, not learnt by heart, at the learning rate of a start from chance
LEFT_AT_0 = ("patch", "batch", "epochs", "learning_rate", "validate_every", "widths")
LEFT_BELOW_0 = ("cross_entropy", "balance", "prior", "averaging", "patience")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The values of the options that are left to the recipe; they have the options' names.

    Attributes
    ----------
    patch : int
        Edge of a patch in voxels; 0 follows the largest particle.
    batch : int
        Patches in a step.
    epochs : int
        Passes over the patches; 0 follows the number of classes.
    widths, cpu_widths : tuple of int
        Channels of each level of the network, on a GPU and on a CPU.
    patches_per_class : int
        Patches that a run without a number of epochs shows for each class, and once more.
    starts_generic : bool
        Whether a training starts from the generic model where the network has its architecture.
    warm_learning_rate : float
        Learning rate of a training of one class with few labels that starts from the generic model, which nearly knows
        it; several classes have to be told apart, which is new to it: they are learnt as from chance. 0 is the same as
        from chance.
    trains_itself : bool
        Whether a training where many particles are not annotated goes on with those that it finds
        (``stages.selftraining``).
    second_learning_rate : float
        Learning rate of the second training then, in the place of ``warm_learning_rate``.
    refits : bool
        Whether a training goes on with what was held out when that has served to judge it (``stages.refit``).
    learning_rate, cross_entropy, balance, prior, averaging, patience, validate_every
        As in ``TrainOptions``; validate_every 0 spreads some validations over the run.
    """

    patch: int
    batch: int
    epochs: int
    learning_rate: float
    cross_entropy: float
    balance: float
    prior: float
    averaging: float
    patience: int
    validate_every: int
    widths: Tuple[int, ...] = (24, 48, 72, 108)
    cpu_widths: Tuple[int, ...] = (24, 48, 72, 108)
    patches_per_class: int = 1500
    starts_generic: bool = False
    warm_learning_rate: float = 0.0
    trains_itself: bool = False
    second_learning_rate: float = 0.0
    refits: bool = False


RECIPES: Dict[str, Recipe] = {
    "default": Recipe(patch=0, batch=8, epochs=0, learning_rate=4e-3, cross_entropy=1.0, balance=0.5, prior=0.01,
                      averaging=0.97, patience=5, validate_every=0, cpu_widths=(16, 32, 48, 64), starts_generic=True,
                      warm_learning_rate=5e-4, trains_itself=True, second_learning_rate=2e-3, refits=True),
    "published": Recipe(patch=72, batch=8, epochs=60, learning_rate=1e-3, cross_entropy=0.0, balance=0.0, prior=0.0,
                        averaging=0.0, patience=0, validate_every=1),
    "refine": Recipe(patch=0, batch=8, epochs=0, learning_rate=1e-3, cross_entropy=1.0, balance=0.5, prior=0.01,
                     averaging=0.97, patience=5, validate_every=0, cpu_widths=(16, 32, 48, 64), patches_per_class=600,
                     refits=True),
}


def filled_in(options: TrainOptions, diameters_vox: Sequence[float], on_gpu: bool = False,
              widths: Sequence[int] = (), starts_generic: bool = False, n_particles: int = 0) -> TrainOptions:
    """Return the options with the values that are left to the recipe; epochs may stay 0.

    Parameters
    ----------
    options : TrainOptions
        As the user gave them.
    diameters_vox : sequence of float
        Diameter of each class in working voxels.
    on_gpu : bool
        Whether a GPU trains.
    widths : sequence of int
        Of the model to start from; they go before the recipe's.
    starts_generic : bool
        Whether that is the generic model.
    n_particles : int
        Annotated ones.
    """
    recipe = RECIPES[options.recipe]
    left = [name for name in LEFT_AT_0 if not getattr(options, name)]
    left += [name for name in LEFT_BELOW_0 if getattr(options, name) < 0]
    values = {name: getattr(recipe, name) for name in left}
    if options.minutes and "epochs" in values:
        values["epochs"] = 0
    if "widths" in values:
        values["widths"] = tuple(widths) or (recipe.widths if on_gpu else recipe.cpu_widths)
    if "learning_rate" in values and starts_generic and len(diameters_vox) == 1 and n_particles < MANY:
        values["learning_rate"] = recipe.warm_learning_rate or recipe.learning_rate
    if values.get("patch") == 0:
        values["patch"] = patch_for(max(diameters_vox))
    return dataclasses.replace(options, **values)


def second_rate(options: TrainOptions, filled: TrainOptions) -> float:
    """Return the learning rate of a training with the particles that a first one has found.

    Parameters
    ----------
    options, filled : TrainOptions
        As the user gave them, and with the recipe's values.
    """
    recipe = RECIPES[options.recipe]
    is_warm = not options.learning_rate and filled.learning_rate == recipe.warm_learning_rate
    return recipe.second_learning_rate if is_warm and recipe.second_learning_rate else filled.learning_rate


def patch_for(diameter_vox: float) -> int:
    """Return the edge of a patch for the largest particle, in voxels.

    1.2 diameters: hardly more than the particle. Small patches hold little background, and many of them are seen in a
    short time (docs/studies.rst); a multiple of 8 from 32 to 72.

    Parameters
    ----------
    diameter_vox : float
        In working voxels.
    """
    edge = STEP_OF_PATCH * math.ceil(PATCH_SHARE * diameter_vox / STEP_OF_PATCH - 0.5)
    return min(max(edge, SMALLEST_PATCH), LARGEST_PATCH)


def epochs_for(n_classes: int, patches_per_epoch: int, recipe: str = "default") -> int:
    """Return the number of epochs that show the network a recipe's patches for each class (1500) and as many more.

    Parameters
    ----------
    n_classes : int
        Number of particle classes.
    patches_per_epoch : int
        Patches in an epoch.
    recipe : str
        Name of the recipe.
    """
    return max(1, math.ceil(RECIPES[recipe].patches_per_class * (n_classes + 1) / patches_per_epoch))
