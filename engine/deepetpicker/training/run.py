"""Train a picker from tomograms and labelled centres."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch
from torch.utils.data import DataLoader

from deepetpicker.config import RefineOptions, TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.io.manifest import Manifest
from deepetpicker.memory import freed_memory
from deepetpicker.network.predictor import Arithmetic, choose_device, choose_dtype
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.picking.picker import peak_rule
from deepetpicker.sampling.augment import Augmentation
from deepetpicker.sampling.gather import Gathered, annotate, gather, misfits
from deepetpicker.sampling.holdout import split
from deepetpicker.sampling.patches import EpochSampler, ParticlePatches, PatchRule
from deepetpicker.terminal import progress
from deepetpicker.training.finish import finish
from deepetpicker.training.job import Job
from deepetpicker.training.loop.callbacks import (
    EpochEnd,
    interrupts_kept,
    is_readable,
    read_checkpoint,
    silent_lightning,
)
from deepetpicker.training.loop.module import PickerModule, use_global_statistics
from deepetpicker.training.loop.processes import Processes
from deepetpicker.training.loop.trainer import fit, make_trainer
from deepetpicker.training.pace import Pace, measure, plan
from deepetpicker.training.recipe import filled_in, second_rate
from deepetpicker.training.rounds import Origin
from deepetpicker.training.run_folder import MetricsFile, RunFolder, changed_since, recipe_of
from deepetpicker.training.stages import budget, refit, selftraining
from deepetpicker.training.start import NO_START, THE_GENERIC, build_network, choose_start
from deepetpicker.training.validation import Validator

log = logging.getLogger(__name__)
PathLike = Union[str, pathlib.Path]

MOST_WORKERS = 8


def train(data: PathLike = "", out: PathLike = "model.safetensors", options: TrainOptions = TrainOptions(),
          quiet: bool = False, params: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """Train a picker and write the model file.

    Parameters
    ----------
    data : path
        Folder of NAME.mrc with NAME.csv (or another coordinate format) and classes.json. Left out when params has
        ``items``.
    out : path
        Model file to write; ``OUT_run/`` beside it holds metrics, logs and the state to go on from.
    options : TrainOptions
        How to train.
    quiet : bool
        True shows no progress.
    params : mapping, optional
        Content of a params.json; its ``items`` and ``classes`` replace the folder.

    Returns
    -------
    dict
        The manifest, which is also in ``OUT_run/manifest.json``; in other processes than the first of a distributed
        run an empty dict.

    Raises
    ------
    InputError
        For bad input, listing every problem, before anything is written.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM; the same command goes on from the last whole epoch.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.precision, device)
    if dtype == torch.float16 and device.type == "cpu":
        raise InputError("precision float16 was asked for, but training in float16 needs a GPU: use bfloat16 or "
                         "float32")
    run = RunFolder(_model_path(out))
    if options.recipe == "refine" and options.init in ("", NO_START, THE_GENERIC):
        raise InputError("the recipe 'refine' goes on from a model, got none: give it with --init MODEL")
    start = choose_start(options, device.type == "cuda")
    gathered = gather(data, options, params, start.card)
    options = decided(options, gathered)
    given, options = options, filled_in(
        options, [c.diameter_ang / gathered.voxel_size_ang for c in gathered.classes], device.type == "cuda",
        start.widths, start.is_generic, sum(gathered.n_particles.values()))
    has_first = selftraining.is_wanted(options)
    refit.check(options)
    network = build_network(options, gathered, start)
    origin = Origin.of(start.path, start.card) if start.card else None
    recipe = {**recipe_of(options, gathered), "init_sha256": start.digest}
    processes = Processes.join(options, device)
    manifest = Manifest("train", options.to_dict(), seed=options.seed)
    before, goes_on = processes.agree(_decide(run, recipe, options, processes))
    if before is not None:
        log.info("%s: trained before with the same options and data; nothing to do", run.model.name)
        return dict(before)
    for volume in gathered.volumes:
        manifest.add_input(volume)
    for path in [*(item.coordinates for item in gathered.items), start.path if start.card else ""]:
        if path:
            manifest.add_file(path)
    job = _prepare(options, gathered, network, run, processes, Arithmetic.choose(options.device, options.precision),
                   origin)
    if options.check and processes.is_first:
        job.misfits.extend(misfits(gathered))
        gathered.warnings.extend(job.misfits)
    if origin and processes.is_first:
        origin.look(network, job.validator, job.arithmetic, gathered.classes)
    for text in gathered.warnings:
        manifest.warn(text)
        if processes.is_first:
            log.warning("%s", text)
    has_refit = refit.is_wanted(options, job)
    if has_refit:
        job = dataclasses.replace(job, options=budget.without_refit(options))
    if has_first:
        job = _with_first_training(job, recipe, second_rate(given, options), quiet)
        for text in job.found_oddly:
            manifest.warn(text)
    best, curve = _fit(job, goes_on, quiet, budget.JUDGED_SHARE if has_refit else 1.0)
    if not processes.is_first:
        return {}
    refitted = _refitted(job, recipe, best, curve, quiet) if has_refit else None
    for text in changed_since(recipe):
        log.warning("%s", text)
        manifest.warn(text)
    whole = dataclasses.replace(job.options, epochs=options.epochs, minutes=options.minutes)
    return finish(dataclasses.replace(job, options=whole), best, curve, manifest, refitted)


