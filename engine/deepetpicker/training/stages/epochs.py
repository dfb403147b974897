"""The epochs of a stage: its folder made ready, what is left of them run."""

from __future__ import annotations

import logging
import os
from typing import Any, Dict, List, Mapping, Tuple

import torch
from torch.utils.data import DataLoader

from deepetpicker.memory import freed_memory
from deepetpicker.sampling.patches import EpochSampler, ParticlePatches
from deepetpicker.terminal import progress
from deepetpicker.training.job import Job
from deepetpicker.training.loop.callbacks import (
    EpochEnd,
    interrupts_kept,
    is_readable,
    read_checkpoint,
    silent_lightning,
)
from deepetpicker.training.loop.module import PickerModule, use_global_statistics
from deepetpicker.training.loop.schedule import Schedule
from deepetpicker.training.loop.trainer import fit, make_trainer
from deepetpicker.training.pace import Pace, measure, plan
from deepetpicker.training.run_folder import MetricsFile

log = logging.getLogger(__name__)

MOST_WORKERS = 8


def goes_on(job: Job, recipe: Mapping[str, Any], of: str) -> bool:
    """Make the folder of a stage inside a run ready; return whether it goes on from its checkpoint.

    Parameters
    ----------
    job : Job
        The stage.
    recipe : mapping
        Of the run, from :func:`recipe_of`.
    of : str
        Which stage it is.
    """
    is_damaged = job.run.checkpoint.is_file() and not is_readable(job.run.checkpoint)
    is_there = job.run.prepare({**recipe, "of": of}, f"{job.run.checkpoint.name} is damaged" if is_damaged else "")
    return is_there and job.options.resume


def run_epochs(job: Job, is_resumed: bool, quiet: bool,
               share: float = 1.0) -> Tuple[Dict[str, Any], List[Dict[str, float]]]:
    """Run the epochs that are left; return the best epoch with its weights, and the metrics of all epochs.

    Parameters
    ----------
    job : Job
        The stage.
    is_resumed : bool
        Whether it goes on from its checkpoint.
    quiet : bool
        True shows no progress.
    share : float
        Of the minutes.
    """
    processes = job.processes
    state = read_checkpoint(job.run.checkpoint) if is_resumed else None
    first = state.epochs_done if state else 0
    metrics = MetricsFile(job.run.metrics, state.curve if state else ()) if processes.is_first else None
    if state and state.has_stopped:
        return state.best, state.curve
    loader = _loader(job, first)
    schedule, pace = _schedule(job, loader, share)
    if processes.world > 1:
        use_global_statistics(job.network)
    network = job.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    module = PickerModule(network, job.options, schedule)
    if state:
        schedule.load_state_dict(state.schedule)
    if processes.is_first:
        _announce(job, pace.in_words(schedule, job.options, first))
    with silent_lightning(), progress(schedule.epochs * job.length, f"{job.run.model.stem}: training", "patch",
                                      quiet or not processes.is_first) as bar:
        bar.update(first * job.length)
        end = EpochEnd(job.validator, job.arithmetic, metrics, bar, schedule, job.options.patience)
        with interrupts_kept(), freed_memory(kept=True):
            fit(make_trainer(job.run, job.arithmetic, processes, end), module, loader,
                job.run.checkpoint if is_resumed else None)
    return end.best, end.curve


def _loader(job: Job, first: int) -> DataLoader:
    """Return what draws the patches of the epochs from a first one on, in as many processes as the device can feed."""
    sampler = EpochSampler(job.length, job.options.batch, job.processes.rank, job.processes.world)
    sampler.set_epoch(first)
    dataset = ParticlePatches(job.train, job.rule, job.length, job.options.seed)
    on_gpu = job.arithmetic.device.type == "cuda"
    workers = job.options.workers or (min(MOST_WORKERS, os.cpu_count() or 1) if on_gpu else 0)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, persistent_workers=workers > 0,
                      pin_memory=on_gpu)


def _schedule(job: Job, loader: DataLoader, share: float) -> Tuple[Schedule, Pace]:
    """Return the plan of a stage, and what the first process measures for it."""
    pace = Pace()
    if job.processes.is_first:
        pace = measure(job.network.options, loader.dataset, job.validator, job.options,  # type: ignore[arg-type]
                       job.arithmetic)
    return plan(job.options, len(job.gathered.classes), len(loader), pace, share), pace


def _announce(job: Job, planned: str) -> None:
    """Say what is trained on, and what is planned."""
    log.info("%s: %d particles to train on, %d held out, %d class(es), %.4g angstrom/voxel; %s", job.run.model.stem,
             sum(len(t.inside) for t in job.train), job.validator.n_particles, len(job.gathered.classes),
             job.gathered.voxel_size_ang, job.arithmetic)
    log.info("%s: %s", job.run.model.stem, planned)
