"""How long a training goes on, and the learning rate on the way: by epochs, by the clock and by what is gained."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, List, Sequence

WARM_UP, INITIAL_DIVISOR, FINAL_DIVISOR = 0.1, 30.0, 100.0
COOL_DOWN = 0.2
LOOKS, FIRST_LOOK = 10, 0.2
GAIN = 0.005
SOUND = 0.5
RECENT = 5
REVISED_BY = 0.1


def cycle_rate(share: float) -> float:
    """Return the learning rate as a share of the peak, at a share (0 to 1) of the run.

    Cosines from 1/30 up to 1 in the first tenth of the run, and down to 1/3000 at its end.
    """
    low, last = 1 / INITIAL_DIVISOR, 1 / INITIAL_DIVISOR / FINAL_DIVISOR
    if share < WARM_UP:
        return low + (1 - low) * (1 - math.cos(math.pi * share / WARM_UP)) / 2
    down = min((share - WARM_UP) / (1 - WARM_UP), 1.0)
    return last + (1 - last) * (1 + math.cos(math.pi * down)) / 2


@dataclasses.dataclass
class Schedule:
    """The plan of a run: how many epochs, revised at the end of one when the clock or the validations ask for it.

    The run is a way from 0 to 1. A revision changes how fast the rest of it is gone, never where the run stands, so
    that the learning rate makes no jump. What is computed depends on the plans alone, which ``history`` lists.

    Attributes
    ----------
    epochs : int
        Planned in all.
    steps_per_epoch : int
        Optimiser steps of an epoch.
    limit_s : float
        Seconds that the run may take; 0 is no limit.
    looks : int
        Validations that are spread over the run.
    most_epochs : int
        However much time is left, no more epochs than this are made.
    start_step, start_share : int, float
        Where the run stood when the present plan was made.
    history : list of [int, int]
        First step and number of epochs of every plan.
    """

    epochs: int
    steps_per_epoch: int
    limit_s: float = 0.0
    looks: int = LOOKS
    most_epochs: int = 0
    start_step: int = 0
    start_share: float = 0.0
    history: List[List[int]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.most_epochs = self.most_epochs or self.epochs
        self.history = self.history or [[0, self.epochs]]

    def share(self, step: int) -> float:
        """Return the share of the run, 0 to 1, that a step (from 0) stands at."""
        last = self.epochs * self.steps_per_epoch - 1
        if last <= self.start_step:
            return max(self.start_share, WARM_UP)
        part = min(max(step - self.start_step, 0) / (last - self.start_step), 1.0)
        return self.start_share + (1 - self.start_share) * part

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a share of the peak."""
        return cycle_rate(self.share(step))

    def looks_after(self, epoch: int) -> bool:
        """Return True if the held-out part is to be scanned after an epoch (from 0): ``looks`` times, evenly spread.

        Not in the first fifth of a run, when little has been learnt, but always after the last epoch.
        """
        if self.is_over(epoch + 1):
            return True
        shares = [self.share(k * self.steps_per_epoch) for k in (epoch, epoch + 1)]
        before, after = (math.floor(self.looks * share + 1e-9) for share in shares)
        return after > before and shares[1] >= FIRST_LOOK

    def is_over(self, done: int) -> bool:
        """Return True if no epoch is left after so many."""
        return done >= self.epochs

    def keep_time(self, seconds: Sequence[float], reserve_s: float = 0.0) -> None:
        """Revise the plan by the clock.

        Parameters
        ----------
        seconds : sequence of float
            How long each epoch so far took, its validation included.
        reserve_s : float
            What must be left at the end, for the last validation.
        """
        if not self.limit_s or not seconds:
            return
        done, recent = len(seconds), seconds[-RECENT:]
        left = max(0.0, self.limit_s - reserve_s - sum(seconds)) / max(sum(recent) / len(recent), 1e-9)
        wanted = min(done + int(left), self.most_epochs)
        if wanted < self.epochs or wanted - self.epochs > REVISED_BY * (self.epochs - done):
            self._revise(done, wanted)

    def wind_down(self, done: int) -> None:
        """Bring the run to its end in a fifth of the epochs so far, when nothing is gained any more, for good."""
        self.most_epochs = min(self.epochs, done + max(1, round(COOL_DOWN * done)))
        self._revise(done, self.most_epochs)

    def _revise(self, done: int, epochs: int) -> None:
        """Take up another number of epochs after some are done."""
        if epochs == self.epochs:
            return
        step = done * self.steps_per_epoch
        self.start_share, self.start_step = self.share(step), step
        self.epochs = max(epochs, done)
        self.history.append([step, self.epochs])

    def state_dict(self) -> Dict[str, Any]:
        """Return what a resumed run needs."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Take over the plan of the interrupted run."""
        for name, value in state.items():
            setattr(self, name, value)


@dataclasses.dataclass
class Plateau:
    """Tells when the picks on the held-out part no longer get better.

    Attributes
    ----------
    patience : int
        Validations in a row that may bring no gain; 0 never tells.
    best : float
        The best score so far.
    without_gain : int
        Validations since.
    """

    patience: int
    best: float = 0.0
    without_gain: int = 0

    def add(self, score: float) -> bool:
        """Count a validation; return True when patience is at its end.

        Parameters
        ----------
        score : float
            F1 of the picks, 0 to 1. Less than 0.005 is no gain, and below 0.5 patience has no end.
        """
        if score > self.best + GAIN:
            self.best, self.without_gain = score, 0
        else:
            self.without_gain += 1
        return bool(self.patience) and self.best >= SOUND and self.without_gain >= self.patience