def refine(model: PathLike, data: PathLike = "", out: PathLike = "refined.safetensors",
           options: RefineOptions = RefineOptions(), quiet: bool = False,
           params: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """Go on training a model with corrected picks, and write the new model.

    It keeps the classes of the model, what was held out when it was trained, and its network; ``outputs`` of the
    manifest have ``round`` and ``started_from`` with the F1 before and after on the held-out part.

    Parameters
    ----------
    model : path
        Model file to go on from; not changed.
    data, out, quiet, params
        As :func:`train` takes them.
    options : RefineOptions
        How to train.

    Returns
    -------
    dict
        The manifest, as :func:`train` returns it.

    Raises
    ------
    InputError
        As :func:`train`; also when the new model would overwrite the one it goes on from.
    """
    if _model_path(out).resolve() == pathlib.Path(model).resolve():
        raise InputError(f"expected another file for the new model than {model}, which it goes on from: give another "
                         "--out")
    return train(data, out, dataclasses.replace(options, init=str(model)), quiet, params)


def _model_path(out: PathLike) -> pathlib.Path:
    """Return the model's path with its suffix."""
    path = pathlib.Path(out)
    if path.is_dir():
        raise InputError(f"expected a model file to write (--out MODEL.safetensors), got a folder: {out}")
    return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")


def decided(options: TrainOptions, gathered: Gathered) -> TrainOptions:
    """Return the options with what is not annotated decided: by the regions of complete annotation, where left open."""
    if options.unannotated != "auto":
        return options
    n, partial = (sum(getattr(one, name) for one in gathered.certain) for name in ("has_regions", "is_partial"))
    if partial:
        where = f"{n} with regions of complete annotation: outside of them," if n else "none with such a region:"
        log.info("%d tomogram(s) are annotated completely in regions alone, %s what is not annotated is taken for "
                 "unknown (--unannotated background if all of it is complete)", partial, where)
    return dataclasses.replace(options, unannotated=gathered.unannotated)


def _decide(run: RunFolder, recipe: Mapping[str, Any], options: TrainOptions,
            processes: Processes) -> Tuple[Optional[Dict[str, Any]], bool]:
    """Return the manifest if the run was finished before, and whether an interrupted one goes on."""
    if not processes.is_first:
        return None, run.checkpoint.is_file()
    before = run.finished(recipe) if options.resume else None
    if before is not None:
        return before, False
    fresh = "" if options.resume else "a fresh start was asked for (resume is off)"
    if not fresh and run.checkpoint.is_file() and not is_readable(run.checkpoint):
        fresh = f"{run.checkpoint.name} is damaged or of an earlier version"
    return None, run.prepare(recipe, fresh)


def _prepare(options: TrainOptions, gathered: Gathered, network: ResUNet3D, run: RunFolder, processes: Processes,
             arithmetic: Arithmetic, origin: Optional[Origin]) -> Job:
    """Return all parts of the run."""
    voxel = gathered.voxel_size_ang
    rule = PatchRule(
        options.patch, options.jitter, options.background_fraction, options.label,
        {k: c.label_diameter_vox for k, c in enumerate(gathered.classes, 1)},
        {k: c.diameter_ang / voxel for k, c in enumerate(gathered.classes, 1)}, options.unannotated == "unknown",
        Augmentation(options.mirror, options.rotation, options.elastic, options.scaling), options.negative_fraction)
    tomograms = annotate(gathered, run.path / "cache")
    earlier = origin.items if origin and options.recipe == "refine" else ()
    kept, held = split(tomograms, options.validation, gathered.classes, gathered.warnings, earlier)
    peaks = [peak_rule(c, voxel, options.label) for c in gathered.classes]
    validator = Validator(held, rule, peaks, options.validation_tiles, options.alpha, network.stride)
    if options.select == "picks" and validator.against_picks and validator.n_particles:
        gathered.warnings.append(f"{validator.against_picks}: the epoch to keep is not chosen by the picks on the "
                                 "held-out part, but the last one is kept")
    return Job(options, gathered, kept, held, tomograms, rule, network, validator, arithmetic, run, processes,
               origin=origin)


def _with_first_training(job: Job, recipe: Mapping[str, Any], learning_rate: float, quiet: bool) -> Job:
    """Train once for a short time; return the run with what that network surely finds as labels.

    Parameters
    ----------
    job : Job
        The run.
    recipe : mapping
        From :func:`recipe_of`.
    learning_rate : float
        Of the second training.
    quiet : bool
        True shows no progress.
    """
    first_of, second_of = budget.with_first(job.options, len(job.gathered.classes), job.length)
    first = selftraining.first_job(job, first_of)
    best, _ = _fit(first, _goes_on(first, recipe, "the first training"), quiet)
    trained, counts = selftraining.with_found(job, best["weights"])
    selftraining.write_found(job, trained)
    log.info("%s: %s", job.run.model.stem, selftraining.in_words(job, counts))
    text = selftraining.odd(job, counts)
    if text:
        log.warning("%s: %s", job.run.model.stem, text)
    job.validator.otherwise = selftraining.SURE
    second_of = dataclasses.replace(second_of, learning_rate=learning_rate)
    return dataclasses.replace(job, options=second_of, train=trained, found=counts,
                               found_oddly=[text] if text else [])


def _refitted(job: Job, recipe: Mapping[str, Any], best: Mapping[str, Any], curve: Sequence[Mapping[str, float]],
              quiet: bool) -> Optional[refit.Refit]:
    """Train on with what was held out; return what became of it, None when no time is left.

    Parameters
    ----------
    job : Job
        The judged run.
    recipe : mapping
        From :func:`recipe_of`.
    best, curve : mapping, sequence of dict
        The kept epoch of the judged run, and the metrics of all.
    quiet : bool
        True shows no progress.
    """
    options = budget.of_refit(job.options, curve)
    if options is None:
        log.info("%s: no time is left to go on with what was held out (--minutes)", job.run.model.stem)
        return None
    last = refit.job_of(job, options, best)
    end, rows = _fit(last, _goes_on(last, recipe, "the refit"), quiet)
    result = refit.result(job, last, best, end, len(rows))
    log.log(logging.INFO if result.is_kept else logging.WARNING, "%s: refit: %s", job.run.model.stem, result)
    return result


def _goes_on(job: Job, recipe: Mapping[str, Any], of: str) -> bool:
    """Make the folder of another stage of a run ready; return whether it goes on from its checkpoint."""
    is_damaged = job.run.checkpoint.is_file() and not is_readable(job.run.checkpoint)
    goes_on = job.run.prepare({**recipe, "of": of}, f"{job.run.checkpoint.name} is damaged" if is_damaged else "")
    return goes_on and job.options.resume


def _fit(job: Job, goes_on: bool, quiet: bool, share: float = 1.0) -> Tuple[Dict[str, Any], List[Dict[str, float]]]:
    """Run the epochs that are left; return the best epoch with its weights, and the metrics of all epochs."""
    options, processes = job.options, job.processes
    state = read_checkpoint(job.run.checkpoint) if goes_on else None
    first = state.epochs_done if state else 0
    metrics = MetricsFile(job.run.metrics, state.curve if state else ()) if processes.is_first else None
    if state and state.has_stopped:
        return state.best, state.curve
    sampler = EpochSampler(job.length, options.batch, processes.rank, processes.world)
    sampler.set_epoch(first)
    dataset = ParticlePatches(job.train, job.rule, job.length, options.seed)
    workers = options.workers or (min(MOST_WORKERS, os.cpu_count() or 1) if job.arithmetic.device.type == "cuda" else 0)
    loader: DataLoader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers, persistent_workers=workers > 0,
                                    pin_memory=job.arithmetic.device.type == "cuda")
    pace = Pace()
    if processes.is_first:
        pace = measure(job.network.options, dataset, job.validator, options, job.arithmetic)
    schedule = plan(options, len(job.gathered.classes), len(sampler), pace, share)
    if processes.world > 1:
        use_global_statistics(job.network)
    network = job.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    module = PickerModule(network, options, schedule)
    if state:
        schedule.load_state_dict(state.schedule)
    if processes.is_first:
        log.info("%s: %d particles to train on, %d held out, %d class(es), %.4g angstrom/voxel; %s",
                 job.run.model.stem, sum(len(t.inside) for t in job.train), job.validator.n_particles,
                 len(job.gathered.classes), job.gathered.voxel_size_ang, job.arithmetic)
        log.info("%s: %s", job.run.model.stem, pace.in_words(schedule, options, first))
    with silent_lightning(), progress(schedule.epochs * job.length, f"{job.run.model.stem}: training", "patch",
                                      quiet or not processes.is_first) as bar:
        bar.update(first * job.length)
        end = EpochEnd(job.validator, job.arithmetic, metrics, bar, schedule, options.patience)
        with interrupts_kept(), freed_memory(kept=True):
            fit(make_trainer(job.run, job.arithmetic, processes, end), module, loader,
                job.run.checkpoint if goes_on else None)
    return end.best, end.curve
