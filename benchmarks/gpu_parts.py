"""The parts of benchmarks/gpu.py that do not train.

Each yields its figures one by one, so that what was measured outlives an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import pathlib
import platform
import statistics
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch
from scale import VOXEL_ANG, write_volume

from deepetpicker.benchmarking import benchmark
from deepetpicker.benchmarking.detector import blob_detector
from deepetpicker.benchmarking.run import detector_model, processor, tile_flop
from deepetpicker.config import BenchmarkOptions, PickOptions
from deepetpicker.data.resample import open_working_volume
from deepetpicker.errors import DeepETPickerError
from deepetpicker.evaluation import compare
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import Volume, open_volume, write_volume as write_mrc
from deepetpicker.models.folded import FoldedResUNet
from deepetpicker.picker import Picker, working_grid
from deepetpicker.picking import find_peaks
from deepetpicker.predictor import choose_device, choose_dtype
from deepetpicker.scanning import probability_map
from deepetpicker.store import ProbabilityStore

GB = 1e9
BORDER = 12
SAME_WITHIN_VOX = 3.0
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclasses.dataclass
class Figure:
    """One measured quantity.

    Attributes
    ----------
    what, unit : str
        Its name and unit.
    values : list of float
        One per repeat; none for a fact.
    facts : dict
        What else is known, ready for JSON.
    target : str
        What it should be, such as "<= 1.5"; empty where nothing was asked for.
    """

    what: str
    unit: str = ""
    values: List[float] = dataclasses.field(default_factory=list)
    facts: Dict[str, Any] = dataclasses.field(default_factory=dict)
    target: str = ""


class Bench:
    """Device, sizes, files and time of the measurement.

    Parameters
    ----------
    folder : path
        For everything that is written.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    shape : (3,) int
        Of the large tomogram, in voxels.
    deadline : float
        ``time.time()`` at which no further measurement begins.
    quick : bool
        Tiny sizes, which show that everything runs and no more.
    """

    def __init__(self, folder: pathlib.Path, device: str, shape: Tuple[int, ...], deadline: float, quick: bool) -> None:
        self.folder, self.shape, self.deadline, self.quick = folder, shape, deadline, quick
        self.word = device
        self.device = choose_device(device)
        self.is_gpu = self.device.type == "cuda"
        self.repeats = 1 if quick else 5

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()

    def full(self, text: str) -> str:
        """Return a target where it is meant: on a GPU at full size."""
        return text if self.is_gpu and not self.quick else ""

    def options(self, **values: Any) -> PickOptions:
        """Return options of ``pick`` for this device."""
        return PickOptions(**{"device": self.word, "tile": 48 if self.quick else 0, **values})

    @property
    def model(self) -> pathlib.Path:
        """Model file of the detector with set weights."""
        path = self.folder / "detector.safetensors"
        return path if path.exists() else detector_model(self.folder, VOXEL_ANG)

    def volume(self, shape: Tuple[int, ...], kind: str = "float32") -> Volume:
        """Return a volume of noise with dark blobs, stored as float32 or int16."""
        plain = self.folder / ("x".join(map(str, shape)) + ".mrc")
        if not plain.exists():
            write_volume(self.folder, shape)
        if kind == "float32":
            return open_volume(plain)
        path = plain.with_name(f"{plain.stem}_{kind}.mrc")
        if not path.exists():
            write_mrc(path, np.round(np.asarray(open_volume(plain).data_zyx) * 100).astype(np.int16), VOXEL_ANG)
        return open_volume(path)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def forget(self) -> None:
        """Give cached memory back and count peaks from now on."""
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> Dict[str, float]:
        """Return the peaks of tensors and of reserved memory in GB since :meth:`forget`; nothing on a CPU."""
        if not self.is_gpu:
            return {}
        return {"peak_allocated_gb": round(torch.cuda.max_memory_allocated(self.device) / GB, 3),
                "peak_reserved_gb": round(torch.cuda.max_memory_reserved(self.device) / GB, 3)}

    def seconds(self, call: Callable[[], Any], at_least: float = 0.02) -> List[float]:
        """Return the seconds of a call, one per repeat: each the mean of as many calls as fill a fiftieth of a second.

        On a GPU events time it. A call so slow that all repeats would take more than ten seconds is repeated less.
        """
        if not self.quick:
            call()
        self.wait()
        begin = time.perf_counter()
        call()
        self.wait()
        once = time.perf_counter() - begin
        if self.quick:
            return [once]
        inner = max(1, min(1000, math.ceil(at_least / once)))
        return [self._mean(call, inner) for _ in range(max(2, min(self.repeats, int(10 / once))))]

    def _mean(self, call: Callable[[], Any], inner: int) -> float:
        """Return the mean seconds of some calls in a row."""
        if not self.is_gpu:
            begin = time.perf_counter()
            for _ in range(inner):
                call()
            return (time.perf_counter() - begin) / inner
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(inner):
            call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000 / inner


@contextlib.contextmanager
def switches(tf32: bool = True, best_kernels: bool = False) -> Iterator[None]:
    """Set whether float32 may be computed as TF32 and whether cuDNN tries all its kernels; put both back after."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = best_kernels
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before[:2]
        torch.backends.cudnn.benchmark = before[2]


