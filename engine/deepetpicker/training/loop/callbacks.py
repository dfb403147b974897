"""What happens beside the steps of a training: the epoch's end, the checkpoint, progress, messages and signals."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import math
import os
import pathlib
import signal
import threading
import time
import warnings as python_warnings
import zipfile
from typing import Any, Dict, Iterator, List, Optional

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from deepetpicker.errors import OutputError
from deepetpicker.io.atomic import explain
from deepetpicker.network.predictor import Arithmetic
from deepetpicker.training.loop.kept import is_better, key_of
from deepetpicker.training.loop.module import PickerModule
from deepetpicker.training.loop.schedule import Plateau, Schedule
from deepetpicker.training.run_folder import MetricsFile
from deepetpicker.training.validation import Looked, Validator

log = logging.getLogger(__name__)


class EpochEnd(Callback):
    """Validates at the end of an epoch, keeps the best weights, writes the metrics and revises the plan of the run.

    Parameters
    ----------
    validator : Validator
        Scans the held-out part.
    arithmetic : Arithmetic
        How the validation computes.
    metrics : MetricsFile or None
        Gets a row per epoch; None in processes other than the first, which do not validate either.
    bar : progress bar
        Gets an update per patch and shows the scores.
    schedule : Schedule
        The plan: revised by the clock, and brought to its end when the picks no longer get better.
    patience : int
        Validations without better picks that bring the end; 0 never does.

    Attributes
    ----------
    curve : list of dict
        Metrics of each epoch so far.
    best : dict
        ``epoch``, ``key`` (what it was chosen by, see :func:`kept.key_of`), ``threshold`` of all classes together,
        ``picks`` (the fields of each class's ClassScore), ``calibrations`` (of each class, or none), ``weights`` of the
        kept model and ``looked`` (:func:`rows_of` what was found in the held-out part); empty before.
    """

    def __init__(self, validator: Validator, arithmetic: Arithmetic, metrics: Optional[MetricsFile], bar: Any,
                 schedule: Schedule, patience: int = 0) -> None:
        self.validator, self.arithmetic, self.metrics, self.bar = validator, arithmetic, metrics, bar
        self.schedule, self.plateau = schedule, Plateau(patience)
        self.curve: List[Dict[str, float]] = []
        self.best: Dict[str, Any] = {}
        self.has_stopped, self.validation_s = False, 0.0
        self._start, self._patches = time.perf_counter(), 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start, self._patches = time.perf_counter(), 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        """Count patches and show the loss."""
        self._patches += len(batch[0]) * trainer.world_size
        if isinstance(pl_module, PickerModule):
            self._show(pl_module.mean_loss, trainer.current_epoch)
        self.bar.update(len(batch[0]) * trainer.world_size)

    def _show(self, loss: float, epoch: int) -> None:
        """Show epoch, loss and last F1 behind the bar, when it is drawn next."""
        f1 = next((f", F1 {r['pick_f1']:.2f}" for r in reversed(self.curve) if r["pick_f1"] == r["pick_f1"]), "")
        self.bar.set_postfix_str(f"epoch {epoch}, loss {loss:.3f}{f1}", refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate, compare with the best, write the row, revise the plan."""
        assert isinstance(pl_module, PickerModule)
        seconds = time.perf_counter() - self._start
        epoch, options = trainer.current_epoch, pl_module.options
        row = {"epoch": float(epoch), "train_loss": pl_module.mean_loss,
               "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]), "seconds": seconds,
               "patches_per_second": self._patches / max(seconds, 1e-9), "pick_f1": math.nan, "kept": 0.0}
        self._revise(trainer, [*(r["seconds"] for r in self.curve), seconds])
        if self.metrics is not None:
            if self._is_due(epoch, options.validate_every):
                row.update(self._validate(pl_module, epoch))
            row["seconds"] = time.perf_counter() - self._start
            self.metrics.append(row)
            if trainer.logger is not None:
                trainer.logger.log_metrics({k: v for k, v in row.items() if v == v and k != "epoch"}, epoch)
        self.curve.append(row)
        self._show(row["train_loss"], epoch)
        self._wind_down(trainer, row["pick_f1"])
        self.has_stopped = trainer.should_stop = self.schedule.is_over(epoch + 1)

    def _is_due(self, epoch: int, every: int) -> bool:
        """Return True if the held-out part is to be scanned after an epoch: always after the last one."""
        if every:
            return (epoch + 1) % every == 0 or self.schedule.is_over(epoch + 1)
        return self.schedule.looks_after(epoch)

    def _revise(self, trainer: pl.Trainer, seconds: List[float]) -> None:
        """Fit the plan to the clock of the first process."""
        self.schedule.keep_time(seconds, self.validation_s)
        self.schedule.load_state_dict(trainer.strategy.broadcast(self.schedule.state_dict()))

    def _wind_down(self, trainer: pl.Trainer, f1: float) -> None:
        """Bring the run to its end when validations no longer bring better picks; f1 is NaN without a validation."""
        if f1 == f1 and self.validator.chooses_by("picks") == "picks" and self.plateau.add(f1):
            done, planned, self.plateau.patience = len(self.curve), self.schedule.epochs, 0
            self.schedule.wind_down(done)
            if self.schedule.epochs < planned:
                log.info("the held-out picks no longer improve: %d epochs instead of %d", self.schedule.epochs, planned)
        self.schedule.load_state_dict(trainer.strategy.broadcast(self.schedule.state_dict()))

    def _validate(self, module: PickerModule, epoch: int) -> Dict[str, float]:
        """Return the epoch's validation scores and keep its weights if they are the best so far."""
        start = time.perf_counter()
        voxels, picks = self.validator(module.picker, self.arithmetic)
        self.validation_s = time.perf_counter() - start
        by = self.validator.chooses_by(module.options.select)
        key = key_of(epoch, voxels, picks.mean("f1"), by)
        best_f1 = max([picks.mean("f1"), *(row["pick_f1"] for row in self.curve if row["pick_f1"] == row["pick_f1"])])
        is_kept = not self.best or is_better(key, self.best["key"], by, best_f1, self.validator.n_particles)
        if is_kept:
            weights = {k: v.detach().to("cpu", copy=True) for k, v in module.picker.state_dict().items()}
            self.best = {"epoch": epoch, "key": key, "threshold": picks.threshold, "weights": weights,
                         "picks": [dataclasses.asdict(one) for one in picks.classes],
                         "calibrations": [one and one.to_dict() for one in picks.calibrations],
                         "looked": [rows_of(one) for one in self.validator.looked]}
        means = {f"pick_{name}": picks.mean(name) for name in ("precision", "recall", "f1", "average_precision")}
        return {**voxels, **means, "pick_distance_vox": picks.distance_vox, "kept": float(is_kept)}

    def state_dict(self) -> Dict[str, Any]:
        """Return what a resumed run needs."""
        return {"curve": self.curve, "best": self.best, "has_stopped": self.has_stopped,
                "schedule": self.schedule.state_dict(), "plateau": dataclasses.asdict(self.plateau)}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Take over the state of the interrupted run."""
        self.curve, self.best = state_dict["curve"], state_dict["best"]
        self.has_stopped, self.plateau = state_dict["has_stopped"], Plateau(**state_dict["plateau"])
        self.schedule.load_state_dict(state_dict["schedule"])


def rows_of(looked: Looked) -> Dict[str, Any]:
    """Return what a checkpoint can hold of it: ``name``, ``truth`` (N, 4) and ``found`` (M, 5) with class, zyx, score.

    All values are those of the one kind that is read without running code.
    """
    truth, found = (np.column_stack([t.class_ids, t.positions_zyx_vox, t.scores]) for t in (looked.truth, looked.found))
    return {"name": looked.name, "truth": torch.from_numpy(truth[:, :4].copy()), "found": torch.from_numpy(found)}


class LastCheckpoint(Checkpoint):
    """Writes the state of the run after each epoch, whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        ``last.ckpt``; replaced by renaming.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint."""
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part)
        if not trainer.is_global_zero:
            return
        if not part.is_file():  # Lightning keeps to itself that it may not write
            raise OutputError(explain(self.path, PermissionError(errno.EACCES, "Permission denied")))
        os.replace(part, self.path)


@dataclasses.dataclass(frozen=True)
class Checkpointed:
    """What a checkpoint says about its run.

    Attributes
    ----------
    epochs_done : int
        Whole epochs behind it.
    has_stopped : bool
        No epoch is left.
    best, curve : dict, list
        As in :class:`EpochEnd`.
    schedule : dict
        The plan it had, from ``Schedule.state_dict``.
    """

    epochs_done: int
    has_stopped: bool
    best: Dict[str, Any]
    curve: List[Dict[str, float]]
    schedule: Dict[str, Any]


def read_checkpoint(path: pathlib.Path) -> Checkpointed:
    """Return what ``last.ckpt`` says about its run.

    Parameters
    ----------
    path : pathlib.Path
        Read without running any code that it may hold.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    end = state["callbacks"]["EpochEnd"]
    return Checkpointed(int(state["epoch"]) + 1, end["has_stopped"], end["best"], end["curve"], end["schedule"])


def is_readable(path: pathlib.Path) -> bool:
    """Return True if a checkpoint can be gone on from; a damaged one cannot.

    The check sums of its parts are looked at, which torch does not do.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
        read_checkpoint(path)
    except Exception:  # whatever a damaged file makes the reader say, it cannot be used
        return False
    return True


@contextlib.contextmanager
def silent_lightning() -> Iterator[None]:
    """Keep Lightning's messages and its advice on loaders and loggers from the user while the block runs."""
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero",
             "lightning.fabric.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with python_warnings.catch_warnings():
            python_warnings.filterwarnings("ignore", module=r"(lightning|torch|tensorboard)")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def interrupts_kept() -> Iterator[None]:
    """Put the handlers of SIGINT and SIGTERM back after the block, whatever it did to them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
