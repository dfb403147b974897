"""Train a picker from tomograms and labelled centres."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

import torch

from deepetpicker.config import RefineOptions, TrainOptions
from deepetpicker.errors import InputError
from deepetpicker.io.manifest import Manifest
from deepetpicker.network.predictor import choose_device, choose_dtype
from deepetpicker.sampling.gather import faint_labels, misfits
from deepetpicker.training.finish import finish
from deepetpicker.training.given import Given, check_all
from deepetpicker.training.job import Job, make_job
from deepetpicker.training.loop.callbacks import is_readable
from deepetpicker.training.loop.processes import Processes
from deepetpicker.training.run_folder import RunFolder, changed_since
from deepetpicker.training.stages import budget, refit, selftraining
from deepetpicker.training.stages.epochs import goes_on, run_epochs

log = logging.getLogger(__name__)
PathLike = Union[str, pathlib.Path]


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
    device = _device(options)
    run = RunFolder(_model_path(out))
    given = check_all(data, options, params, device)
    has_first = selftraining.is_wanted(given.options)
    refit.check(given.options)
    processes = Processes.join(given.options, device)
    manifest = Manifest("train", given.options.to_dict(), seed=given.options.seed)
    before, is_resumed = processes.agree(_decide(run, given, processes))
    if before is not None:
        log.info("%s: trained before with the same options and data; nothing to do", run.model.name)
        return dict(before)
    given.name_inputs(manifest)
    job = _prepare(given, run, processes, manifest)
    has_refit = refit.is_wanted(job.options, job)
    judged = dataclasses.replace(job, options=budget.without_refit(job.options)) if has_refit else job
    if has_first:
        judged = _with_first_training(judged, given, manifest, quiet)
    best, curve = run_epochs(judged, is_resumed, quiet, budget.JUDGED_SHARE if has_refit else 1.0)
    if not processes.is_first:
        return {}
    refitted = _refitted(judged, given.recipe, best, curve, quiet) if has_refit else None
    for text in changed_since(given.recipe):
        log.warning("%s", text)
        manifest.warn(text)
    whole = dataclasses.replace(judged.options, epochs=given.options.epochs, minutes=given.options.minutes)
    return finish(dataclasses.replace(judged, options=whole), best, curve, manifest, refitted)


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


def _device(options: TrainOptions) -> torch.device:
    """Return what is computed on.

    Raises
    ------
    InputError
        If it cannot train in the number type that was asked for.
    """
    device = choose_device(options.device)
    if choose_dtype(options.precision, device) == torch.float16 and device.type == "cpu":
        raise InputError("precision float16 was asked for, but training in float16 needs a GPU: use bfloat16 or "
                         "float32")
    return device


def _decide(run: RunFolder, given: Given, processes: Processes) -> Tuple[Optional[Dict[str, Any]], bool]:
    """Return the manifest if the run was finished before, and whether an interrupted one goes on."""
    if not processes.is_first:
        return None, run.checkpoint.is_file()
    before = run.finished(given.recipe) if given.options.resume else None
    if before is not None:
        return before, False
    fresh = "" if given.options.resume else "a fresh start was asked for (resume is off)"
    if not fresh and run.checkpoint.is_file() and not is_readable(run.checkpoint):
        fresh = f"{run.checkpoint.name} is damaged or of an earlier version"
    return None, run.prepare(given.recipe, fresh)


def _prepare(given: Given, run: RunFolder, processes: Processes, manifest: Manifest) -> Job:
    """Return all parts of the run; the manifest gets what is odd about them."""
    job = make_job(given, run, processes)
    if job.options.check and processes.is_first:
        faint = faint_labels(job.gathered)
        job.misfits.extend([*misfits(job.gathered), *(str(one) for one in faint if one.are_many)])
        job.gathered.warnings.extend([*job.misfits, *(str(one) for one in faint if not one.are_many)])
    if job.origin and processes.is_first:
        job.origin.look(job.network, job.validator, job.arithmetic, job.gathered.classes)
    for text in job.gathered.warnings:
        manifest.warn(text)
        if processes.is_first:
            log.warning("%s", text)
    return job


def _with_first_training(job: Job, given: Given, manifest: Manifest, quiet: bool) -> Job:
    """Train once for a short time; return the run with what that network surely finds as labels.

    Parameters
    ----------
    job : Job
        The run.
    given : Given
        Has the learning rate of the second training.
    manifest : Manifest
        Gets what is odd about the labels.
    quiet : bool
        True shows no progress.
    """
    first_of, second_of = budget.with_first(job.options, len(job.gathered.classes), job.length)
    first = selftraining.first_job(job, first_of)
    best, _ = run_epochs(first, goes_on(first, given.recipe, "the first training"), quiet)
    trained, counts = selftraining.with_found(job, best["weights"])
    selftraining.write_found(job, trained)
    log.info("%s: %s", job.run.model.stem, selftraining.in_words(job, counts))
    text = selftraining.odd(job, counts)
    if text:
        log.warning("%s: %s", job.run.model.stem, text)
        manifest.warn(text)
    job.validator.otherwise = selftraining.SURE
    second_of = dataclasses.replace(second_of, learning_rate=given.second_rate)
    return dataclasses.replace(job, options=second_of, train=trained, found=counts)


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
    end, rows = run_epochs(last, goes_on(last, recipe, "the refit"), quiet)
    result = refit.result(job, last, best, end, len(rows))
    log.log(logging.INFO if result.is_kept else logging.WARNING, "%s: refit: %s", job.run.model.stem, result)
    return result
