"""Faults in Scipion: protocols are disturbed, continued as Scipion does, and compared with undisturbed ones.

The set that *pick* gets grows meanwhile: two of its four tomograms are there at the start, one comes on the way, and
the last one when the disturbed run has ended. Whoever imports this has set up a Scipion before (``conftest.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np
from bench import half_written
from kinds import DAMAGED, FULL, UNREADABLE, spoil
from pyworkflow.object import Set

from deepetpicker.io.modelcard import read_card
from deepetpicker.io.volumes import open_volume, write_volume
from deepetpicker_plugin.engine.process import isEngine
from deepetpicker_plugin.protocols import ProtDeepETPickerPick, ProtDeepETPickerPropose, ProtDeepETPickerTrain
from deepetpicker_plugin.tests.base import TINY, PluginTest, extend, positions, tinyModel

VERBS = ("pick", "train", "propose")
LONGEST_S = 180.0
PROTOCOLS = {"pick": ProtDeepETPickerPick, "train": ProtDeepETPickerTrain, "propose": ProtDeepETPickerPropose}
READ_ONLY = r"[Rr]ead-only"


class Project(PluginTest):
    """The project of the harness."""


class Bench:
    """A project with tomograms, particles and a model, and what undisturbed protocols give.

    Parameters
    ----------
    folder : pathlib.Path
        An empty folder, for what is set aside.
    verbs : sequence of str
        What will be disturbed.
    """

    def __init__(self, folder: pathlib.Path, verbs: Sequence[str] = VERBS) -> None:
        self.folder = folder
        Project.setUpClass()
        made = Project.simulate(n=4, shape="24,48,48", particles=8, phantoms="ring")
        self.tomograms, self.coordinates = made.tomograms, made.coordinates
        self.items = [tomogram.clone() for tomogram in made.tomograms.iterItems()]
        self.files = [pathlib.Path(item.getFileName().replace(":mrc", "")).resolve() for item in self.items]
        self.model = Project.importModel(tinyModel("ring"))
        self.seconds: Dict[str, float] = {}
        self._expected: Dict[Any, Any] = {}
        for verb in verbs:
            self.expected(verb)

    def expected(self, verb: str, changed: bool = False) -> Any:
        """Return what an undisturbed protocol gives; with a tomogram that is another one where it is changed."""
        if (verb, changed) not in self._expected:
            case, begin = Case(self, verb), time.monotonic()
            with other_data(self.files[1]) if changed else contextlib.nullcontext():
                case.start()
                told = case.end()
            if not case.protocol.isFinished():
                raise RuntimeError(f"{verb} undisturbed: {told}")
            self.seconds.setdefault(verb, time.monotonic() - begin)
            self._expected[verb, changed] = case.result()
        return self._expected[verb, changed]


class Case:
    """One protocol that is disturbed and continued.

    Parameters
    ----------
    bench : Bench
        Where it runs.
    verb : str
        Which protocol.
    """

    def __init__(self, bench: Bench, verb: str) -> None:
        self.bench, self.verb = bench, verb
        self.tomograms, self.waiting = bench.tomograms, []  # type: ignore[var-annotated]
        if verb == "pick":
            self.tomograms, self.waiting = Project.growing(bench.tomograms, bench.items[:2]).tomograms, bench.items[2:]
        settings = {
            "pick": {"inputTomograms": self.tomograms, "inputModel": bench.model, "threshold": 0.3, "useGpu": False,
                     "binThreads": 1, "tomogramsPerStart": 2, "streamingSleepOnWait": 1},
            "train": {"inputCoordinates": bench.coordinates, "diameterAngstrom": "168", "useGpu": False,
                      **TINY, "epochs": 3},
            "propose": {"inputTomograms": self.tomograms, "diameterAngstrom": 168.0, "method": 1}}[verb]
        self.protocol = Project.newProtocol(PROTOCOLS[verb], **settings)
        Project.proj.saveProtocol(self.protocol)
        self.protocol.makePathsAndClean()
        self.path = pathlib.Path(self.protocol._getPath()).resolve()
        self.spoiled = ("", b"")  # path and content of what was damaged
        self.extra = self.path / "extra"

    def start(self) -> None:
        """Launch or continue it, as its form does, which looks for mistakes first."""
        problems = self.protocol.validate()
        if problems:
            raise RuntimeError(f"the form says {problems}")
        Project.proj.launchProtocol(self.protocol, wait=False)

    def grow(self, count: int) -> None:
        """Let some tomograms come; with the last one the set is closed."""
        chunk, self.waiting = self.waiting[:count], self.waiting[count:]
        if chunk:
            extend(self.tomograms, chunk, Set.STREAM_OPEN if self.waiting else Set.STREAM_CLOSED)

    def moment(self, rng: np.random.Generator) -> None:
        """Wait for a random part of what the protocol takes; on the way a tomogram comes."""
        seconds = float(rng.uniform(0.02, 1)) * self.bench.seconds[self.verb]
        time.sleep(seconds / 2)
        self.grow(1)
        time.sleep(seconds / 2)

    def end(self) -> str:
        """Let the last tomograms come, wait for the end, and return what it said: error, failed tomograms, log."""
        self.grow(len(self.waiting))
        deadline = time.monotonic() + LONGEST_S
        while Project.refresh(self.protocol).isActive():  # the process of a failed one may still wait for an engine
            if time.monotonic() > deadline:
                self.signal(("protocol", "engine"), signal.SIGKILL)
                raise RuntimeError(f"it did not end within {LONGEST_S:.0f} s")
            time.sleep(0.1)
        failed = getattr(self.protocol, "failedTomograms", None)
        reasons = [t._failure.get() for t in failed.iterItems()] if failed is not None else []
        if failed is not None:
            failed.close()
        logs = [path.read_text("utf-8", "replace")[-4000:] for path in sorted((self.path / "logs").glob("run.std*"))]
        return "\n".join([self.protocol.getErrorMessage() or "", *reasons, *logs])

    def engines(self) -> List[int]:
        """Return the engines that are said to run for it."""
        numbers = []
        for path in self.extra.rglob("engine.pid"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                numbers.append(int(path.read_text().split()[1]))
        return [number for number in numbers if isEngine(number)]

    def signal(self, victims: Sequence[str], number: int) -> None:
        """Send a signal to the protocol's process, to its engines, or to both."""
        pids = self.engines() if "engine" in victims else []
        pids += [Project.refresh(self.protocol).getPid()] if "protocol" in victims else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, number)

    def failed(self) -> bool:
        """Tell whether it, or a tomogram in it, has failed."""
        failed = getattr(self.protocol, "failedTomograms", None)
        return not self.protocol.isFinished() or (failed is not None and failed.getSize() > 0)

    def result(self) -> Any:
        """Return what must not depend on disturbances: weights and metrics, or coordinates by tomogram."""
        if self.verb == "train":
            from safetensors.numpy import load_file

            model, rows = self.protocol.model.getFileName(), pathlib.Path(self.protocol.getMetricsFile())
            return {"weights": {name: value.tobytes() for name, value in load_file(model).items()},
                    "thresholds": read_card(model).thresholds,
                    "rows": [line.split(",")[:14] for line in rows.read_text().splitlines()]}
        output = self.protocol.coordinates
        found = {ts: rows.tobytes() for ts, rows in positions(output).items()}
        rows_in_all = sum(len(rows) for rows in positions(output).values())
        output.close()
        if output.getSize() != rows_in_all or output.isStreamOpen():
            raise RuntimeError(f"{rows_in_all} rows in a set that says {output}")
        return found

    def left(self) -> str:
        """Return what was left behind or is not whole; empty when nothing is."""
        for path in self.path.rglob("*.sqlite"):
            with contextlib.closing(sqlite3.connect(path)) as database:
                if database.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                    return f"{path.name} is damaged"
        names = [name for name, _ in self.protocol.iterOutputAttributes() if name != "failedTomograms"]
        failed = getattr(self.protocol, "failedTomograms", None)
        if names != ["model" if self.verb == "train" else "coordinates"] or (failed is not None and failed.getSize()):
            return f"outputs: {names}, {failed}"
        path, content = pathlib.Path(self.spoiled[0]), self.spoiled[1]
        for kept in (path, path.parent / "earlier" / path.name) if self.verb == "pick" else ():
            if kept.is_file() and kept.read_bytes() == content:
                kept.unlink()  # a new start of the engine has a new folder, and that of the killed one stays as it is
        return f"orphans: {self.engines()}" if self.engines() else half_written(self.extra)


