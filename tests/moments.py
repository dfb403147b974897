"""Something happens at a moment of a run: when it says a word in its log, or after a step of a training.

Runs are interrupted, killed or disturbed through what every program has, messages and the hooks of PyTorch, whatever
their functions are called.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Callable, Iterator, List

import torch
from torch.optim import optimizer

SCANS = " voxels, "  # in the message that a scan begins with, behind the tomogram's name: tiles, memory, time


class _Listener(logging.Handler):
    """Passes messages on, unlike other handlers with all that comes of it."""

    def __init__(self, heard: Callable[[str], Any]) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a message on."""
        self.heard(record.getMessage())


@contextlib.contextmanager
def heard(action: Callable[[str], Any]) -> Iterator[None]:
    """Call a function with each message of the engine, where it is said; what it raises ends what was going on."""
    logger = logging.getLogger("deepetpicker")
    listener, level = _Listener(action), logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


@contextlib.contextmanager
def interrupted_at(*words: str) -> Iterator[None]:
    """Interrupt what runs, as Ctrl-C does, at the first message that holds all of some words."""
    def look(text: str) -> None:
        if all(word in text for word in words):
            raise KeyboardInterrupt

    with heard(look):
        yield


@contextlib.contextmanager
def steps_of_training(interrupted_after: int = 0) -> Iterator[List[int]]:
    """Yield a list that grows with each step of a training; after so many, interrupt (0: never).

    A training's optimizer follows a schedule; one that only times a few steps does not.
    """
    steps: List[int] = []

    def step(stepping: torch.optim.Optimizer, *_: Any) -> None:
        if "initial_lr" not in stepping.param_groups[0]:
            return
        steps.append(len(steps) + 1)
        if len(steps) == interrupted_after:
            raise KeyboardInterrupt

    handle = optimizer.register_optimizer_step_post_hook(step)
    try:
        yield steps
    finally:
        handle.remove()
