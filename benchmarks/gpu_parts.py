"""The parts of benchmarks/gpu.py that pick.

Each yields its figures one by one, so that what was measured outlives an error.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import subprocess
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch
from gpu_bench import Bench, Figure, switches

from deepetpicker.benchmarking import benchmark
from deepetpicker.benchmarking.run import processor
from deepetpicker.config import BenchmarkOptions, PickOptions
from deepetpicker.errors import DeepETPickerError
from deepetpicker.evaluation import compare
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume
from deepetpicker.network.predictor import choose_dtype
from deepetpicker.picking.peaks import find_peaks
from deepetpicker.picking.picker import Picker, working_grid
from deepetpicker.picking.scan import probability_map
from deepetpicker.picking.store import ProbabilityStore
from deepetpicker.preparation.resample import open_working_volume

GB = 1e9
SAME_WITHIN_VOX = 3.0


def machine(bench: Bench) -> Iterator[Figure]:
    """Yield what the machine is."""
    facts: Dict[str, Any] = {"processor": processor(), "cpus": len(os.sched_getaffinity(0)),
                             "threads": torch.get_num_threads(), "python": platform.python_version(),
                             "torch": torch.__version__, "numpy": np.__version__,
                             "auto_dtype": str(choose_dtype("auto", bench.device))}
    if bench.is_gpu:
        properties = torch.cuda.get_device_properties(bench.device)
        torch.zeros(1, device=bench.device)
        free, total = torch.cuda.mem_get_info(bench.device)
        context = total - free - torch.cuda.memory_reserved(bench.device)
        facts.update(gpu=properties.name, capability=f"{properties.major}.{properties.minor}",
                     multiprocessors=properties.multi_processor_count, total_gb=total / GB, free_gb=free / GB,
                     held_by_context_and_others_gb=context / GB, cuda=torch.version.cuda,
                     cudnn=torch.backends.cudnn.version(), driver=_smi())
    yield Figure("machine", facts=facts)


def _smi() -> str:
    """Return driver, clocks and power from nvidia-smi, or why there are none."""
    query = "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    try:
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], stdout=subprocess.PIPE, text=True,
                              timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return done.stdout.strip()


def picking(bench: Bench) -> Iterator[Figure]:
    """Yield the seconds from an open tomogram to its candidates, whole and in parts, after a warm-up."""
    ways = [("float32", False), ("int16", False)] + [("float32", True)] * bench.is_gpu
    for kind, best in ways:
        volume = bench.volume(bench.shape, kind)
        bench.forget()
        with switches(best_kernels=best):
            begin = time.perf_counter()
            picker = Picker(bench.model, bench.options(), quiet=True)
            ready = time.perf_counter() - begin
            totals, parts, found = _repeated(picker, volume, bench)
        assert picker.last is not None
        facts = {"picker_ready_s": round(ready, 3), "first_s": round(totals[0], 3), "plan": str(picker.last),
                 "planned_gb": picker.last.memory_bytes / GB, "expected_s": round(picker.last.seconds, 2),
                 "candidates": len(found), "arithmetic": str(picker.predictor.arithmetic), **bench.peak()}
        name = f"picking {'x'.join(map(str, bench.shape))}, {kind}{', all kernels tried' if best else ''}"
        yield Figure(name, "s", totals[1:], facts, bench.full("<= 1.5") if not best else "")
        for part, values in parts.items():
            yield Figure(f"  {part}", "s", values[1:])
        share = [p / t for p, t in zip(parts["post_processing"], totals)][1:]
        yield Figure("  post-processing's share", "%", [100 * s for s in share])


def _repeated(picker: Picker, volume: Volume, bench: Bench) -> Tuple[List[float], Dict[str, List[float]],
                                                                     CoordinateTable]:
    """Return the seconds of a warm-up and the repeats, those of their parts, and the candidates."""
    totals: List[float] = []
    parts: Dict[str, List[float]] = {}
    for _ in range(bench.repeats + 1):
        begin = time.perf_counter()
        found = picker.candidates(volume, bench.folder)
        totals.append(time.perf_counter() - begin)
        for part, seconds in picker.seconds.items():
            parts.setdefault(part, []).append(seconds)
    return totals, parts, found


def published(bench: Bench) -> Iterator[Figure]:
    """Yield the ratio to the published algorithm in turn with ours; the first pair is the warm-up."""
    shape = bench.shape
    options = BenchmarkOptions(shape=shape, repeats=1, device=bench.word)
    path = bench.volume(shape).path
    begin = time.time()
    first = benchmark(bench.model, path, options, quiet=True)
    pair = time.time() - begin
    repeats = 0 if bench.quick else max(0, int(min(5, (bench.left - 20) / pair)))
    done = benchmark(bench.model, path, dataclasses.replace(options, repeats=repeats), True) if repeats else first
    pairs = [r / o for r, o in zip(done["reference_all_s"], done["ours_all_s"])]
    kept = ("agree", "shared", "picks", "mean_shift_vox", "gflop_per_s", "ceiling_gflop_per_s", "where_s")
    yield Figure("published algorithm / ours", "times", pairs, {
        **{k: done[k] for k in kept}, "tf32_in_published": torch.backends.cudnn.allow_tf32,
        "note": "" if repeats >= 5 or bench.quick else f"{repeats} repeats: the budget was short"},
        bench.full(">= 5"))
    yield Figure("  published", "s", done["reference_all_s"])
    yield Figure("  ours", "s", done["ours_all_s"])


def post_processing(bench: Bench) -> Iterator[Figure]:
    """Yield the seconds of finding peaks on the map of the tomogram and on one of noise."""
    volume = bench.volume(bench.shape)
    picker = Picker(bench.model, bench.options(), quiet=True)
    plan, grid = picker.plan(volume), working_grid(volume, picker.card)
    found: List[int] = []
    with ProbabilityStore((1, *grid.shape_zyx), bench.folder, plan.in_memory_bytes, bench.device) as store:
        source = open_working_volume(volume, grid, cache_dir=bench.folder)
        probability_map(source, picker.predictor, plan.tiles, store, plan.batch, device=bench.device)
        for name in ("map of the tomogram", "map of noise"):
            if "noise" in name:
                store.write(0, 0, torch.rand((1, *grid.shape_zyx), device=bench.device))
            bench.forget()
            took = bench.seconds(lambda: found.append(
                len(find_peaks(store, picker.rules, picker.options.floor, None, plan.block))))
            yield Figure(f"peaks of the {name}", "s", took, {"candidates": found[-1], **bench.peak()})


def equality(bench: Bench, model: Optional[pathlib.Path] = None, volume: Optional[Volume] = None) -> Iterator[Figure]:
    """Yield how far picks on the device differ from those of the CPU in float32."""
    model = model or bench.model
    volume = volume or bench.volume(bench.shape if bench.quick else (96, 160, 160))
    tile = 48 if bench.quick else 64
    begin = time.perf_counter()
    exact = Picker(model, PickOptions(device="cpu", precision="float32", tile=tile, mirrors=1), quiet=True)
    expected = exact.picks(exact.candidates(volume, bench.folder))
    took = time.perf_counter() - begin
    ways = [("bfloat16", True), ("float16", True), ("float32", False)] + [("float32", True)] * bench.is_gpu
    for precision, tf32 in ways:
        with switches(tf32):
            picker = Picker(model, bench.options(precision=precision, tile=tile), quiet=True)
            found = picker.picks(picker.candidates(volume, bench.folder))
        both = compare(expected, found, SAME_WITHIN_VOX)
        moved = both.distances_vox if both.tp else np.full(1, np.nan)
        shared = 2 * both.tp / max(1, len(expected) + len(found))
        word = precision + (f", TF32 {'on' if tf32 else 'off'}" if precision == "float32" else "")
        yield Figure(f"{word}: picks shared with float32 on the CPU", "%", [100 * shared], {
            "picks": [len(expected), len(found)], "max_shift_vox": float(np.max(moved)),
            "median_shift_vox": float(np.median(moved)), "cpu_s": round(took, 2)}, bench.full(">= 99"))


def memory_limit(bench: Bench) -> Iterator[Figure]:
    """Yield time and memory under ``--memory-limit`` and whether the picks stay the same."""
    volume = bench.volume(bench.shape)
    free = Picker(bench.model, bench.options(), quiet=True)
    expected = free.picks(free.candidates(volume, bench.folder))
    del free
    is_first = True
    for limit in (2.0, 1.6, 1.4, 1.2, 1.1, 1.0, 0.95, 0.9, 0.85, 0.8):
        bench.forget()
        try:
            picker = Picker(bench.model, bench.options(memory_limit=limit), quiet=True)
            on_disk = picker.plan(volume).in_memory_bytes == 0
        except DeepETPickerError as error:
            yield Figure(f"limit {limit:g} GB", facts={"refused": str(error)})
            return
        if not is_first and not on_disk:
            continue
        totals, _, table = _repeated(picker, volume, bench)
        both = compare(expected, picker.picks(table), SAME_WITHIN_VOX)
        shared = 2 * both.tp / max(1, len(expected) + both.tp + len(both.only_b))
        yield Figure(f"limit {limit:g} GB, map {'in a file' if on_disk else 'in memory'}", "s", totals[1:], {
            "plan": str(picker.last), "shared": shared, "picks": len(expected), **bench.peak()})
        if on_disk:
            return
        is_first = False
