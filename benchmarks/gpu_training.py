"""The parts of benchmarks/gpu.py that train."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from gpu_bench import VOXEL_ANG, Bench, Figure, switches
from gpu_parts import equality
from training_speed import our_step, reference_step

from deepetpicker.config import SimulateOptions, TrainOptions
from deepetpicker.io.volumes import open_volume
from deepetpicker.sampling.augment import Augmentation
from deepetpicker.sampling.gather import annotate, gather
from deepetpicker.sampling.holdout import split
from deepetpicker.sampling.patches import EpochSampler, ParticlePatches, PatchRule
from deepetpicker.simulation import simulate
from deepetpicker.training.job import FEWEST_PATCHES
from deepetpicker.training.recipe import filled_in
from deepetpicker.training.run_folder import read_metrics
from deepetpicker.training.stages.epochs import MOST_WORKERS

DIAMETER_VOX = 20.0  # the working diameter
RESERVE_S = 30.0  # left for what comes after the training
LEAST_S = 20.0  # within which the first epochs may end
ENOUGH_EPOCHS = 4  # after which the rest is foreseen

def training_set(bench: Bench) -> pathlib.Path:
    """Return a folder of simulated tomograms with about 200 particles."""
    folder = bench.folder / "training"
    if not (folder / "classes.json").exists():
        shape, n, particles = ((48, 64, 72), 2, 8) if bench.quick else ((64, 192, 192), 4, 50)
        simulate(folder, SimulateOptions(n=n, shape=shape, particles=particles, phantoms=("ribosome",), gold=0,
                                         voxel_size=VOXEL_ANG, snr=0.5, membranes=0, tilt_step=6.0), quiet=True)
    return folder


def recipe(bench: Bench) -> TrainOptions:
    """Return the options of the training: the published recipe, or a tiny one."""
    published = filled_in(TrainOptions(device=bench.word, recipe="published"), [DIAMETER_VOX])
    if not bench.quick:
        return published
    return dataclasses.replace(published, epochs=2, patch=32, batch=2, patches_per_epoch=2, validation_tiles=1,
                               widths=bench.network.widths)


def step(bench: Bench) -> Iterator[Figure]:
    """Yield patches per second of steps on ready patches, of the loader alone, and of both with the wait between."""
    options = recipe(bench)
    namespace = argparse.Namespace(patch=options.patch, batch=options.batch, device=bench.word, precision="auto")
    with switches(best_kernels=bench.is_gpu):
        for name, make in (("ours", our_step), ("published network, float32", reference_step)):
            bench.forget()
            took = bench.seconds(make(namespace), 0.2)
            yield Figure(f"step of {options.batch} patches of {options.patch}^3, {name}", "patches/s",
                         [options.batch / s for s in took], bench.peak())
        patches, _ = _patches(bench, options)
        default = min(MOST_WORKERS, os.cpu_count() or 1) if bench.is_gpu else 0
        for workers in sorted({default, len(os.sched_getaffinity(0)) if bench.is_gpu else default}):
            loader = _loader(bench, patches, options, workers)
            yield Figure(f"loader alone, {workers} workers", "patches/s", _loader_rates(loader, options.batch))
        yield from _loop(bench, _loader(bench, patches, options, default), our_step(namespace), options.batch)


def _patches(bench: Bench, options: TrainOptions) -> Tuple[ParticlePatches, int]:
    """Return the patches of the recipe, enough for a while, and how many an epoch of ``train`` has."""
    gathered = gather(training_set(bench), options)
    kept, _ = split(annotate(gathered, bench.folder / "cache"), options.validation, gathered.classes, [])
    rule = PatchRule(options.patch, options.jitter, options.background_fraction, options.label,
                     {k: c.label_diameter_vox for k, c in enumerate(gathered.classes, 1)},
                     {k: c.diameter_ang / gathered.voxel_size_ang for k, c in enumerate(gathered.classes, 1)}, False,
                     Augmentation(options.mirror, options.rotation, options.elastic, options.scaling))
    wanted = options.patches_per_epoch or max(FEWEST_PATCHES, sum(len(t.inside) for t in kept))
    enough = options.batch * (3 if bench.quick else 60)
    return ParticlePatches(kept, rule, enough, options.seed), options.batch * math.ceil(wanted / options.batch)


def _loader(bench: Bench, patches: ParticlePatches, options: TrainOptions, workers: int) -> Any:
    """Return a loader like that of ``train``."""
    return torch.utils.data.DataLoader(patches, batch_sampler=EpochSampler(len(patches), options.batch),
                                       num_workers=workers, persistent_workers=workers > 0, pin_memory=bench.is_gpu)


def _loader_rates(loader: Any, batch: int) -> List[float]:
    """Return patches per second of the loader, second half of an epoch, when no worker is starting any more."""
    times = [time.perf_counter() for _ in loader]
    half = len(times) // 2
    return [batch * (len(times) - 1 - half) / (times[-1] - times[half])]


def _loop(bench: Bench, loader: Any, one_step: Callable[[], float], batch: int) -> Iterator[Figure]:
    """Yield how long a training loop waits for patches and how long its steps take."""
    waits, steps, before = [], [], time.perf_counter()
    for image, label, weight in loader:
        for tensor in (image, label, weight):
            tensor.to(bench.device, non_blocking=True)
        bench.wait()
        ready = time.perf_counter()
        one_step()
        bench.wait()
        after = time.perf_counter()
        waits.append(ready - before)
        steps.append(after - ready)
        before = after
    half = len(waits) // 2
    yield Figure("loop: waiting for patches, per step", "ms", [1e3 * s for s in waits[half:]])
    yield Figure("loop: step", "ms", [1e3 * s for s in steps[half:]])
    yield Figure("loop: patches", "patches/s", [batch * len(waits[half:]) / (sum(waits[half:]) + sum(steps[half:]))])


def training(bench: Bench) -> Iterator[Figure]:
    """Yield the seconds of ``deepetpicker train`` with its defaults, and where they go; extrapolated if cut short."""
    options, data = recipe(bench), training_set(bench)
    out = bench.folder / "trained.safetensors"
    command = [sys.executable, "-m", "deepetpicker", "train", "--data", str(data), "--out", str(out)]
    given = {k: v for k, v in options.to_dict().items() if v != TrainOptions().to_dict()[k]}
    for name, value in given.items():
        command += ["--" + name.replace("_", "-"), ",".join(map(str, value if isinstance(value, list) else [value]))]
    metrics = out.with_name("trained_run") / "metrics.csv"
    begin, first, most, fits = time.time(), 0.0, bench.left - RESERVE_S, True
    if most < LEAST_S:
        yield Figure("train", facts={"skipped": f"{bench.left:.0f} s are left of the budget"})
        return
    with open(bench.folder / "training.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and fits:
                time.sleep(0.2)
                done = read_metrics(metrics)
                first = first or (time.time() - begin if done else 0.0)
                late = time.time() - begin > most
                fits = not late and (len(done) < ENOUGH_EPOCHS or _projected(done, first, options) < most)
        finally:
            took, is_whole = time.time() - begin, process.poll() is not None
            if not is_whole:
                stop(process)
    rows = read_metrics(metrics)
    if not rows or (is_whole and process.returncode):
        tail = (bench.folder / "training.log").read_text(encoding="utf-8").strip().splitlines()[-3:]
        raise RuntimeError(f"training ended with status {process.returncode}: {' | '.join(tail)}")
    yield from _where_it_went(bench, options, rows, took if is_whole else 0.0, first)
    if is_whole and not bench.quick and bench.left > 20:
        picture = next(iter(sorted(data.glob("*.mrc"))))
        for figure in equality(bench, out, open_volume(picture)):
            yield dataclasses.replace(figure, what=f"trained model, {figure.what}")


def stop(process: subprocess.Popen) -> None:
    """Interrupt a process and wait for its end; kill it when that takes too long."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _projected(rows: List[Dict[str, float]], first: float, options: TrainOptions) -> float:
    """Return the seconds of a whole training from those until the end of its first epoch and its epochs so far."""
    return first + statistics.median([row["seconds"] for row in rows[1:] or rows]) * (options.epochs - 1)


def _where_it_went(bench: Bench, options: TrainOptions, rows: List[Dict[str, float]], whole: float,
                   first: float) -> Iterator[Figure]:
    """Yield the figures of a training from its rows of metrics; whole is 0 when it was cut short."""
    epochs, patches = [row["seconds"] for row in rows], _patches(bench, options)[1]
    steps = [patches / row["patches_per_second"] for row in rows]
    validations = [e - s for e, s in zip(epochs, steps)]
    total = whole or _projected(rows, first, options)
    yield Figure(f"train, {options.epochs} epochs", "s", [total], {
        "is_extrapolated": not whole, "epochs_measured": len(rows), "first_epoch_ends_s": round(first, 1),
        "best_pick_f1": max((r["pick_f1"] for r in rows if r["pick_f1"] == r["pick_f1"]), default=None),
        "outside_epochs_s": round(whole - sum(epochs), 1) if whole else None}, bench.full("<= 180"))
    yield Figure("  steps and waiting, per epoch", "s", steps, {"first": round(steps[0], 2)})
    yield Figure("  validation, per epoch", "s", validations, {"first": round(validations[0], 2)})
    yield Figure("  patches in an epoch's steps", "patches/s", [row["patches_per_second"] for row in rows])
