"""What the fault harness disturbs: small runs of train, pick, propose, annotate and report in processes of their own.

Processes are forked from one that has torch loaded, so that a run takes seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from detectors import write_detector

from deepetpicker.io.atomic import whole
from deepetpicker.io.coordinates import read_coordinates
from deepetpicker.io.manifest import read_manifest
from deepetpicker.io.modelcard import ClassCard, read_card
from deepetpicker.io.regions import REGIONS, read_regions
from deepetpicker.io.volumes import open_volume

TRAIN = ("--epochs", "3", "--patch", "32", "--widths", "4,6", "--patches-per-epoch", "4", "--batch", "2", "--device",
         "cpu", "--precision", "float32", "--validation-tiles", "2", "--seed", "1", "--no-check", "--quiet")
VERBS = ("pick", "train", "propose", "annotate", "report")
CHANGES = 120  # made in an annotation
LONGEST_S = 180.0
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["deepetpicker.training.run", "deepetpicker.picking.run", "deepetpicker.proposing.run",
                              "torch.utils.tensorboard", "torch._dynamo", "deepetpicker.annotation.versions",
                              "deepetpicker.report.run", "matplotlib.backends.backend_agg"])
Before = Optional[Callable[[], None]]


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended: exit status (negative: the signal that ended it) and what it told."""

    status: int
    told: str


class Run:
    """A command in a process and session of its own.

    Parameters
    ----------
    words : sequence
        The command line.
    log : path
        Gets what it writes.
    before : callable, optional
        Called in the process before the command; can be pickled.
    """

    def __init__(self, words: Sequence[Any], log: pathlib.Path, before: Before = None) -> None:
        self.log, begun = log, FORKS.Event()
        self._process = FORKS.Process(target=_in_child, args=([str(word) for word in words], str(log), before, begun))
        self._process.start()
        begun.wait(LONGEST_S)  # a signal before it would end the fork, not the command
        self.pid = int(self._process.pid or 0)

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, longest_s: float = LONGEST_S) -> Ended:
        """Wait for the end; what takes longer than longest_s is killed and has the status -99."""
        self._process.join(longest_s)
        late = self._process.exitcode is None
        if late:
            self.signal(signal.SIGKILL)
            self._process.join()
        told = self.log.read_text("utf-8", "replace") if self.log.is_file() else ""
        return Ended(-99 if late else int(self._process.exitcode or 0), told)


