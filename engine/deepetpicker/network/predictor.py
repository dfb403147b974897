"""The network on a device: which arithmetic, how many tiles at once, what to do when memory runs out."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from deepetpicker.errors import DeviceMemoryError, InputError
from deepetpicker.memory import NO_MEMORY
from deepetpicker.network.folded import FoldedResUNet
from deepetpicker.network.resunet import ResUNet3D, probabilities
from deepetpicker.preparation.tiling import PHASE

logger = logging.getLogger(__name__)

Box = Tuple[slice, slice, slice]
LOOKS = (1, 2, 4, 8)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(wanted: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        If ``cuda`` is asked for and PyTorch finds no usable GPU.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if wanted == "cuda":
        raise InputError(f"device cuda was asked for, but PyTorch {torch.__version__} finds no usable GPU: check the "
                         "driver and CUDA_VISIBLE_DEVICES, or use --device cpu (slower, same picks)")
    return torch.device("cpu")


def cpu_is_fast_in_bfloat16() -> bool:
    """Return True if convolutions on this CPU are faster in bfloat16 than in float32.

    So they are with AMX and on AMD's AVX-512 BF16; Intel's AVX-512 BF16 without AMX multiplies no faster than float32,
    and converting costs (docs/performance.rst).
    """
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as info:
            facts = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in info)}
    except OSError:
        return False
    flags = facts.get("flags", "").split()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and facts.get("vendor_id") == "AuthenticAMD")


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic of a device: ``auto`` takes bfloat16 where the hardware is faster in it, else float32."""
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if cpu_is_fast_in_bfloat16() else torch.float32


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """How a predictor computes: device, number type and tiles per forward pass."""

    device: torch.device
    dtype: torch.dtype
    batch: int

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto", batch: int = 0) -> Arithmetic:
        """Return the arithmetic for the words of the options; batch 0 takes 8 on a GPU and 1 on a CPU.

        With a single thread it takes 2: for one patch PyTorch then uses a convolution four times as slow.
        """
        where = choose_device(device)
        usual = 8 if where.type == "cuda" else 1 if torch.get_num_threads() > 1 else 2
        return cls(where, choose_dtype(precision, where), batch or usual)

    def __str__(self) -> str:
        """Return "cpu, bfloat16, 1 tile at a time"."""
        return f"{self.device}, {str(self.dtype).split('.')[-1]}, {self.batch} tile(s) at a time"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the device or the host has no memory left."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind when it has none."""
    return str(error).partition("\n")[0] or type(error).__name__


def mirrors(looks: int) -> List[Tuple[int, ...]]:
    """Return the axes (0 is z) that each of some looks at a tile mirrors: along x first, then y, then z.

    Parameters
    ----------
    looks : int
        1, 2, 4 or 8.

    Raises
    ------
    InputError
        For another number.
    """
    if looks not in LOOKS:
        raise InputError(f"mirrors must be one of {', '.join(map(str, LOOKS))}, got {looks}")
    axes = (2, 1, 0)[:LOOKS.index(looks)]
    return [chosen for n in range(len(axes) + 1) for chosen in itertools.combinations(axes, n)]


def turned(wanted: slice, length: int) -> slice:
    """Return where a part of an axis lies after mirroring the axis."""
    return slice(length - wanted.stop, length - wanted.start)


