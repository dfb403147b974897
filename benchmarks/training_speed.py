"""Patches per second of training, against the published network trained plainly in float32.

Usage: python benchmarks/training_speed.py [--patch 72] [--batch 8] [--repeats 5] [--device cpu] [--json]

A step is forward pass, loss, backward pass and optimiser step on random patches that are ready in memory. The
reference step is written here, apart from the engine: coordinates and image pyramid concatenated, arrays channel by
channel, float32, Dice loss, AdamW, PyTorch's own normalisation and defaults. Ours is the step of ``deepetpicker
train``. Each has a process of its own with the same number of threads; they take turns, so that a busy machine slows
both, and the ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import resource
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor, nn

from deepetpicker.benchmarking.baseline import plain_logits
from deepetpicker.config import NetworkOptions, TrainOptions
from deepetpicker.memory import freed_memory
from deepetpicker.network.predictor import Arithmetic
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.training.loop.module import PickerModule
from deepetpicker.training.loop.schedule import Schedule
from deepetpicker.training.recipe import filled_in

Batch = Tuple[Tensor, Tensor, Tensor]
Step = Callable[[], float]


class PlainNetwork(nn.Module):
    """The published network layer by layer, from (B, 1, Z, Y, X) to logits of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = ResUNet3D(NetworkOptions())

    def forward(self, patch_bczyx: Tensor) -> Tensor:
        """Return logits (B, 1, Z, Y, X) of patches (B, 1, Z, Y, X)."""
        return plain_logits(self.layers, patch_bczyx)


def random_batch(args: argparse.Namespace, device: torch.device) -> Batch:
    """Return image (B, 1, N, N, N), label and weight (B, N, N, N); two voxels in a hundred are particle."""
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, args.patch, args.patch, args.patch)
    label = (torch.rand(shape, generator=generator) < 0.02).long()
    image = torch.randn(shape, generator=generator) + label
    return image[:, None].to(device), label.to(device), torch.ones(shape, device=device)


def reference_step(args: argparse.Namespace) -> Step:
    """Return a call that does one reference step and returns its loss."""
    arithmetic = Arithmetic.choose(args.device)
    image, label, _ = random_batch(args, arithmetic.device)
    network = PlainNetwork().to(arithmetic.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    target = label[:, None].float()

    def step() -> float:
        optimiser.zero_grad()
        probability = network(image).sigmoid()
        loss = 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def our_step(args: argparse.Namespace) -> Step:
    """Return a call that does one step of ``deepetpicker train`` and returns its loss."""
    arithmetic = Arithmetic.choose(args.device, args.precision)
    device, dtype = arithmetic.device, arithmetic.dtype
    torch.backends.cudnn.benchmark = device.type == "cuda"
    network: Any = ResUNet3D(NetworkOptions())  # torch's types know no memory format
    network = network.to(device, memory_format=torch.channels_last_3d)
    options = TrainOptions(recipe="published", patch=args.patch, batch=args.batch)
    options = filled_in(options, [20.0])
    module = PickerModule(network, options, Schedule(1, 1000)).train()
    optimiser = module.configure_optimizers()["optimizer"]
    batch = random_batch(args, device)

    def step() -> float:
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = module.training_step(batch, 0)
        loss.backward()
        module.on_before_optimizer_step(optimiser)
        optimiser.step()
        return loss.item()

    return step


def work(pipe: Any, args: argparse.Namespace, is_ours: bool) -> None:
    """Do a step whenever asked, and answer with seconds, loss and peak memory in GB."""
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with freed_memory(kept=True) if is_ours else contextlib.nullcontext():
        step = our_step(args) if is_ours else reference_step(args)
        while pipe.recv():
            begin = time.perf_counter()
            loss = step()
            seconds = time.perf_counter() - begin
            on_gpu = torch.cuda.is_initialized()
            peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
            pipe.send((seconds, loss, peak))


def measure(args: argparse.Namespace) -> Dict[str, Any]:
    """Return medians, their ratio and every pair of seconds."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for is_ours in (False, True):
        here, there = context.Pipe()
        processes.append(context.Process(target=work, args=(there, args, is_ours), daemon=True))
        processes[-1].start()
        there.close()
        pipes.append(here)
    pairs: List[List[Tuple[float, float, float]]] = []
    for _ in range(args.repeats + args.warm_up):
        pairs.append([])
        for pipe in pipes:
            pipe.send(True)
            pairs[-1].append(pipe.recv())
    for pipe, process in zip(pipes, processes):
        pipe.send(False)
        process.join()
    seconds = [(a[0], b[0]) for a, b in pairs[args.warm_up:]]
    middle = [statistics.median(column) for column in zip(*seconds)]
    arithmetic = Arithmetic.choose(args.device, args.precision)
    return {"patch": args.patch, "batch": args.batch, "device": str(arithmetic.device),
            "arithmetic": str(arithmetic.dtype).split(".")[-1], "threads": args.threads or torch.get_num_threads(),
            "reference_patches_per_second": args.batch / middle[0], "patches_per_second": args.batch / middle[1],
            "ratio": statistics.median(a / b for a, b in seconds), "seconds": seconds,
            "peak_gb": [pairs[-1][0][2], pairs[-1][1][2]], "losses": [pairs[-1][0][1], pairs[-1][1][1]]}


def main() -> int:
    """Print the comparison; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=72, help="edge of a patch, voxels (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="patches in a step (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of steps (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=1, help="pairs that are not counted (%(default)s)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16", "float16"),
                        help="arithmetic of our step")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each; 0 takes PyTorch's number")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    args = parser.parse_args()
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"patch {args.patch}, batch {args.batch}, {result['device']}, {result['threads']} thread(s), "
          f"{args.repeats} pairs")
    print(f"reference, float32  {result['reference_patches_per_second']:.3f} patches/s, "
          f"{result['peak_gb'][0]:.1f} GB")
    print(f"ours, {result['arithmetic']:12s}  {result['patches_per_second']:.3f} patches/s, "
          f"{result['peak_gb'][1]:.1f} GB")
    ratios = [a / b for a, b in result["seconds"]]
    print(f"ratio, median of the pairs  {result['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
