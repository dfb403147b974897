"""The parts of benchmarks/gpu.py that time the network by itself, and what the machine reaches at best."""

from __future__ import annotations

import functools
import importlib.util
import statistics
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from gpu_bench import Bench, Figure, switches

from deepetpicker.benchmarking.detector import blob_detector
from deepetpicker.benchmarking.run import tile_flop
from deepetpicker.network.folded import FoldedResUNet

BORDER = 12
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def rates(seconds: List[float], flop: float) -> List[float]:
    """Return TFLOP/s."""
    return [flop / s / 1e12 for s in seconds]


def ceiling(bench: Bench) -> Iterator[Figure]:
    """Yield the rates of the network's convolutions and of a matrix product by themselves."""
    side, batch, n = (16, 1, 128) if bench.quick else (96, 8, 8192)
    for word, dtype in DTYPES.items():
        for tf32 in (False, True) if word == "fp32" and bench.is_gpu else (True,):
            for channels in (24, 48):
                for best in (False, True) if bench.is_gpu else (False,):
                    x = torch.randn(batch, channels, side, side, side, device=bench.device).to(
                        dtype, memory_format=torch.channels_last_3d)
                    conv: Any = torch.nn.Conv3d(channels, channels, 3, padding=1)  # torch's types know no memory format
                    conv = conv.to(bench.device, dtype, memory_format=torch.channels_last_3d)
                    with torch.inference_mode(), switches(tf32, best):
                        took = bench.seconds(functools.partial(conv, x))
                    what = f"convolution {channels}->{channels}, {side}^3 x {batch}, {word}"
                    what += f"{' TF32' if tf32 and word == 'fp32' and bench.is_gpu else ''}"
                    yield Figure(what + f"{', all kernels tried' if best else ''}", "TFLOP/s",
                                 rates(took, 2 * 27 * channels**2 * x[:, 0].numel()))
    a = torch.randn(n, n, device=bench.device, dtype=torch.bfloat16)
    yield Figure(f"matrix product {n}^3, bf16", "TFLOP/s", rates(bench.seconds(lambda: a @ a), 2 * n**3))


def _tiles(bench: Bench, edge: int, batch: int, dtype: torch.dtype, layout: str) -> Tuple[Any, Any, Any]:
    """Return a folded network, a batch of random tiles and the part of them that is kept."""
    formats = {"channels_last": torch.channels_last_3d, "contiguous": torch.contiguous_format}
    network = FoldedResUNet(blob_detector(options=bench.network)).to(bench.device, dtype)
    network = network.to(memory_format=formats[layout])  # type: ignore[call-overload]
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
            took = bench.seconds(functools.partial(call, tiles, keep))
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
