"""A thousand small tomograms in one ``pick``: memory, open files, seconds per tomogram, and ten kills on the way.

Usage: python benchmarks/endurance.py [--tomograms 1000] [--kills 10] [--plot docs/pictures/endurance.png]

Picks them twice: undisturbed, watched from outside; and killed at random, each time going on with ``--resume``. Prints
the slope of the resident memory, open files, seconds per tomogram of the first and the last tenth, the share of time
that manifest.json took, how well the time left was foretold, and whether both runs gave the same tables.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Tuple

import numpy as np
import torch

from deepetpicker.config import NetworkOptions
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.io.volumes import write_volume
from deepetpicker.network.modelfile import save_model
from deepetpicker.network.resunet import ResUNet3D

SHAPE = (24, 40, 40)


def main() -> int:
    """Measure and print; return 1 when the tables differ."""
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        words = prepare(work, args.tomograms)
        watched = watch(words, work / "whole")
        report(work / "whole", watched, args.tomograms)
        if args.plot:
            plot(args.plot, watched)
        runs = killed(words, work / "killed", args.tomograms, args.kills)
        same = tables(work / "whole") == tables(work / "killed")
        say(f"killed {args.kills} times, {runs} runs: {'the same tables' if same else 'OTHER TABLES'}")
    return int(not same)


def arguments(description: str, fewest: int = 1) -> argparse.Namespace:
    """Return what the command line says, of which at least so many tomograms are needed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tomograms", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--plot", type=pathlib.Path)
    args = parser.parse_args()
    if args.tomograms < fewest:
        parser.error(f"expected at least {fewest} tomograms, got {args.tomograms}")
    return args


def prepare(work: pathlib.Path, count: int) -> List[str]:
    """Write a small model with random weights and tomograms of noise; return the command line without --out."""
    torch.manual_seed(0)
    network = NetworkOptions(widths=(4, 6))
    card = ModelCard(network=network.to_dict(), classes=(ClassCard(1, "blob", 60.0, 5.0),), voxel_size_ang=10.0,
                     patch_vox=32, border_vox=4, label="tball", normalisation="robust", threshold=0.2, score_floor=0.1)
    save_model(work / "m.safetensors", ResUNet3D(network), card)
    (work / "data").mkdir()
    rng, items = np.random.default_rng(0), []
    for index in range(count):
        path = work / "data" / f"tomo_{index:04d}.mrc"
        write_volume(path, rng.normal(size=SHAPE).astype(np.float32), 10.0)
        items.append({"name": path.stem, "tomogram": str(path)})
    (work / "params.json").write_text(json.dumps({"items": items}))
    return [sys.executable, "-m", "deepetpicker", "pick", str(work / "m.safetensors"), "--params",
            str(work / "params.json"), "--device", "cpu", "--precision", "float32", "--threshold", "0.2", "--resume"]


def start(words: List[str], out: pathlib.Path) -> subprocess.Popen:
    """Start picking into a folder; what it says goes to OUT.log."""
    with open(f"{out}.log", "ab") as log:
        return subprocess.Popen([*words, "--out", str(out)], stdout=log, stderr=log,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})


def done(out: pathlib.Path) -> int:
    """Return how many tomograms have a record."""
    try:
        return sum(not name.startswith(".") for name in os.listdir(out / "records"))
    except FileNotFoundError:
        return 0


def watch(words: List[str], out: pathlib.Path) -> Dict[str, Any]:
    """Pick all undisturbed; return the samples, one a second: tomograms done, resident bytes, open files."""
    begin, process, samples = time.monotonic(), start(words, out), []
    while process.poll() is None:
        try:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            found = re.search(r"VmRSS:\s+(\d+)", status)
            files = len(os.listdir(f"/proc/{process.pid}/fd"))
            if found and done(out):
                samples.append((done(out), int(found.group(1)) * 1024, files, time.monotonic() - begin))
        except OSError:
            break
        time.sleep(1)
    if process.wait():
        raise RuntimeError(pathlib.Path(f"{out}.log").read_text()[-2000:])
    stamps = sorted(path.stat().st_mtime for path in (out / "records").glob("*.json"))
    return {"samples": np.array(samples, float), "seconds": np.diff(stamps)}


def report(out: pathlib.Path, watched: Dict[str, Any], count: int) -> None:
    """Print what was seen."""
    number, resident, files, clock = watched["samples"].T
    settled = number > count // 10
    slope = np.polyfit(number[settled], resident[settled], 1)[0]
    seconds, tenth = watched["seconds"], max(1, count // 10)
    say(f"{count} tomograms of {' x '.join(map(str, SHAPE[::-1]))} voxels in {clock[-1]:.0f} s")
    say(f"memory {resident[settled].min() / 1e6:.0f} to {resident.max() / 1e6:.0f} MB, slope {slope / 1e3:.2f} kB per "
        f"tomogram; open files {files[settled].min():.0f} to {files.max():.0f}")
    say(f"median seconds per tomogram: first tenth {np.median(seconds[:tenth]):.3f}, last "
        f"{np.median(seconds[-tenth:]):.3f}"
        f"; mean {seconds[:tenth].mean():.3f} and {seconds[-tenth:].mean():.3f}")
    text = pathlib.Path(f"{out}.log").read_text()
    half = re.search(rf"{count // 2} of {count} tomograms done, about (.*) left", text)
    say(f"at half: about {half.group(1) if half else '?'} left; it took {sum(seconds[count // 2 - 1:]):.0f} s")


def killed(words: List[str], out: pathlib.Path, count: int, kills: int) -> int:
    """Pick all, killed at random; return how many runs it took."""
    rng = np.random.default_rng(1)
    for goal in sorted(rng.integers(1, count, kills).tolist()):
        process = start(words, out)
        while process.poll() is None and done(out) < goal:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if start(words, out).wait():
        raise RuntimeError(pathlib.Path(f"{out}.log").read_text()[-2000:])
    return kills + 1


def tables(out: pathlib.Path) -> Tuple[List[str], Dict[str, bytes]]:
    """Return the names in the manifest and the bytes of all tables."""
    items = json.loads((out / "manifest.json").read_text())["items"]
    return [item["name"] for item in items], {path.name: path.read_bytes() for path in out.glob("*.csv")}


def plot(path: pathlib.Path, watched: Dict[str, Any]) -> None:
    """Draw memory and seconds over the number of tomograms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    left.plot(watched["samples"][:, 0], watched["samples"][:, 1] / 1e6)
    left.set(xlabel="tomograms picked", ylabel="resident memory [MB]", ylim=(0, None))
    right.plot(np.arange(1, len(watched["seconds"]) + 1), watched["seconds"], ".", markersize=2)
    right.set(xlabel="tomograms picked", ylabel="seconds per tomogram",
              ylim=(0, 3 * float(np.median(watched["seconds"]))))
    figure.savefig(path, dpi=110)


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
