"""Kill a command at random moments, go on with it, and compare with an undisturbed run.

``python tests/faults/kill.py --faults 60 --seed 1`` prints how many were survived, by command and signal.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Sequence

import numpy as np

from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.modelcard import read_card
from deepetpicker.io.volumes import open_volume

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TRAIN = ("--epochs", "3", "--patch", "32", "--widths", "4,6", "--patches-per-epoch", "16", "--batch", "4", "--device",
         "cpu", "--precision", "float32", "--validation-tiles", "4", "--seed", "1", "--no-check", "--quiet")


class Bench:
    """Data, a model, and what undisturbed runs of ``train`` and ``pick`` give."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.data, self._count = folder, folder / "data", 0
        self._run("simulate", self.data, "--n", 3, "--shape", "32,56,64", "--particles", 12, "--voxel-size", 20,
                  "--phantoms", "ring", "--gold", 0, "--membranes", 0, "--quiet")
        self.seconds: Dict[str, float] = {}
        self.expected: Dict[str, Any] = {}
        self.model = folder / "whole" / "m.safetensors"
        for verb in ("train", "pick"):
            start, out = time.monotonic(), self.out(verb, folder / "whole")
            self._run(*self.words(verb, out))
            self.seconds[verb], self.expected[verb] = time.monotonic() - start, self.result(verb, out)

    def words(self, verb: str, out: pathlib.Path) -> List[Any]:
        """Return the command line of a verb."""
        if verb == "train":
            return ["train", "--data", self.data, "--out", out, *TRAIN]
        tomograms = [self.data / f"tomo_{k:02d}.mrc" for k in range(3)]
        return ["pick", self.model, *tomograms, "--out", out, "--device", "cpu", "--precision", "float32", "--resume",
                "--threshold", 0.3, "--quiet"]

    @staticmethod
    def out(verb: str, folder: pathlib.Path) -> pathlib.Path:
        """Return where a verb writes to."""
        return folder / ("m.safetensors" if verb == "train" else "picks")

    @staticmethod
    def result(verb: str, out: pathlib.Path) -> Any:
        """Return what must not depend on disturbances: weights and thresholds, or the bytes of the tables."""
        if verb == "pick":
            items = json.loads((out / "manifest.json").read_text())["items"]
            tables = {path.name: path.read_bytes() for path in sorted(out.glob("*.csv"))}
            return [(item["name"], item["status"], item["n_picks"]) for item in items], tables
        from safetensors.numpy import load_file

        card = read_card(out)
        return {k: v.tobytes() for k, v in load_file(out).items()}, card.thresholds, card.training["kept_epoch"]

    def survive(self, verb: str, number: signal.Signals, rng: np.random.Generator) -> str:
        """Disturb a run once, go on, and return what is wrong; empty when nothing is."""
        self._count += 1
        folder = self.folder / f"run{self._count}"
        folder.mkdir()
        out = self.out(verb, folder)
        process = start(self.words(verb, out))
        time.sleep(float(rng.uniform(0.2, 1)) * self.seconds[verb])
        process.send_signal(number)
        process.communicate(timeout=120)
        problem = orphans(process.pid) or half_written(folder)
        again = start(self.words(verb, out))
        told = again.communicate(timeout=300)[1].decode()
        if again.returncode:
            return f"{problem} going on ended with {again.returncode}: {told[-300:]}"
        problem = problem or half_written(folder) or orphans(again.pid)
        return problem or ("" if self.result(verb, out) == self.expected[verb] else "another result")

    def _run(self, *words: Any) -> None:
        """Run a command undisturbed."""
        process = start(words)
        told = process.communicate(timeout=300)[1].decode()
        if process.returncode:
            raise RuntimeError(told)


def start(words: Sequence[Any]) -> subprocess.Popen:
    """Start a command in a session of its own."""
    return subprocess.Popen([sys.executable, "-m", "deepetpicker", *map(str, words)], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, start_new_session=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def orphans(session: int) -> str:
    """Return which processes of a session still run a second after its first has ended."""
    left: List[str] = []
    for _ in range(10):
        left = []
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                left.append(path.parent.name)
        if not left:
            return ""
        time.sleep(0.1)
    return f"orphans: {', '.join(left)}"


def half_written(folder: pathlib.Path) -> str:
    """Return which file under its final name cannot be read; files that begin with a dot have no final name."""
    readers = {".csv": read_csv, ".json": lambda p: json.loads(p.read_text()), ".safetensors": read_card,
               ".mrc": lambda p: open_volume(p, quiet=True)}
    for path in folder.rglob("*"):
        if path.suffix not in readers or path.name.startswith("."):
            continue
        try:
            readers[path.suffix](path)
        except Exception as error:  # whatever it is, the file is not whole
            return f"{path.name} is not whole: {error}"
    return ""


def read_csv(path: pathlib.Path) -> Any:
    """Read a pick table, or the metrics of a training, whose lines must have as many cells as its header."""
    lines = path.read_text().splitlines()
    if lines and "epoch" in lines[0]:
        assert {line.count(",") for line in lines} == {lines[0].count(",")}
        return lines
    return read_coordinates(path)


def main() -> int:
    """Run the command line; return 1 when something was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    args = parser.parse_args()
    rng, tried, survived = np.random.default_rng(args.seed), collections.Counter(), collections.Counter()  # type: Any
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(pathlib.Path(folder))
        for index in range(args.faults):
            if time.monotonic() - begin > args.seconds:
                break
            verb, number = ("pick", "train")[index % 2], SIGNALS[index // 2 % 3]
            problem = bench.survive(verb, number, rng)
            tried[verb, number.name] += 1
            survived[verb, number.name] += not problem
            print(f"{index:4} {verb:6}{number.name:9}{problem or 'survived'}", flush=True)
    for key in sorted(tried):
        print(f"{key[0]:6}{key[1]:9}{tried[key]:5} tried{survived[key]:5} survived")
    print(f"{sum(tried.values())} tried, {sum(survived.values())} survived, {time.monotonic() - begin:.0f} s")
    return int(tried != survived)


if __name__ == "__main__":
    sys.exit(main())
