"""What the tests share: simulated data, a tiny model, a project with imported sets, ways to wait and to kill."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Sequence, Tuple

import mrcfile
import numpy as np
from pyworkflow.object import Set
from pyworkflow.tests import setupTestProject
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfCoordinates3D, SetOfTomograms, Tomogram
from tomo.protocols import ProtImportCoordinates3D, ProtImportTomograms
from tomo.tests.test_base_centralized_layer import TestBaseCentralizedLayer

from deepetpicker_plugin.protocols import ProtDeepETPickerImportModel, ProtDeepETPickerSimulate

RATE = 10.0
SHAPE = (32, 64, 64)
DIAMETERS = (168.0, 253.0)
TINY = {"epochs": 2, "patch": 32, "batch": 4, "widths": "4,6,8,10", "patchesPerEpoch": 8, "workingDiameter": 8.0,
        "numberOfThreads": 1, "recipe": 1}  # the published one: a network of two epochs that picks something

MODEL_CODE = """
import sys, torch
from deepetpicker.config import NetworkOptions
from deepetpicker.io.modelcard import ClassCard, ModelCard
from deepetpicker.network.modelfile import save_model
from deepetpicker.network.resunet import ResUNet3D
torch.manual_seed(3)
names = sys.argv[2].split(",")
options = NetworkOptions(n_classes=len(names), widths=(4, 6, 8, 10))
classes = tuple(ClassCard(i + 1, n, 60.0, 5.0) for i, n in enumerate(names))
card = ModelCard(options.to_dict(), classes, 10.0, 32, 8, "tball", "robust", float(sys.argv[3]), 0.1)
save_model(sys.argv[1], ResUNet3D(options), card)
"""


def slow(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that takes long; conftest.py makes it pytest's mark, other test runners run it."""
    test.isSlow = True  # type: ignore[attr-defined]
    return test


@functools.lru_cache(maxsize=None)
def dataFolder() -> str:
    """Return a folder for this test process."""
    folder = tempfile.mkdtemp(prefix="deepetpicker_data_")
    import atexit
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def python() -> str:
    """Return the interpreter for processes of the engine: DEEPETPICKER_TEST_PYTHON, else Scipion's, else this one.

    Where Scipion's Python is too old for torch, the engine is elsewhere (DEEPETPICKER_ENV_ACTIVATION), here too.
    """
    return os.environ.get("DEEPETPICKER_TEST_PYTHON") or os.environ.get("SCIPION_PYTHON", sys.executable)


def engine(*words: str) -> None:
    """Run the engine's command line."""
    subprocess.run([python(), "-m", "deepetpicker", *words, "--quiet"], check=True, stdout=subprocess.DEVNULL)


@functools.lru_cache(maxsize=None)
def tinyModel(names: str = "ring", threshold: float = 0.0) -> str:
    """Return the path of a small untrained model: it picks noise, the same whenever it is asked."""
    path = os.path.join(dataFolder(), f"model_{names.replace(',', '_')}_{threshold}.safetensors")
    subprocess.run([python(), "-c", MODEL_CODE, path, names, str(threshold)], check=True)
    return path


def noiseTomograms(folder: str, shapes: Dict[str, Tuple[int, int, int]], rate: float = RATE) -> str:
    """Write tomograms of noise, (Z, Y, X) by name; return the folder."""
    os.makedirs(folder, exist_ok=True)
    for number, (name, shape) in enumerate(shapes.items()):
        rng = np.random.default_rng(number)
        with mrcfile.new(os.path.join(folder, f"{name}.mrc"), overwrite=True) as mrc:
            mrc.set_data(rng.normal(size=shape).astype(np.float32))
            mrc.voxel_size = rate
    return folder


def positions(coordinates: SetOfCoordinates3D) -> Dict[str, np.ndarray]:
    """Return x, y, z from the corner, group and score of a set by tsId, sorted; read as tomo's users read it."""
    found: Dict[str, List[Tuple[float, ...]]] = {}
    for item in coordinates.iterCoordinates():
        found.setdefault(item.getTomoId(), []).append(
            (*item.getPosition(BOTTOM_LEFT_CORNER), item.getGroupId(), item.getScore()))
    return {ts: np.array(sorted(rows)) for ts, rows in found.items()}


def copyOf(tomogram: Tomogram) -> Tomogram:
    """Return a tomogram that can be appended to another set."""
    copy = tomogram.clone()
    copy.cleanObjId()
    return copy


