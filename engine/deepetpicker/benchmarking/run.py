"""Alternate the published algorithm and ours on the same model, volume and machine."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import logging
import pathlib
import statistics
import tempfile
import time
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deepetpicker import __version__
from deepetpicker.benchmarking.baseline import pick_as_published
from deepetpicker.benchmarking.detector import blob_detector
from deepetpicker.config import BenchmarkOptions, NetworkOptions, PickOptions, SimulateOptions
from deepetpicker.evaluation import compare
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.manifest import machine
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import Volume, open_volume
from deepetpicker.network.modelfile import load_model, save_model
from deepetpicker.network.predictor import Arithmetic
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.picking.picker import Picker, working_grid
from deepetpicker.preparation.normalise import normalise, robust_intensity
from deepetpicker.preparation.tiling import Tile, TilePlan
from deepetpicker.simulation import simulate
from deepetpicker.terminal import progress

PathLike = Union[str, pathlib.Path]
log = logging.getLogger(__name__)

SAME_WITHIN_VOX = 3.0
ENOUGH_SHARED = 0.9


def benchmark(model: PathLike = "", tomogram: PathLike = "", options: BenchmarkOptions = BenchmarkOptions(),
              quiet: bool = False) -> Dict[str, Any]:
    """Time the published algorithm and ours in turn, and compare their picks.

    Parameters
    ----------
    model : path
        Model file whose working voxel size is the tomogram's; empty takes a detector with set weights.
    tomogram : path
        Tomogram; empty simulates one of ``options.shape``.
    options : BenchmarkOptions
        Repeats, device, shape.
    quiet : bool
        True shows no progress.

    Returns
    -------
    dict
        ``ratio`` (median of the pairwise ratios), ``ours_s`` and ``reference_s`` (medians, seconds), ``agree`` (bool),
        ``shared`` (share of picks in common), ``machine``, ``where_s`` (seconds of ours per part), ``ceiling_share``
        (of the measured convolution rate that the network reaches), and the single times.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        volume = open_volume(tomogram or _simulated(work, options))
        path = pathlib.Path(model) if model else detector_model(work, volume.voxel_size_ang)
        network, card = load_model(path)
        picker = Picker(path, PickOptions(device=options.device, precision=options.precision, threshold=0.0,
                                          mirrors=1), True)
        if working_grid(volume, card).factor != 1:
            log.warning("%s is resampled for this model; the published algorithm is timed on the resampled volume "
                        "without the resampling", volume.name)
        ours, reference, tables = _alternate(picker, network, card, volume, work, options, quiet)
        return _summary(ours, reference, tables, picker, volume, options)


def _simulated(work: pathlib.Path, options: BenchmarkOptions) -> pathlib.Path:
    """Simulate the tomogram to pick and return its path."""
    particles = max(8, int(np.prod(options.shape) / 60_000))
    simulate(work, SimulateOptions(n=1, shape=options.shape, particles=particles, phantoms=("ribosome",),
                                   voxel_size=13.3, snr=1.0, gold=0, membranes=0), quiet=True)
    return work / "tomo_00.mrc"


def detector_model(work: pathlib.Path, voxel_size_ang: float,
                   options: NetworkOptions = NetworkOptions()) -> pathlib.Path:
    """Write the detector as a model file and return its path."""
    network = blob_detector(options=options)
    card = ModelCard(network=network.options.to_dict(), classes=(ClassCard(1, "blob", 20 * voxel_size_ang, 9.0),),
                     voxel_size_ang=voxel_size_ang, patch_vox=72, border_vox=12, label="tball", normalisation="robust",
                     threshold=0.3, score_floor=0.1, version=__version__,
                     created=datetime.datetime.now().isoformat(timespec="seconds"))
    save_model(work / "detector.safetensors", network, card)
    return work / "detector.safetensors"


def _alternate(picker: Picker, network: ResUNet3D, card: ModelCard, volume: Volume, work: pathlib.Path,
               options: BenchmarkOptions, quiet: bool) -> Tuple[List[float], List[float], Tuple[Any, Any]]:
    """Return the times of ours and of the reference, in turn, and the picks of both.

    Compared are picks that reach half of what an ideal label would; below that the two scores mean different things.
    """
    grid = working_grid(volume, card)
    diameters = [c.diameter_ang / grid.working_voxel_ang for c in card.classes]
    device = picker.predictor.arithmetic.device
    ours: List[float] = []
    reference: List[float] = []
    with progress(options.repeats, "alternating", "pair", quiet) as bar:
        for _ in range(options.repeats):
            begin = time.perf_counter()
            found = picker.candidates(volume, work)
            ours.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            intensity = robust_intensity(volume.data_zyx, volume.name)
            picks = pick_as_published(network, normalise(volume.data_zyx, intensity), diameters, device)
            reference.append(time.perf_counter() - begin)
            bar.update()
    passes = max(rule.passes for rule in picker.rules)
    ideal = {i: dataclasses.replace(rule, diameter_vox=4.0 * passes - 1).ideal()[0]
             for i, rule in enumerate(picker.rules, 1)}
    sure = picks[[row[4] >= ideal[int(row[0])] / 2 for row in picks]] if len(picks) else picks
    ids = np.array([picker.rules[int(c) - 1].class_id for c in sure[:, 0]], int)
    return ours, reference, (found.select(found.scores >= 0.5), CoordinateTable(sure[:, 1:4], ids, sure[:, 4], {}))