def _in_child(words: List[str], log: str, before: Before, begun: Any) -> None:
    """Run a command in a forked process; begun is set when it can be disturbed."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from deepetpicker.__main__ import main

    begun.set()
    if before is not None:
        before()
    if words[0] == "annotate":
        sys.exit(annotate(words))
    sys.exit(main(words))


def annotate(words: List[str]) -> int:
    """Make the changes of an annotation that are not in its journal yet, then write the tables with ``annotate``."""
    from deepetpicker.__main__ import console, main, report
    from deepetpicker.annotation.session import Session

    try:
        with console(debug=False, quiet=True):
            for _ in range(2):  # it is closed and opened again half way
                with Session(pathlib.Path(words[words.index("--out") + 1])) as session:
                    _change(session, words[1:words.index("--out")])
    except BaseException as error:  # what the window would show
        return report("annotate", error)
    return main([*words, "--tables-only", "--quiet"])


def _change(session: Any, tomograms: Sequence[str]) -> None:
    """Go on with the changes up to half of them, or to the end."""
    from deepetpicker.annotation.records import AnnotatedTomogram, Particle
    from deepetpicker.io.classes import ParticleClass

    volumes = [open_volume(path, quiet=True) for path in tomograms]
    session.set_tomograms([AnnotatedTomogram(v.name, str(v.path), v.voxel_size_ang, v.shape_zyx) for v in volumes])
    if not session.classes:
        session.set_classes([ParticleClass(1, "ring", 160.0)])
    goal = CHANGES // 2 if session.sequence < CHANGES // 2 else CHANGES
    while session.sequence < goal:
        rng = np.random.default_rng(session.sequence)
        volume = volumes[int(rng.integers(len(volumes)))]
        there = session.particles(volume.name)
        if rng.random() < 0.15 and there:
            session.remove("particle", volume.name, max(there))
        else:
            position = tuple((rng.random(3) * (np.array(volume.shape_zyx) - 1)).round(2).tolist())
            session.add(volume.name, Particle(position, 1, 1.0, reviewed=True))
        time.sleep(0.003)


class Bench:
    """Data, a model, and what undisturbed runs of each verb give.

    Parameters
    ----------
    folder : pathlib.Path
        An empty folder.
    verbs : sequence of str
        What will be disturbed.
    """

    def __init__(self, folder: pathlib.Path, verbs: Sequence[str] = VERBS) -> None:
        self.folder, self._count = folder, 0
        os.chmod(folder, 0o755)
        self.model = folder / "model.safetensors"
        self._must(["simulate", folder / "data", "--n", 3, "--shape", "32,56,64", "--particles", 12, "--voxel-size", 20,
                    "--phantoms", "ring", "--gold", 0, "--membranes", 0, "--quiet"])
        write_detector(self.model, ClassCard(1, "ring", 160.0, 8.0), gain=12.0, voxel_size_ang=20.0, patch_vox=32,
                       border_vox=8)
        self.seconds: Dict[str, float] = {}
        self._expected: Dict[Any, Any] = {}
        for verb in verbs:
            self.expected(verb)

    def place(self) -> pathlib.Path:
        """Return a new folder with the data in it."""
        self._count += 1
        folder = self.folder / f"run{self._count}"
        for name in ("data", "picks"):
            if (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, folder / name)
        (folder / "out").mkdir()
        return folder

    def words(self, verb: str, folder: pathlib.Path) -> List[Any]:
        """Return the command line of a verb in a folder of :meth:`place`; it writes into ``out/`` alone."""
        out, tomograms = folder / "out", [folder / "data" / f"tomo_{k:02d}.mrc" for k in range(3)]
        if verb == "train":
            return ["train", "--data", folder / "data", "--out", out / "m.safetensors", *TRAIN]
        if verb == "pick":
            return ["pick", self.model, *tomograms, "--out", out / "picks", "--device", "cpu", "--precision", "float32",
                    "--resume", "--threshold", 0.2, "--quiet"]
        if verb == "propose":
            return ["propose", *tomograms, "--out", out / "found", "--diameter-angstrom", 160, "--method",
                    "blob", "--like",
                    folder / "data", "--quiet"]
        if verb == "report":
            return ["report", folder / "picks", "--out", out / "page.html", "--tomograms", folder / "data"]
        return ["annotate", *tomograms, "--out", out / "annotation"]

    def start(self, verb: str, folder: pathlib.Path, before: Before = None) -> Run:
        """Start a verb in a folder."""
        return Run(self.words(verb, folder), folder / "log", before)

    def expected(self, verb: str, changed: Optional[Callable[[pathlib.Path], Any]] = None) -> Any:
        """Return what an undisturbed run of a verb gives; ``changed`` alters the data first."""
        key = verb, changed
        if verb == "report" and not (self.folder / "picks").exists():
            self._must([*self.words("pick", self.folder), "--out", self.folder / "picks"])
        if key not in self._expected:
            folder, begin = self.place(), time.monotonic()
            if changed:
                changed(folder / "data")
            ended = self.start(verb, folder).wait()
            if ended.status:
                raise RuntimeError(f"{verb} undisturbed ended with {ended.status}: {ended.told}")
            self.seconds.setdefault(verb, time.monotonic() - begin)
            self._expected[key] = result(verb, folder)
            if verb in ("pick", "propose") and not any(count for _, _, count in self._expected[key][0]):
                raise RuntimeError(f"{verb} undisturbed finds nothing: tables that are always empty say nothing")
            shutil.rmtree(folder)
        return self._expected[key]

    def _must(self, words: Sequence[Any]) -> None:
        """Run a command that has to end well."""
        ended = Run(words, self.folder / "log").wait()
        if ended.status:
            raise RuntimeError(ended.told)


def result(verb: str, folder: pathlib.Path) -> Any:
    """Return what must not depend on disturbances: weights and thresholds, or tables and what the manifest says."""
    out = folder / "out"
    if verb == "train":
        from safetensors.numpy import load_file

        card, manifest = read_card(out / "m.safetensors"), read_manifest(out / "m_run" / "manifest.json")
        weights = {name: value.tobytes() for name, value in load_file(out / "m.safetensors").items()}
        rows = [line.split(",")[:14] for line in (out / "m_run" / "metrics.csv").read_text().splitlines()]
        return weights, card.thresholds, card.training["kept_epoch"], rows, [i["name"] for i in manifest["items"]]
    if verb == "annotate":
        tables = sorted((out / "annotation").glob("version_*"))[-1]
        return {path.name: path.read_bytes() for path in sorted(tables.glob("*.csv"))}
    if verb == "report":
        return (out / "page.html").read_text("utf-8").replace(str(folder), "")
    where = out / ("picks" if verb == "pick" else "found")
    items = read_manifest(where / "manifest.json")["items"]
    files = {path.name: path.read_bytes() for path in whole(where.iterdir())
             if path.suffix in (".csv", ".npy") or path.name == "classes.json"}
    return [(item["name"], item["status"], item["n_picks"]) for item in items], files


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
               ".mrc": lambda p: open_volume(p, quiet=True), ".html": read_page,
               ".npy": lambda p: np.load(p, allow_pickle=False)}
    for path in folder.rglob("*"):
        if path.suffix not in readers or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            readers[path.suffix](path)
        except Exception as error:  # whatever it is, the file is not whole
            return f"{path.name} is not whole: {error}"
    return ""


def read_page(path: pathlib.Path) -> None:
    """Read a page, which must have an end."""
    if not path.read_text("utf-8").rstrip().endswith("</html>"):
        raise ValueError("it has no end")


def read_csv(path: pathlib.Path) -> Any:
    """Read a table: picks, boxes, or the metrics of a training, whose lines must have as many cells as its header."""
    if path.name.endswith(REGIONS):
        return read_regions(path)
    lines = path.read_text().splitlines()
    if lines and "epoch" in lines[0]:
        if {line.count(",") for line in lines} != {lines[0].count(",")}:
            raise ValueError("a line lacks cells")
        return lines
    return read_coordinates(path)