def extend(tomograms: SetOfTomograms, items: Sequence[Tomogram], state: int) -> None:
    """Append tomograms to a set in its file, as another process does."""
    grown = type(tomograms)(filename=tomograms.getFileName())
    grown.loadAllProperties()
    grown.enableAppend()
    for item in items:
        grown.append(copyOf(item))
    grown.setStreamState(state)
    grown.write()
    grown.close()


def alive(pid: int) -> bool:
    """Tell whether a process runs and is not a zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class PluginTest(TestBaseCentralizedLayer):
    """A project of its own per class, and short words for what tests do in it."""

    @classmethod
    def setUpClass(cls) -> None:
        setupTestProject(cls)

    @classmethod
    def run_(cls, kind: Any, wait: bool = True, label: str = "", **settings: Any) -> Any:
        """Make and launch a protocol; fails with its log when it fails."""
        protocol = cls.newProtocol(kind, **settings)
        if label:
            protocol.setObjLabel(label)
        if wait:
            cls.launchProtocol(protocol)
        else:
            cls.proj.launchProtocol(protocol, wait=False)
        return protocol

    @classmethod
    def importTomograms(cls, folder: str, rate: float = RATE, **settings: Any) -> Any:
        """Import the tomograms of a folder with tomo's own protocol; instance masks stay out."""
        protocol = cls.run_(ProtImportTomograms, filesPath=os.path.abspath(folder), filesPattern="{TS}.mrc",
                            samplingRate=rate, exclusionWords="instances", **settings)
        return protocol.Tomograms

    @classmethod
    def importCoordinates(cls, folder: str, tomograms: Any, box: int) -> Any:
        """Import text tables (x, y, z) with tomo's own protocol."""
        protocol = cls.run_(ProtImportCoordinates3D, filesPath=os.path.abspath(folder), filesPattern="*.txt",
                            importTomograms=tomograms, boxSize=box, importFrom=1,
                            samplingRate=tomograms.getSamplingRate())
        return protocol.outputCoordinates

    @classmethod
    def importModel(cls, path: str) -> Any:
        """Import a model file."""
        return cls.run_(ProtDeepETPickerImportModel, modelFile=path).model

    @classmethod
    def simulate(cls, n: int = 2, **settings: Any) -> Any:
        """Simulate small tomograms with two kinds of particles."""
        chosen = {"n": n, "shape": ",".join(map(str, SHAPE)), "particles": 10, "phantoms": "ring,rod", "snr": 1.0,
                  "tiltStep": 10.0, "gold": 0, "membranes": 0, **settings}
        return cls.run_(ProtDeepETPickerSimulate, **chosen)

    @classmethod
    def growing(cls, tomograms: SetOfTomograms, items: Sequence[Tomogram]) -> Any:
        """Return a protocol whose output ``tomograms`` is open, with the properties of a set, and holds some items."""
        source = cls.run_(ProtDeepETPickerSimulate, n=1, shape="16,16,16", particles=0, phantoms="ring", gold=0,
                          membranes=0)
        path = source.tomograms.getFileName()
        source.tomograms.close()
        os.remove(path)
        fresh = type(source.tomograms)(filename=path)
        fresh.setSamplingRate(tomograms.getSamplingRate())
        fresh.setStreamState(Set.STREAM_OPEN)
        for item in items:
            fresh.append(copyOf(item))
        fresh.write()
        fresh.close()
        source.tomograms.setStreamState(Set.STREAM_OPEN)
        source.tomograms.copy(fresh, copyId=False)
        source._store(source.tomograms)
        return source

    @classmethod
    def refresh(cls, protocol: Any) -> Any:
        """Read a running protocol's state from disk.

        Scipion notes the time of the file after it has read it, so that what is written in between is never seen: each
        time anew.
        """
        protocol.lastUpdateTimeStamp.set(None)
        cls.proj._updateProtocol(protocol)
        return protocol

    @classmethod
    def waitFor(cls, condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
        """Wait until a condition is true; fail when it takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"waited {seconds} s in vain for {what or condition}")

    @classmethod
    def waitEnd(cls, protocol: Any, seconds: float = 120.0) -> Any:
        """Wait until a protocol that was started in the background has ended."""
        cls.waitFor(lambda: not cls.refresh(protocol).isActive(), seconds, f"the end of {protocol}")
        return protocol

    @classmethod
    def kill9(cls, protocol: Any) -> None:
        """Kill a protocol's process, and nothing else, as a machine's owner might."""
        pid = cls.waitFor(lambda: cls.refresh(protocol).getPid() or 0, 20, "a process number")
        os.kill(pid, signal.SIGKILL)
        cls.waitFor(lambda: not alive(pid), 10, "the end of the killed process")
        cls.waitFor(lambda: not cls.refresh(protocol).isActive(), 20, "the protocol to be seen as dead")
