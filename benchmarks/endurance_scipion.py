"""A thousand small tomograms in one growing Scipion set: memory, open files, seconds, and ten kills on the way.

Usage: python benchmarks/endurance_scipion.py [--tomograms 1000] [--kills 10] [--plot PICTURE.png]

The set grows by 20 tomograms whenever fewer than 10 wait, and closes with the last. It is picked twice by the protocol
*pick*: undisturbed, its process watched from outside; and killed at random, the protocol, its engine or both in turn,
and continued as Scipion does. Both outputs are compared with what ``deepetpicker pick`` gives by itself.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import pathlib
import re
import signal
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
importlib.import_module("conftest")  # a Scipion of its own, before pyworkflow is imported
import endurance  # noqa: E402
from pyworkflow.object import Set  # noqa: E402

from deepetpicker.io.coordinates import read_coordinates  # noqa: E402
from deepetpicker_plugin.engine.process import isEngine  # noqa: E402
from deepetpicker_plugin.protocols import ProtDeepETPickerPick  # noqa: E402
from deepetpicker_plugin.sets import picked  # noqa: E402
from deepetpicker_plugin.tests.base import PluginTest, extend, positions  # noqa: E402

GROWTH, WAITING = 20, 10
Tables = Dict[str, np.ndarray]
say = endurance.say


class Endurance(PluginTest):
    """The project, and the tables that the engine gives by itself."""

    @classmethod
    def prepare(cls, work: pathlib.Path, count: int) -> None:
        """Write tomograms and model, pick them with the engine alone, import both."""
        words = [word for word in endurance.prepare(work, count) if word not in ("--precision", "float32")]
        if endurance.start(words, work / "alone").wait():
            raise RuntimeError((work / "alone.log").read_text()[-2000:])
        cls.setUpClass()
        cls.model = cls.importModel(str(work / "m.safetensors"))
        cls.closed = cls.importTomograms(str(work / "data"))
        cls.items = [tomogram.clone() for tomogram in cls.closed.iterItems()]
        tables = {path.stem: read_coordinates(path) for path in (work / "alone").glob("*.csv")}
        cls.wanted = {name: np.array(sorted(zip(*t.positions_zyx_vox.T[::-1].tolist(), t.class_ids.tolist(),
                                                t.scores.tolist())))
                      for name, t in tables.items() if len(t) and not name.endswith("_candidates")}


class Growing:
    """One picking of the set while it grows.

    Parameters
    ----------
    project : Endurance
        What is picked.
    """

    def __init__(self, project: Any) -> None:
        self.project, self.items = project, list(project.items)
        first, self.items = self.items[:GROWTH], self.items[GROWTH:]
        self.tomograms = project.growing(project.closed, first).tomograms
        self.begin, self.runs = time.time(), 1
        self.protocol = project.run_(ProtDeepETPickerPick, wait=False, inputTomograms=self.tomograms,
                                     inputModel=project.model, threshold=0.2, streamingSleepOnWait=1, binThreads=1,
                                     useGpu=False)
        self.folder = self.protocol._getExtraPath("picks")

    def records(self) -> List[float]:
        """Return when each tomogram was picked, seconds since the start; one picked twice is there twice."""
        found = pathlib.Path(self.folder).glob("batch_*/records/[!.]*.json")
        return sorted(path.stat().st_mtime - self.begin for path in found)

    def has(self, goal: int) -> bool:
        """Tell whether so many tomograms were picked."""
        return len(self.records()) >= goal

    def grow(self) -> None:
        """Append some tomograms when few are waiting."""
        known = len(self.project.items) - len(self.items)
        if self.items and known - len(self.records()) < WAITING:
            chunk, self.items = self.items[:GROWTH], self.items[GROWTH:]
            extend(self.tomograms, chunk, Set.STREAM_OPEN if self.items else Set.STREAM_CLOSED)

    def pid(self) -> int:
        """Return the process of the protocol."""
        return int(self.project.waitFor(lambda: self.project.refresh(self.protocol).getPid() or 0, 60, "a process"))

    def until(self, condition: Callable[[], Any], watch: Callable[[], None] = lambda: None) -> None:
        """Let the set grow until a condition holds or the protocol ends."""
        while self.project.refresh(self.protocol).isActive() and not condition():
            self.grow()
            watch()
            time.sleep(0.5)

    def go_on(self) -> None:
        """Continue the protocol, as its form does."""
        problems = self.protocol.validate()
        if problems:
            raise RuntimeError(str(problems))
        self.project.proj.launchProtocol(self.protocol, wait=False)
        self.runs += 1

    def kill(self, victims: str) -> None:
        """Kill the engine that picks at the moment, the process of the protocol, or both."""
        engines = [int(path.read_text().split()[1]) for path in pathlib.Path(self.folder).rglob("engine.pid")]
        victim = [pid for pid in engines if isEngine(pid)] if victims != "protocol" else []
        for pid in victim + ([self.pid()] if victims != "engine" else []):
            os.kill(pid, signal.SIGKILL)
        if victims != "engine":
            self.project.waitEnd(self.protocol)
            self.go_on()

    def end(self) -> None:
        """Wait for the end; go on once more where a tomogram was blamed for an engine that was killed."""
        self.until(lambda: False)
        failed = getattr(self.protocol, "failedTomograms", None)
        if failed is not None and failed.getSize():
            self.go_on()
            self.until(lambda: False)
        if not self.protocol.isFinished():
            raise RuntimeError(f"the protocol failed: {self.protocol.getErrorMessage()}")

    def problems(self) -> List[str]:
        """Return in what the output differs from the engine's own tables, and what was left behind."""
        found, wanted = positions(self.protocol.coordinates), self.project.wanted
        lines = [f"{ts}: other picks" for ts in sorted({*found, *wanted})
                 if not same(found.get(ts, np.empty(0)), wanted.get(ts, np.empty(0)))]
        if self.protocol.coordinates.getSize() != sum(map(len, wanted.values())):
            lines.append(f"the set says it has {self.protocol.coordinates.getSize()} picks")
        outputs = [name for name, _ in self.protocol.iterOutputAttributes() if name != "failedTomograms"]
        lines += [] if outputs == ["coordinates"] else [f"outputs: {outputs}"]
        starts = [ts for folder in picked.batches(self.folder) for ts, item in picked.itemsOf(folder).items()
                  if item["status"] == "done"]
        lines += [f"{len(starts) - len(set(starts))} tomograms picked twice"] if len(starts) > len(set(starts)) else []
        text = " ".join(self.protocol.summary())
        lines += [] if f"in {len(self.project.items)} tomograms" in text else [f"summary: {text}"]
        return lines + [f"left behind: {path}" for path in pathlib.Path(self.folder).rglob("engine.pid")]


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Tell whether picks are the same; Scipion counts from the middle, which costs the last digits of a position."""
    return found.shape == wanted.shape and bool(np.allclose(found, wanted, rtol=0, atol=1e-9))


def watched(project: Any) -> Tuple[Growing, np.ndarray]:
    """Pick undisturbed; return the run and samples.

    They are tomograms done, resident bytes, open files, processor seconds, and those of the engines that have ended.
    """
    run, samples = Growing(project), []
    pid, tick = run.pid(), os.sysconf("SC_CLK_TCK")

    def look() -> None:
        try:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            files = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return
        resident = re.search(r"VmRSS:\s+(\d+)", status)
        if resident:
            samples.append((len(run.records()), int(resident.group(1)) * 1024, files,
                            (int(fields[11]) + int(fields[12])) / tick, (int(fields[13]) + int(fields[14])) / tick))

    run.until(lambda: False, look)
    run.end()
    return run, np.array(samples, float)


def report(run: Growing, samples: np.ndarray) -> None:
    """Print what was seen."""
    count = len(run.project.items)
    tenth, stamps = max(GROWTH, count // 10), np.array(run.records())
    number, resident, files, processor, engines = samples.T
    settled = number > tenth
    slope = np.polyfit(number[settled], resident[settled], 1)[0]
    say(f"{count} tomograms of {' x '.join(map(str, endurance.SHAPE[::-1]))} voxels, "
        f"{run.protocol.coordinates.getSize()} picks, in {stamps[-1]:.0f} s")
    say(f"memory of the protocol {resident[settled].min() / 1e6:.0f} to {resident[settled].max() / 1e6:.0f} MB, slope "
        f"{slope / 1e6 * 100:.2f} MB per 100 tomograms; open files {files[settled].min():.0f} to {files.max():.0f}, "
        f"{files[-1]:.0f} at the end")
    say(f"seconds per tomogram: first tenth {stamps[tenth - 1] / tenth:.2f}, second "
        f"{(stamps[2 * tenth - 1] - stamps[tenth - 1]) / tenth:.2f}, last "
        f"{(stamps[-1] - stamps[-tenth - 1]) / tenth:.2f}")
    for who, clock in (("the protocol", processor), ("the engine", engines)):
        used = np.interp([tenth, 2 * tenth, count - tenth, count], number, clock)
        say(f"processor seconds of {who} per tomogram: second tenth {(used[1] - used[0]) / tenth:.4f}, last "
            f"{(used[3] - used[2]) / tenth:.4f}; {clock[-1]:.0f} in all")
    begin = time.monotonic()
    run.protocol.summary()
    say(f"its summary takes {time.monotonic() - begin:.2f} s at the end")
    for function, seconds in step_seconds(run.protocol).items():
        part = max(1, len(seconds) // 10)
        say(f"{function}: {len(seconds)} steps, median {np.median(seconds):.2f} s, of the first tenth "
            f"{np.median(seconds[:part]):.2f}, of the last {np.median(seconds[-part:]):.2f}")


def step_seconds(protocol: Any) -> Dict[str, List[float]]:
    """Return how long the steps of a protocol took, by function, in their order."""
    found: Dict[str, List[float]] = {}
    for step in protocol.loadSteps():
        found.setdefault(step.funcName.get(), []).append(step.getElapsedTime().total_seconds())
    return {name: seconds for name, seconds in found.items() if len(seconds) > 1}


def killed(project: Any, kills: int) -> Growing:
    """Pick, with kills at random moments."""
    run, rng = Growing(project), np.random.default_rng(1)
    for number, goal in enumerate(sorted(rng.integers(1, len(project.items), kills).tolist())):
        run.until(functools.partial(run.has, goal))
        run.kill(("protocol", "both", "engine")[number % 3])
    run.end()
    return run


def plot(path: pathlib.Path, stamps: np.ndarray, samples: np.ndarray) -> None:
    """Draw memory, and seconds of each start of the engine, over the number of tomograms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    left.plot(samples[:, 0], samples[:, 1] / 1e6)
    left.set(xlabel="tomograms picked", ylabel="memory of the protocol [MB]", ylim=(0, None))
    ends = np.arange(GROWTH, len(stamps) + 1, GROWTH)
    right.plot(ends[1:], np.diff(stamps[ends - 1]) / GROWTH, ".", markersize=4, label="in all")
    for label, column in (("processor, engine", 4), ("processor, protocol", 3)):
        used = np.interp(ends, samples[:, 0], samples[:, column])
        right.plot(ends[1:], np.diff(used) / GROWTH, ".", markersize=4, label=label)
    right.set(xlabel="tomograms picked", ylabel="seconds per tomogram", ylim=(0, None))
    right.legend()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure and print; return 1 when something differs."""
    args = endurance.arguments(__doc__, fewest=2 * GROWTH)
    logging.getLogger("pyworkflow").setLevel(logging.ERROR)
    target = args.plot.resolve() if args.plot else None
    with tempfile.TemporaryDirectory() as folder:
        Endurance.prepare(pathlib.Path(folder), args.tomograms)
        run, samples = watched(Endurance)
        report(run, samples)
        if target:
            plot(target, np.array(run.records()), samples)
        found = run.problems()
        say(f"compared with the engine alone: {'; '.join(found) or 'the same picks'}")
        if args.kills:
            run = killed(Endurance, args.kills)
            more = run.problems()
            say(f"killed {args.kills} times, started {run.runs} times: {'; '.join(more) or 'the same picks'}")
            found += more
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
