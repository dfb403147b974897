"""What all parts of benchmarks/gpu.py share: device, sizes, files, clock."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import torch
from scale import VOXEL_ANG, write_volume

from deepetpicker.benchmarking.run import detector_model
from deepetpicker.config import NetworkOptions, PickOptions
from deepetpicker.io.volumes import Volume, open_volume, write_volume as write_mrc
from deepetpicker.network.predictor import choose_device

GB = 1e9


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
        self.network = NetworkOptions(widths=(4, 6, 8, 10)) if quick else NetworkOptions()

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()

    def full(self, text: str) -> str:
        """Return a target where it is meant: on a GPU at full size."""
        return text if self.is_gpu and not self.quick else ""

    def options(self, **values: Any) -> PickOptions:
        """Return options of ``pick`` for this device."""
        return PickOptions(**{"device": self.word, "mirrors": 1, "tile": 48 if self.quick else 0, **values})

    @property
    def model(self) -> pathlib.Path:
        """Model file of the detector with set weights."""
        path = self.folder / "detector.safetensors"
        return path if path.exists() else detector_model(self.folder, VOXEL_ANG, self.network)

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