def _summary(ours: Sequence[float], reference: Sequence[float], tables: Tuple[CoordinateTable, CoordinateTable],
             picker: Picker, volume: Volume, options: BenchmarkOptions) -> Dict[str, Any]:
    """Return the result of a benchmark."""
    mine = tables[0]
    both = compare(mine, tables[1], SAME_WITHIN_VOX)
    larger = max(len(mine), len(tables[1]))
    shared = both.tp / larger if larger else 1.0
    where = dict(picker.seconds)
    assert picker.last is not None
    tiles = picker.last.tiles
    rate = scan_flop(picker.predictor.network, tiles) / where["network"] / 1e9 if where.get("network") else 0.0
    ceiling = max(convolution_rate(picker.predictor.arithmetic, side) for side in (48, 72, 96))
    return {
        "ratio": statistics.median(r / o for r, o in zip(reference, ours)),
        "ours_s": statistics.median(ours), "reference_s": statistics.median(reference),
        "agree": bool(shared >= ENOUGH_SHARED), "shared": shared, "picks": [len(mine), len(tables[1])],
        "mean_shift_vox": float(np.mean(both.distances_vox)) if both.tp else None,
        "ours_all_s": list(ours), "reference_all_s": list(reference), "repeats": options.repeats,
        "shape_zyx": list(volume.shape_zyx), "tile_zyx": list(tiles.tile_zyx), "tiles": len(tiles),
        "arithmetic": str(picker.predictor.arithmetic), "where_s": where, "gflop_per_s": rate,
        "ceiling_gflop_per_s": ceiling, "ceiling_share": rate / ceiling if ceiling else None,
        "threads": torch.get_num_threads(), "machine": {**machine(), "processor": processor()}}


def scan_flop(network: nn.Module, plan: TilePlan) -> float:
    """Return the floating-point operations of the convolutions of a scan, counted on shapes alone.

    Parameters
    ----------
    network : FoldedResUNet
        As a predictor holds it.
    plan : TilePlan
        The tiles; where less of a tile is kept less is computed.
    """
    kinds = collections.Counter(_bounds(t) for t in plan)
    return sum(count * tile_flop(network, plan.tile_zyx, [slice(*bounds) for bounds in inside])
               for inside, count in kinds.items())


def tile_flop(network: nn.Module, tile_zyx: Sequence[int], inside: Sequence[slice]) -> float:
    """Return the floating-point operations of the convolutions of one tile, counted on shapes alone.

    Parameters
    ----------
    network : FoldedResUNet
        As a predictor holds it.
    tile_zyx : (3,) int
        Edges of the tile in voxels.
    inside : (3,) slices
        The part of it that is kept.
    """
    shapes = copy.deepcopy(network).to("meta")
    tile = torch.empty(1, 1, *tile_zyx, device="meta", dtype=next(shapes.parameters()).dtype)
    with torch.inference_mode():
        shapes(tile, tuple(inside))  # what the coordinates add is computed once for all tiles, and not counted
        with FlopCounterMode(display=False) as counter:
            shapes(tile, tuple(inside))
    return float(counter.get_total_flops())


def _bounds(tile: Tile) -> Tuple[Tuple[int, int], ...]:
    """Return where the kept part of a tile begins and ends along z, y and x."""
    return tuple((s.start, s.stop) for s in tile.inside)


def convolution_rate(arithmetic: Arithmetic, side: int, channels: int = 24, repeats: int = 5) -> float:
    """Return the GFLOP/s of the network's commonest convolution by itself: what the hardware could reach at best.

    Parameters
    ----------
    arithmetic : Arithmetic
        Device and number type.
    side : int
        Edge of the cubic input in voxels.
    channels, repeats : int
        Of the convolution; runs, of which the fastest counts.
    """
    layout = {"dtype": arithmetic.dtype, "device": arithmetic.device}
    x = torch.randn(arithmetic.batch, channels, side, side, side, **layout).contiguous(  # type: ignore[call-overload]
        memory_format=torch.channels_last_3d)
    conv = torch.nn.Conv3d(channels, channels, 3, padding=1).to(**layout).to(  # type: ignore[call-overload]
        memory_format=torch.channels_last_3d)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            conv(x)
            if arithmetic.device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begin)
    return 2 * 27 * channels**2 * x[:, 0].numel() / best / 1e9


def processor() -> str:
    """Return the processor's name and which bfloat16 units it has, or an empty string."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").splitlines()
    except OSError:
        return ""
    facts = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines) if v}
    units = [u for u in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if u in facts.get("flags", "").split()]
    return f"{facts.get('model name', '')} ({', '.join(units)})"