class Predictor:
    """Probabilities of tiles.

    Parameters
    ----------
    network : ResUNet3D or nn.Module
        A ResUNet3D is folded for inference; any other module is called as it is. Not modified.
    arithmetic : Arithmetic
        Where and how to compute. The batch shrinks by itself when the device or the host runs out of memory.
    looks : int
        1, 2, 4 or 8: the mean over a tile and its mirror images along x, y and z, so many in all.
    """

    def __init__(self, network: nn.Module, arithmetic: Optional[Arithmetic] = None, looks: int = 1) -> None:
        self.arithmetic = arithmetic or Arithmetic.choose()
        folded = FoldedResUNet(network) if isinstance(network, ResUNet3D) else network
        self.options = getattr(network, "options", None)
        folded = folded.eval().to(self.arithmetic.device, self.arithmetic.dtype)
        self.network = folded.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._mirrors = mirrors(looks)
        self._batch = self.arithmetic.batch
        self._seconds = 0.0
        self._marks: List[Tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __call__(self, tiles_bzyx: Tensor, keep: Optional[Box] = None) -> Tensor:
        """Return the probability of each class (B, n_classes, z, y, x) float16 in the wanted part of tiles.

        Parameters
        ----------
        tiles_bzyx : (B, Z, Y, X) float32
            Normalised voxels, on any device.
        keep : slices, optional
            The wanted part (z, y, x); default: all of it.

        Raises
        ------
        DeviceMemoryError
            If a single tile does not fit into memory.
        """
        begin, at = time.perf_counter(), 0
        out: List[Tensor] = []
        mark = self._mark()
        while at < len(tiles_bzyx):
            try:
                out.append(self._mean(tiles_bzyx[at:at + self._batch], keep))
                at += self._batch
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(tuple(tiles_bzyx.shape[1:]), error)
        self._seconds += time.perf_counter() - begin
        end = self._mark()
        if mark is not None and end is not None:
            self._marks.append((mark, end))
        return torch.cat(out) if len(out) > 1 else out[0]

    def _mark(self) -> Optional[torch.cuda.Event]:
        """Return an event of this moment in the GPU's work; None on a CPU."""
        if self.arithmetic.device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @property
    def stride(self) -> int:
        """Number that every edge of a tile must be a multiple of, at least 8."""
        levels = len(self.options.widths) if self.options else 1
        return max(PHASE, 2 ** (levels - 1))

    def warm_up(self, edge: int = 48, passes: int = 2) -> float:
        """Return the seconds that one voxel of a tile takes: the best of some passes of a small batch.

        Parameters
        ----------
        edge : int
            Edge of the tiles in voxels; three quarters are kept along each axis, as in a scan.
        passes : int
            How many are timed, after one that loads the kernels.
        """
        edge = -(-edge // self.stride) * self.stride
        tiles = torch.zeros(self._batch, edge, edge, edge, device=self.arithmetic.device)
        keep = (slice(edge // 8, edge - edge // 8),) * 3
        seconds = []
        for _ in range(1 + passes):
            self.take_seconds()
            self(tiles, keep)
            seconds.append(self.take_seconds())
        return min(seconds[1:]) / tiles.numel()

    def take_seconds(self) -> float:
        """Return the seconds spent in calls since this was last asked; on a GPU, waits until they have ended."""
        seconds, self._seconds = self._seconds, 0.0
        if self._marks:
            torch.cuda.synchronize(self.arithmetic.device)
            seconds = sum(begin.elapsed_time(end) for begin, end in self._marks) / 1000
            self._marks = []
        return seconds

    @property
    def least(self) -> int:
        """Tiles that a forward pass computes at least: one more than wanted, for speed, on one thread (see choose)."""
        return 2 if self.arithmetic.device.type == "cpu" and torch.get_num_threads() == 1 else 1

    @property
    def batch(self) -> int:
        """Tiles per forward pass at present."""
        return self._batch

    def _mean(self, tiles_bzyx: Tensor, keep: Optional[Box]) -> Tensor:
        """Return the probabilities of one batch, (B, n_classes, z, y, x) float16, averaged over its mirror images."""
        if len(self._mirrors) == 1:
            return self._forward(tiles_bzyx, keep)
        total: Optional[Tensor] = None
        for axes in self._mirrors:
            part = keep
            if keep is not None:
                z, y, x = (turned(s, n) if axis in axes else s
                           for axis, (s, n) in enumerate(zip(keep, tiles_bzyx.shape[1:])))
                part = z, y, x
            seen = self._forward(tiles_bzyx.flip([axis + 1 for axis in axes]), part).flip([axis + 2 for axis in axes])
            total = seen.float() if total is None else total.add_(seen)
        assert total is not None
        return (total / len(self._mirrors)).half()

    def _forward(self, tiles_bzyx: Tensor, keep: Optional[Box]) -> Tensor:
        """Return the probabilities of one batch, (B, n_classes, z, y, x) float16."""
        with torch.inference_mode():
            x = tiles_bzyx[:, None].to(self.arithmetic.device, self.arithmetic.dtype, non_blocking=True)
            x = x.contiguous(memory_format=torch.channels_last_3d)
            n_tiles = len(x)
            if n_tiles < self.least:
                x = x.expand(self.least, -1, -1, -1, -1).contiguous(memory_format=torch.channels_last_3d)
            if isinstance(self.network, FoldedResUNet):
                logits = self.network(x, keep)
            else:
                logits = self.network(x)[(..., *(keep or ()))]
            return probabilities(logits[:n_tiles].float()).half().contiguous()

    def _shrink(self, shape_zyx: Tuple[int, ...], error: BaseException) -> None:
        """Halve the batch, or raise DeviceMemoryError when it is 1."""
        if self._batch == 1:
            raise DeviceMemoryError(f"{self.arithmetic.device} has too little free memory for one tile of "
                                    f"{' x '.join(map(str, shape_zyx))} voxels: use a smaller --tile, close other "
                                    f"programs on the device, or use --device cpu (it said: {_first_line(error)})"
                                    ) from error
        self._batch //= 2
        if self.arithmetic.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("%s: out of memory, going on with %d tile(s) at a time", self.arithmetic.device, self._batch)
