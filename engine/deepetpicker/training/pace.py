"""How fast a machine trains, found out before the start: the plan of a run and what to tell the user."""

from __future__ import annotations

import dataclasses
import math
import time

import torch

from deepetpicker.config import NetworkOptions, TrainOptions
from deepetpicker.network.predictor import Arithmetic, Predictor
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.sampling.patches import ParticlePatches
from deepetpicker.training.loop.schedule import FIRST_LOOK, LOOKS, Schedule
from deepetpicker.training.recipe import epochs_for
from deepetpicker.training.validation import Validator

TIMED_STEPS = 2
SHORT_STEPS = 100  # of a run, after which the time it takes needs no good estimate
MOST_TIMES_THE_RECIPE = 20
FEWEST_LOOKS, LOOKING = 2, 0.15


@dataclasses.dataclass(frozen=True)
class Pace:
    """What the parts of a training take, in seconds.

    Attributes
    ----------
    step_s : float
        An optimiser step with the preparation of its patches; 0 when it was not measured.
    validation_s : float
        A scan of the held-out part.
    spent_s : float
        What measuring took.
    """

    step_s: float = 0.0
    validation_s: float = 0.0
    spent_s: float = 0.0

    def seconds(self, epochs: int, steps_per_epoch: int, validate_every: int, looks: int = LOOKS) -> float:
        """Return how long a number of epochs takes, in seconds.

        Parameters
        ----------
        epochs, steps_per_epoch : int
            What is planned.
        validate_every : int
            Epochs between validations; 0 spreads some over the run.
        looks : int
            How many.
        """
        spread = math.ceil((1 - FIRST_LOOK) * min(looks, epochs))
        scans = spread if validate_every == 0 else -(-epochs // validate_every)
        return epochs * steps_per_epoch * self.step_s + scans * self.validation_s

    def in_words(self, schedule: Schedule, options: TrainOptions, done: int = 0) -> str:
        """Return what is going to happen and how long it takes.

        Parameters
        ----------
        schedule : Schedule
            The plan.
        options : TrainOptions
            With the recipe's values filled in.
        done : int
            Epochs that an interrupted run has behind it.
        """
        left = schedule.epochs - done
        seconds = self.seconds(left, schedule.steps_per_epoch, options.validate_every, schedule.looks)
        bound = f", at most {options.minutes:g} min" if options.minutes else ""
        stop = ", less when the held-out picks no longer improve" if options.patience else ""
        start = f"going on after epoch {done}, " if done else ""
        return (f"{start}{options.recipe} recipe: {left} epochs of {schedule.steps_per_epoch} steps with "
                f"{options.batch} patches of {options.patch} voxels; about {minutes(seconds)}{bound}{stop} "
                f"({self.step_s:.2g} s per step, {self.validation_s:.2g} s per validation)")


def minutes(seconds: float) -> str:
    """Return a time in words: seconds below two minutes, hours above two."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def measure(network: NetworkOptions, dataset: ParticlePatches, validator: Validator, options: TrainOptions,
            arithmetic: Arithmetic) -> Pace:
    """Return the pace of this machine, from a few steps and a tile with a network of its own; one step if few follow.

    Parameters
    ----------
    network : NetworkOptions
        What is trained.
    dataset : ParticlePatches
        Where patches come from.
    validator : Validator
        Knows how many tiles a validation has.
    options : TrainOptions
        With the recipe's values filled in.
    arithmetic : Arithmetic
        Device and number type.
    """
    start, device = time.perf_counter(), arithmetic.device
    with torch.random.fork_rng(devices=[]):
        model = ResUNet3D(network).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
    images = torch.stack([dataset[0, k % len(dataset)][0] for k in range(options.batch)])
    drawn_s = 0.0 if device.type == "cuda" else time.perf_counter() - start
    steps = []
    is_short = 0 < options.epochs * len(dataset) <= SHORT_STEPS * options.batch
    for _ in range(2 if is_short else 1 + TIMED_STEPS):
        begin = time.perf_counter()
        with torch.autocast(device.type, arithmetic.dtype, enabled=arithmetic.dtype != torch.float32):
            logits = model(images.to(device).contiguous(memory_format=torch.channels_last_3d))
        logits.float().square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        _wait(device)
        steps.append(time.perf_counter() - begin)
    tile_s = Predictor(model, arithmetic).warm_up(validator.tile, 1 if is_short else 2) * validator.tile**3
    return Pace(min(steps[1:]) + drawn_s, tile_s * validator.n_tiles, time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    """Wait until a GPU has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def plan(options: TrainOptions, n_classes: int, steps_per_epoch: int, pace: Pace, share: float = 1.0) -> Schedule:
    """Return the plan of a run: the epochs asked for, those of the recipe, or those that fit the time.

    Parameters
    ----------
    options : TrainOptions
        With the recipe's values filled in.
    n_classes : int
        Number of particle classes.
    steps_per_epoch : int
        Optimiser steps of an epoch.
    pace : Pace
        Of this machine.
    share : float
        Of the minutes, where more is left for what comes after: of the rest it takes what the recipe's number of
        epochs needs.
    """
    usual = epochs_for(n_classes, steps_per_epoch * options.batch, options.recipe)
    epochs, limit = options.epochs or usual, 60 * options.minutes - pace.spent_s
    if not options.minutes:
        return Schedule(epochs, steps_per_epoch)
    whole = _within(limit, options.epochs or usual, steps_per_epoch, options.validate_every, pace)
    if share < 1 and pace.seconds(usual, steps_per_epoch, options.validate_every, whole.looks) > share * limit:
        return whole
    return _within(share * limit, options.epochs or MOST_TIMES_THE_RECIPE * usual, steps_per_epoch,
                   options.validate_every, pace)


def _within(limit_s: float, most: int, steps_per_epoch: int, validate_every: int, pace: Pace) -> Schedule:
    """Return the plan of the epochs, at most so many, that fit a time."""
    looks = min(LOOKS, max(FEWEST_LOOKS, int(LOOKING * limit_s / max(pace.validation_s, 1e-9))))
    fitting = 1
    while fitting < most and pace.seconds(fitting + 1, steps_per_epoch, validate_every, looks) < limit_s:
        fitting += 1
    return Schedule(fitting, steps_per_epoch, max(limit_s, 1e-3), looks, most)