def rates(seconds: List[float], flop: float) -> List[float]:
    """Return TFLOP/s."""
    return [flop / s / 1e12 for s in seconds]


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


def ceiling(bench: Bench) -> Iterator[Figure]:
    """Yield the rates of the network's convolutions and of a matrix product by themselves."""
    side, batch, n = (16, 1, 128) if bench.quick else (96, 8, 8192)
    for word, dtype in DTYPES.items():
        for tf32 in (False, True) if word == "fp32" and bench.is_gpu else (True,):
            for channels in (24, 48):
                for best in (False, True) if bench.is_gpu else (False,):
                    x = torch.randn(batch, channels, side, side, side, device=bench.device).to(
                        dtype, memory_format=torch.channels_last_3d)
                    conv = torch.nn.Conv3d(channels, channels, 3, padding=1).to(
                        bench.device, dtype, memory_format=torch.channels_last_3d)
                    with torch.inference_mode(), switches(tf32, best):
                        took = bench.seconds(lambda c=conv, x=x: c(x))
                    what = f"convolution {channels}->{channels}, {side}^3 x {batch}, {word}"
                    what += f"{' TF32' if tf32 and word == 'fp32' and bench.is_gpu else ''}"
                    yield Figure(what + f"{', all kernels tried' if best else ''}", "TFLOP/s",
                                 rates(took, 2 * 27 * channels**2 * x[:, 0].numel()))
    a = torch.randn(n, n, device=bench.device, dtype=torch.bfloat16)
    yield Figure(f"matrix product {n}^3, bf16", "TFLOP/s", rates(bench.seconds(lambda: a @ a), 2 * n**3))


def _tiles(bench: Bench, edge: int, batch: int, dtype: torch.dtype, layout: str) -> Tuple[Any, Any, Any]:
    """Return a folded network, a batch of random tiles and the part of them that is kept."""
    formats = {"channels_last": torch.channels_last_3d, "contiguous": torch.contiguous_format}
    network = FoldedResUNet(blob_detector()).to(bench.device, dtype).to(memory_format=formats[layout])
    tiles = torch.randn(batch, 1, edge, edge, edge, device=bench.device, dtype=dtype)
    return network, tiles.contiguous(memory_format=formats[layout]), (slice(BORDER, edge - BORDER),) * 3


