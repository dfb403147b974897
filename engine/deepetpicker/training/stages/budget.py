"""How the stages of a training share its epochs or minutes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from deepetpicker.config import TrainOptions
from deepetpicker.training.recipe import epochs_for

FIRST_SHARE = 1 / 2  # of a training and a first one before it
LONGER = 4 / 3  # both together, where the recipe chooses how long one takes
JUDGED_SHARE = 1 / 2  # of the minutes of a training with a refit; more where the recipe's epochs need it
REFIT_SHARE = 1 / 3  # of the epochs of both
LEAST = 0.2  # of the judged training's time must be left, or a refit is not worth its start


def with_first(options: TrainOptions, n_classes: int, patches_per_epoch: int) -> Tuple[TrainOptions, TrainOptions]:
    """Return the options of a first and of a second training, which divide the epochs or minutes that are given.

    Parameters
    ----------
    options : TrainOptions
        With the recipe's values filled in.
    n_classes : int
        Number of particle classes.
    patches_per_epoch : int
        Of the labels there are; more labels do not make an epoch longer.
    """
    same: Dict[str, Any] = {"patches_per_epoch": patches_per_epoch}
    if options.minutes and not options.epochs:
        parts: Sequence[Dict[str, Any]] = [{"minutes": options.minutes * share} for share in
                                           (FIRST_SHARE, 1 - FIRST_SHARE)]
    else:
        whole = options.epochs or round(LONGER * epochs_for(n_classes, patches_per_epoch, options.recipe))
        first = math.ceil(whole * FIRST_SHARE)
        parts = [{"epochs": first, "minutes": options.minutes * FIRST_SHARE},
                 {"epochs": max(1, whole - first), "minutes": options.minutes * (1 - FIRST_SHARE)}]
    first_of, second_of = (dataclasses.replace(options, **same, **part) for part in parts)
    return first_of, second_of


def without_refit(options: TrainOptions) -> TrainOptions:
    """Return the options of what comes before a refit, which gets a third of the epochs that are given."""
    return dataclasses.replace(options, epochs=options.epochs - int(options.epochs * REFIT_SHARE))


def of_refit(options: TrainOptions, curve: Sequence[Mapping[str, float]]) -> Optional[TrainOptions]:
    """Return epochs and minutes of a refit, none longer than the judged training; None when too little time is left.

    Parameters
    ----------
    options : TrainOptions
        Of the judged training.
    curve : sequence of dict
        Its metrics, with the ``seconds`` of each epoch.
    """
    epochs = max(1, round(len(curve) * REFIT_SHARE / (1 - REFIT_SHARE)))
    if not options.minutes:
        return dataclasses.replace(options, epochs=epochs)
    took = sum(row["seconds"] for row in curve) / 60
    if options.minutes - took < LEAST * took:
        return None
    return dataclasses.replace(options, epochs=epochs if options.epochs else len(curve), minutes=options.minutes - took)