# ---- the kinds: each does its harm to a protocol that runs, and returns what it said when it had ended
def signalled(number: int, victims: Sequence[str], case: Case, rng: np.random.Generator) -> str:
    """Send a signal at a random moment."""
    case.start()
    case.moment(rng)
    case.signal(victims, number)
    return case.end()


def stopped(case: Case, rng: np.random.Generator) -> str:
    """Stop it at a random moment, as the button does."""
    case.start()
    case.moment(rng)
    Project.waitFor(lambda: Project.refresh(case.protocol).getPid() or not case.protocol.isActive(), 60,
                    "a process, for Scipion stops no other, or the end")
    if case.protocol.isActive():
        Project.proj.stopProtocol(case.protocol)
    return case.end()


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: int) -> Iterator[None]:
    """Put a file system of size bytes where outputs go; what was written is carried over. Needs root."""
    kept = folder.with_name("kept")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
        shutil.copytree(folder, kept, symlinks=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
    shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(kept)


def full_disk(case: Case, rng: np.random.Generator) -> str:
    """Let there be too little room for what the engine writes."""
    with small_disk(case.extra, 4096 * int(rng.integers(1, 60))):
        case.start()
        return case.end()


def read_only(case: Case, rng: np.random.Generator) -> str:
    """Take the right to write away at a random moment, from the folder that the engine writes into. Needs root."""
    case.start()
    case.moment(rng)
    subprocess.run(["mount", "--bind", str(case.extra), str(case.extra)], check=True)
    try:
        Project.waitFor(lambda: not subprocess.run(["mount", "-o", "remount,bind,ro", str(case.extra)], check=False,
                                                   capture_output=True).returncode, 20, "a moment without a writer")
        return case.end()
    finally:
        subprocess.run(["umount", "-l", str(case.extra)], check=True)


def damaged(patterns: Sequence[str], case: Case, rng: np.random.Generator) -> str:
    """Kill engine and protocol at a random moment and damage the newest file of a kind."""
    told = signalled(signal.SIGKILL, ("engine", "protocol"), case, rng)
    found = sorted((path for pattern in patterns for path in case.extra.rglob(pattern) if path.is_file()),
                   key=lambda path: path.stat().st_mtime_ns)
    if found and not case.protocol.isFinished():  # what has ended well is not made again
        spoil(found[-1], DAMAGED[int(rng.integers(3))], rng)
        case.spoiled = (str(found[-1]), found[-1].read_bytes())
    return told


def cut(case: Case, rng: np.random.Generator) -> str:
    """Cut a tomogram at a random moment, as a failing copy does, and put it back when the protocol has ended."""
    path = case.bench.files[int(rng.integers(len(case.bench.files)))]
    content, state = path.read_bytes(), path.stat()
    case.start()
    case.moment(rng)
    os.truncate(path, int(rng.integers(0, len(content))))
    try:
        return case.end()
    finally:
        with open(path, "r+b") as stream:
            stream.write(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@contextlib.contextmanager
def other_data(path: pathlib.Path) -> Iterator[None]:
    """Let a tomogram be its negative for a while."""
    content, state, volume = path.read_bytes(), path.stat(), open_volume(path, quiet=True)
    write_volume(path.with_name("new.mrc"), -np.array(volume.data_zyx), volume.voxel_size_ang)
    os.replace(path.with_name("new.mrc"), path)
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def plain(case: Case, rng: np.random.Generator) -> str:
    """Disturb nothing: the moment at which an input is exchanged is that of the kind."""
    case.start()
    case.moment(rng)
    return ""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes
    ----------
    fault : callable
        Disturbs a protocol; returns what it said.
    verbs : tuple of str
        Where it can strike.
    says : str
        Regular expression of what a protocol that did not end well must say.
    changed : bool
        Whether a tomogram is another one from the fault on.
    """

    fault: Callable[[Case, np.random.Generator], str]
    verbs: Tuple[str, ...] = VERBS
    says: str = ""
    changed: bool = False


def signals(number: int, *victims: str, says: str = "") -> Kind:
    """Return the kind of fault that sends a signal."""
    return Kind(functools.partial(signalled, number, victims), says=says)


def damage(*patterns: str, verbs: Tuple[str, ...] = VERBS) -> Kind:
    """Return the kind of fault that damages files of some names."""
    return Kind(functools.partial(damaged, patterns), verbs)


KINDS: Dict[str, Kind] = {
    "SIGKILL protocol": signals(signal.SIGKILL, "protocol"),
    "SIGKILL engine": signals(signal.SIGKILL, "engine", says="signal 9"),
    "SIGKILL both": signals(signal.SIGKILL, "engine", "protocol"),
    "SIGTERM protocol": signals(signal.SIGTERM, "protocol"),
    "SIGTERM engine": signals(signal.SIGTERM, "engine", says="interrupted"),
    "SIGTERM both": signals(signal.SIGTERM, "engine", "protocol"),
    "stopped": Kind(stopped),
    "full disk": Kind(full_disk, says=FULL),
    "read-only": Kind(read_only, says=READ_ONLY),
    "tomogram cut": Kind(cut, says=UNREADABLE),
    "input changed": Kind(plain, says=UNREADABLE, changed=True),
    "manifest damaged": damage("manifest.json"),
    "params damaged": damage("params.json"),
    "record damaged": damage("records/*.json", verbs=("pick",)),
    "table damaged": damage("*.csv"),
    "checkpoint damaged": damage("last.ckpt", "*.safetensors", verbs=("train",)),
}
NEED_ROOT = ("full disk", "read-only")


def places() -> List[Tuple[str, str]]:
    """Return all pairs of a kind and a protocol where it can strike."""
    return [(name, verb) for name, kind in KINDS.items() for verb in kind.verbs]


def survive(bench: Bench, name: str, verb: str, rng: np.random.Generator) -> str:
    """Disturb a protocol once, continue it, and return what is wrong; empty when nothing is."""
    kind, case = KINDS[name], Case(bench, verb)
    allowed = [bench.expected(verb, changed) for changed in {False, kind.changed}]
    try:
        told = kind.fault(case, rng)
        with other_data(bench.files[1]) if kind.changed else contextlib.nullcontext():
            told = told or case.end()
            if case.failed() and not re.search(kind.says, told):
                return f"does not say what happened: {told[:400]} ... {told[-600:]}"
            case.start()
            told = case.end()
            if not case.protocol.isFinished():
                return f"going on ended with: {told[:400]} ... {told[-600:]}"
            return case.left() or ("" if is_one_of(case.result(), allowed) else "another result")
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def is_one_of(result: Dict[str, Any], allowed: Sequence[Dict[str, Any]]) -> bool:
    """Tell whether a result is one of some; of picks each tomogram counts by itself, as it was when it was picked."""
    if "weights" in result:
        return any(result == one for one in allowed)
    names = {name for one in allowed for name in one}
    return set(result) <= names and all(any(result.get(n) == one.get(n) for one in allowed) for n in names)