def _captured(network: Any, tiles: torch.Tensor, keep: Any) -> Tuple[Callable[[], None], torch.Tensor]:
    """Return the replay of a CUDA graph of a forward pass, and where its result appears."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(tiles, keep)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = network(tiles, keep)
    return graph.replay, out


def forward(bench: Bench) -> Iterator[Figure]:
    """Yield the seconds per tile of the folded network: type, tile, batch, layout, plain, best kernels, CUDA graph."""
    edges, batches = ((32,), (2,)) if bench.quick else ((96, 72), (8, 1, 4, 16))
    for word in DTYPES:
        for edge in edges:
            for batch in batches:
                for way in ("channels_last", "contiguous", "channels_last, all kernels tried",
                            "channels_last, CUDA graph"):
                    if bench.is_gpu or "," not in way:
                        yield _forward(bench, word, edge, batch, way)


def _forward(bench: Bench, word: str, edge: int, batch: int, way: str) -> Figure:
    """Return the figure of one way to compute a batch of tiles."""
    bench.forget()
    network, tiles, keep = _tiles(bench, edge, batch, DTYPES[word], way.split(",")[0])
    facts: Dict[str, Any] = {}
    with torch.inference_mode(), switches(best_kernels="kernels" in way):
        if "graph" in way:
            expected = network(tiles, keep)
            replay, out = _captured(network, tiles, keep)
            replay()
            facts["difference"] = float((out - expected).abs().max())
            took = bench.seconds(replay)
        else:
            took = bench.seconds(lambda: network(tiles, keep))
    flop = tile_flop(network, (edge,) * 3, keep) * batch
    facts.update(tflop_per_s=round(statistics.median(rates(took, flop)), 2), **bench.peak())
    return Figure(f"{word}, tile {edge}, batch {batch}, {way}", "ms per tile", [s * 1e3 / batch for s in took], facts)


def compiled(bench: Bench) -> Iterator[Figure]:
    """Yield the seconds per tile of the network through torch.compile, the compilation left out."""
    if bench.is_gpu and importlib.util.find_spec("triton") is None:
        yield Figure("torch.compile", facts={"skipped": "triton is not installed"})
        return
    for edge, batch in ((32, 1),) if bench.quick else ((96, 8), (72, 8)):
        word = "fp32" if not bench.is_gpu else "bf16"
        network, tiles, keep = _tiles(bench, edge, batch, DTYPES[word], "channels_last")
        call = torch.compile(network, dynamic=False, backend="inductor" if bench.is_gpu else "eager")
        with torch.inference_mode():
            expected = network(tiles, keep)
            begin = time.perf_counter()
            difference = float((call(tiles, keep) - expected).abs().max())
            first = time.perf_counter() - begin
            took = bench.seconds(lambda c=call, t=tiles, k=keep: c(t, k))
        rate = statistics.median(rates(took, tile_flop(network, (edge,) * 3, keep) * batch))
        yield Figure(f"torch.compile, {word}, tile {edge}, batch {batch}", "ms per tile",
                     [s * 1e3 / batch for s in took],
                     {"tflop_per_s": round(rate, 2), "difference": difference, "compilation_s": first})


def profile(bench: Bench) -> Iterator[Figure]:
    """Yield which operations a forward pass spends its time in."""
    from torch.profiler import ProfilerActivity, profile as profiler

    word, edge, batch = ("fp32", 32, 1) if bench.quick else ("bf16", 96, 8)
    network, tiles, keep = _tiles(bench, edge, batch, DTYPES[word], "channels_last")
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * bench.is_gpu
    with torch.inference_mode():
        network(tiles, keep)
        bench.wait()
        with profiler(activities=kinds) as record:
            network(tiles, keep)
            bench.wait()
    attribute = "self_device_time_total" if bench.is_gpu else "self_cpu_time_total"
    rows = sorted(record.key_averages(), key=lambda row: -getattr(row, attribute))[:16]
    for row in rows:
        yield Figure(row.key[:90], "ms", [getattr(row, attribute) / 1e3], {"calls": row.count})


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
    repeats = 0 if bench.quick else int(min(5, (bench.left - 20) / pair))
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
    with ProbabilityStore((1, *grid.shape_zyx), bench.folder, plan.in_memory_bytes, bench.device) as store:
        source = open_working_volume(volume, grid, cache_dir=bench.folder)
        probability_map(source, picker.predictor, plan.tiles, store, plan.batch, device=bench.device)
        for name in ("map of the tomogram", "map of noise"):
            if "noise" in name:
                store.write(0, 0, torch.rand((1, *grid.shape_zyx), device=bench.device))
            bench.forget()
            found: List[int] = []
            took = bench.seconds(lambda found=found: found.append(
                len(find_peaks(store, picker.rules, picker.options.floor, None, plan.block))))
            yield Figure(f"peaks of the {name}", "s", took, {"candidates": found[-1], **bench.peak()})


def equality(bench: Bench, model: Optional[pathlib.Path] = None, volume: Optional[Volume] = None) -> Iterator[Figure]:
    """Yield how far picks on the device differ from those of the CPU in float32."""
    model = model or bench.model
    volume = volume or bench.volume(bench.shape if bench.quick else (96, 160, 160))
    tile = 48 if bench.quick else 64
    begin = time.perf_counter()
    exact = Picker(model, PickOptions(device="cpu", precision="float32", tile=tile), quiet=True)
    expected = exact.picks(exact.candidates(volume, bench.folder))
    took = time.perf_counter() - begin
    ways = [("bfloat16", True), ("float16", True), ("float32", False)] + [("float32", True)] * bench.is_gpu
    for precision, tf32 in ways:
        with switches(tf32):
            picker = Picker(model, bench.options(precision=precision, tile=tile), quiet=True)
            found = picker.picks(picker.candidates(volume, bench.folder))
        both = compare(expected, found, SAME_WITHIN_VOX)
        moved = both.distances_vox if len(both.pairs) else np.full(1, np.nan)
        shared = 2 * len(both.pairs) / max(1, len(expected) + len(found))
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
        shared = 2 * len(both.pairs) / max(1, len(expected) + len(both.pairs) + len(both.only_b))
        yield Figure(f"limit {limit:g} GB, map {'in a file' if on_disk else 'in memory'}", "s", totals[1:], {
            "plan": str(picker.last), "shared": shared, "picks": len(expected), **bench.peak()})
        if on_disk:
            return
        is_first = False
